"""Writing that points of an award are taken back: the movement, what it credits, and what it takes of which lot."""

from domain.batch import Batch, TransactionRow
from domain.batch_clock import Booking
from domain.burning import lot_use
from domain.campaign_awards import credited_budget
from domain.commands import CommandRow, MovementKind
from domain.lots import Account, Charge, Lot
from domain.rows import movement_row
from domain.values import OPERATOR_ID


def take_back(  # noqa: PLR0913 (the parts of a row, each by name)
    batch: Batch,
    row: CommandRow,
    account: Account,
    charge: Charge,
    booking: Booking,
    *,
    lot: Lot | None,
    points: int,
    shortfall: int = 0,
    kind: MovementKind = MovementKind.EARN_REVERSAL,
) -> TransactionRow:
    """Takes points out of a lot of the purchase's account, and credits them as the award was charged.

    ``shortfall``: points that nothing gives, which stay charged; negative: points that an earlier return missed.
    Answers the row, which the batch will write.
    """
    terms = batch.configuration.terms_by_id[charge.terms_id]
    by_partner = charge.funder_id != OPERATOR_ID
    budget = credited_budget(batch, charge, booking) if points else None
    credit_micro = points * terms.charge_price_micro(charge.funder_id)
    transaction_id = next(batch.new_ids)
    written = movement_row(
        row,
        transaction_id,
        kind,
        -points,
        partner_id=charge.partner_id,
        party_id=charge.funder_id,
        funder_id=charge.funder_id,
        issuer_id=charge.issuer_id,
        store_id=charge.store_id,
        requested_points=points + shortfall,
        shortfall_points=shortfall,
        issue_value_micro=points * terms.issue_price_micro,
        service_fee_micro=points * terms.service_fee_micro if by_partner else 0,
        pool_value_micro=-points * (0 if lot is None else lot.price_micro),
        budget_id=None if budget is None else budget.id,
        budget_micro=0 if budget is None else -credit_micro,
        terms_id=charge.terms_id,
        rule_id=charge.rule_id,
        lot_id=None if lot is None else lot.id,
        reverses_id=charge.transaction_id,
        reverses_period_id=charge.period_id,
    )
    batch.new_transactions.append(written)
    if budget is not None:
        budget.draw(-credit_micro, batch.clock.recorded_at)
    if points and lot is not None:
        lot.take(points)
        account.change(-points)
        account.note_next_expiry()
        batch.new_lot_uses.append(lot_use(batch, lot, transaction_id, kind, points, row.period_id, None))
    return written

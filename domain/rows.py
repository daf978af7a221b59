"""Rows of commands and of their movements, by what each of them says: what it does not say is nothing."""

from datetime import datetime

from domain.batch import Batch, TransactionRow
from domain.commands import CommandKind, CommandRow, MovementKind
from domain.values import NO_STORE_ID


def command_row(  # noqa: PLR0913 (the parts of a row, each by name)
    batch: Batch,
    kind: CommandKind,
    *,
    partner_id: int,
    account_id: int,
    member_id: int,
    occurred_at: datetime,
    key: str,
    id_: int | None = None,
    period_id: int | None = None,
    store_id: int = NO_STORE_ID,
    reference: str | None = None,
    channel: str | None = None,
    amount_minor: int | None = None,
    points: int | None = None,
    reverses_id: int | None = None,
    reason: str | None = None,
    moved_points: int = 0,
) -> CommandRow:
    """A command recorded now under the next id, or ``id_``; in ``period_id``, or where what happened then is booked."""
    return CommandRow(
        id=next(batch.new_ids) if id_ is None else id_,
        partner_id=partner_id,
        key=key,
        kind=kind,
        account_id=account_id,
        member_id=member_id,
        store_id=store_id,
        reference=reference,
        channel=channel,
        amount_minor=amount_minor,
        points=points,
        reverses_id=reverses_id,
        reason=reason,
        declined_points=0,
        occurred_at=occurred_at,
        recorded_at=batch.clock.recorded_at,
        period_id=batch.clock.booking(occurred_at).period_id if period_id is None else period_id,
        moved_points=moved_points,
    )


def movement_row(  # noqa: PLR0913 (the parts of a row, each by name)
    row: CommandRow,
    id_: int,
    kind: MovementKind,
    points: int,
    *,
    party_id: int,
    account_id: int | None = None,
    partner_id: int | None = None,
    store_id: int | None = None,
    funder_id: int | None = None,
    issuer_id: int | None = None,
    requested_points: int | None = None,
    shortfall_points: int = 0,
    issue_value_micro: int = 0,
    service_fee_micro: int = 0,
    reimbursement_micro: int = 0,
    breakage_share_micro: int = 0,
    pool_value_micro: int = 0,
    budget_id: int | None = None,
    budget_micro: int = 0,
    terms_id: int | None = None,
    rule_id: int | None = None,
    lot_id: int | None = None,
    reverses_id: int | None = None,
    reverses_period_id: int | None = None,
) -> TransactionRow:
    """A movement of the command ``row``; signs as the table ``transaction`` has them.

    Account, partner and store are the command's, and as many points were asked for as moved, unless it is said
    otherwise.
    """
    return TransactionRow(
        account_id=row.account_id if account_id is None else account_id,
        id=id_,
        command_id=row.id,
        kind=kind,
        period_id=row.period_id,
        partner_id=row.partner_id if partner_id is None else partner_id,
        party_id=party_id,
        funder_id=funder_id,
        issuer_id=issuer_id,
        store_id=row.store_id if store_id is None else store_id,
        points=points,
        requested_points=abs(points) if requested_points is None else requested_points,
        shortfall_points=shortfall_points,
        issue_value_micro=issue_value_micro,
        service_fee_micro=service_fee_micro,
        reimbursement_micro=reimbursement_micro,
        breakage_share_micro=breakage_share_micro,
        pool_value_micro=pool_value_micro,
        budget_id=budget_id,
        budget_micro=budget_micro,
        terms_id=terms_id,
        rule_id=rule_id,
        lot_id=lot_id,
        reverses_id=reverses_id,
        reverses_period_id=reverses_period_id,
        occurred_at=row.occurred_at,
        recorded_at=row.recorded_at,
    )

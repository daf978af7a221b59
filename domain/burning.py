"""Deciding about burns, and booking expired lots just before one would use them."""

from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from domain.batch import Batch, BurnUse, CommandInput, LotUseRow, Member, Original, TransactionRow
from domain.commands import Authorize, Burn, CommandKind, CommandRow, MovementKind, Posted
from domain.confirming import confirm_due, confirmable_points
from domain.endings import has_ended, is_settled_as_leaver
from domain.enrolling import key_conflict
from domain.errors import RefusalCode, Refused
from domain.expiring import note_use
from domain.ledger import fingerprint
from domain.limits import check_burn_limit, note_burn
from domain.lots import Account, Lot, allocate, burn_order
from domain.receipts import balance_view, replayed
from domain.rows import command_row, movement_row
from domain.standing import print_member_id
from domain.taking_part import check_burns
from domain.terms import Terms
from domain.values import OPERATOR_ID, POINTS_MAX, half_even

PPM = 1_000_000


def decide_burn(batch: Batch, command: Burn, member: Member | None) -> Posted:
    """Accepts a burn out of the member's lots. Raises Refused and changes nothing."""
    begun = begin_burn(batch, command, CommandKind.BURN, member)
    if isinstance(begun, Posted):
        return begun
    row = begun.row
    note_use(batch, row)
    transaction_id = next(batch.new_ids)
    used = take_in_burn_order(begun)
    for lot, part in used:
        batch.new_lot_uses.append(
            lot_use(batch, lot, transaction_id, MovementKind.BURN, part, row.period_id, row.partner_id)
        )
        lot.take(part)
    begun.account.change(-command.points)
    begun.account.note_next_expiry()
    batch.new_transactions.append(
        redeemer_movement(
            row,
            transaction_id,
            MovementKind.BURN,
            -command.points,
            begun.terms.id,
            reimbursement_micro=command.points * begun.terms.reimbursement_micro,
            pool_value_micro=-sum(part * lot.price_micro for lot, part in used),
        )
    )
    uses = [BurnUse(lot.id, part, 0) for lot, part in used]
    batch.remember(
        Original(row, begun.print_, None, burn_transaction_id=transaction_id, burn_terms_id=begun.terms.id, uses=uses)
    )
    return Posted(
        command=row,
        points=command.points,
        awards=(),
        declined_points=0,
        shortfall_points=0,
        balance=balance_view(batch, begun.account.id, command.occurred_at),
        budget=None,
        replayed=False,
    )


class BegunBurn(NamedTuple):
    """A burn or an authorization that passed its checks; expired lots are booked, its command is among the new."""

    row: CommandRow
    print_: bytes
    account: Account
    instant: datetime
    terms: Terms


def begin_burn(batch: Batch, command: Burn | Authorize, kind: CommandKind, member: Member | None) -> BegunBurn | Posted:
    """Checks a burn or an authorization and writes its command; answers a replay at once.

    Raises Refused and changes nothing.
    """
    batch.check_key(command.key)
    store_id = batch.store_id(command.partner_id, command.store)
    check_points(command.points)
    batch.check_reference(command.reference)
    batch.check_channel(command.channel)
    earlier = batch.by_key.get((command.partner_id, command.key))
    print_ = fingerprint(
        kind=kind,
        member_id=print_member_id(batch, member, earlier),
        store_id=store_id,
        reference=command.reference,
        channel=command.channel,
        points=command.points,
        occurred_at=command.occurred_at,
    )
    if earlier is not None and not batch.is_quote:
        if earlier.fingerprint != print_:
            raise key_conflict()
        return replayed(batch, earlier, draws_on_budget=False)
    batch.clock.check_occurred(command.occurred_at)
    check_burns(batch, command.partner_id, command.occurred_at)
    member = batch.active_member(member)
    batch.check_reference_free(command.partner_id, kind, command.reference, store_id)
    account = batch.accounts[member.account_id]
    instant = batch.clock.expiry_instant(command.occurred_at)
    _check_spendable(batch, member, command.points, instant)
    terms = batch.terms_at(command.partner_id, command.occurred_at)
    row = command_row(
        batch,
        kind,
        partner_id=command.partner_id,
        key=command.key,
        account_id=account.id,
        member_id=member.id,
        store_id=store_id,
        reference=command.reference,
        channel=command.channel,
        points=command.points,
        occurred_at=command.occurred_at,
        moved_points=-command.points,
    )
    # A job that is late takes nothing from the member: what is due becomes usable here.
    confirm_due(batch, account, row.period_id, instant)
    expire_past_lots(batch, account, row, instant)
    stored = CommandInput(print_, reference_unique=batch.partner(command.partner_id).reference_unique)
    batch.new_commands.append((row, stored))
    note_burn(batch, member, command.points)
    return BegunBurn(row, print_, account, instant, terms)


def _check_spendable(batch: Batch, member: Member, points: int, instant: datetime) -> None:
    account = batch.accounts[member.account_id]
    usable = account.usable(instant) + confirmable_points(batch, account, instant) - account.owed
    if usable < points:
        raise Refused(RefusalCode.INSUFFICIENT_POINTS, f"the member has {usable} points", "points")
    check_burn_limit(batch, member, points)


def check_points(points: int) -> None:
    """Raises Refused(AMOUNT_INVALID) unless a caller's points are from 1 to POINTS_MAX."""
    if not 1 <= points <= POINTS_MAX:
        raise Refused(RefusalCode.AMOUNT_INVALID, f"points are from 1 to {POINTS_MAX}", "points")


def take_in_burn_order(begun: BegunBurn) -> list[tuple[Lot, int]]:
    """Which lots give how much; the caller takes it of them."""
    points = -begun.row.moved_points
    used = allocate(burn_order(begun.account.lots, begun.instant), points)
    assert sum(part for _, part in used) == points, "an account's lots hold its available points"
    return used


def redeemer_movement(
    row: CommandRow,
    transaction_id: int,
    kind: MovementKind,
    points: int,
    terms_id: int,
    *,
    reimbursement_micro: int = 0,
    pool_value_micro: int = 0,
) -> TransactionRow:
    """A movement at the partner where points are burned or held; signs as the table has them."""
    return movement_row(
        row,
        transaction_id,
        kind,
        points,
        party_id=row.partner_id,
        reimbursement_micro=reimbursement_micro,
        pool_value_micro=pool_value_micro,
        terms_id=terms_id,
    )


def lot_use(
    batch: Batch,
    lot: Lot,
    transaction_id: int,
    kind: MovementKind,
    points: int,
    period_id: int,
    redeemer_id: int | None,
) -> LotUseRow:
    """The row that says how much of a lot a movement took or restored."""
    return LotUseRow(
        account_id=lot.account_id,
        id=next(batch.new_ids),
        lot_id=lot.id,
        transaction_id=transaction_id,
        kind=kind,
        points=points,
        period_id=period_id,
        issuer_id=lot.issuer_id,
        funder_id=lot.funder_id,
        redeemer_id=redeemer_id,
        price_micro=lot.price_micro,
    )


class Cause(Protocol):
    """What makes the system book something: a command of the same account, or a sweep."""

    @property
    def member_id(self) -> int:
        """Whose command it is; of a sweep, who used the account last."""

    @property
    def recorded_at(self) -> datetime:
        """When it is booked."""

    @property
    def period_id(self) -> int:
        """The period in which it is booked."""


def expire_past_lots(batch: Batch, account: Account, cause: Cause, instant: datetime) -> None:
    """Books every lot of the account that is past, each as a command of its own, in the period of ``cause``.

    Of its own, because the issuer sees the expiry on its statement and must not see the burn at another partner.
    """
    for lot in account.lots:
        if lot.remaining and lot.is_past(instant):
            expire_lot(batch, account, lot, cause)


def expire_lot(batch: Batch, account: Account, lot: Lot, cause: Cause) -> None:
    """Takes what remains of a past lot out of the pool and shares its value (SETTLEMENT.md c.2, Expiry)."""
    command_id = next(batch.new_ids)
    transaction_id = next(batch.new_ids)
    points = lot.remaining
    value_micro = points * lot.price_micro
    party_id, share_micro = _breakage(batch, lot, value_micro, cause.period_id)
    row = command_row(
        batch,
        CommandKind.EXPIRY,
        id_=command_id,
        partner_id=lot.issuer_id,
        key=f"system:expiry:{command_id}",
        account_id=account.id,
        member_id=cause.member_id,
        points=points,
        occurred_at=batch.clock.ended_by(lot.usable_until),
        period_id=cause.period_id,
        moved_points=-points,
    )
    print_ = fingerprint(
        kind=row.kind, member_id=row.member_id, store_id=row.store_id, points=points, occurred_at=row.occurred_at
    )
    batch.new_commands.append((row, CommandInput(print_, reference_unique=False)))
    batch.new_transactions.append(
        movement_row(
            row,
            transaction_id,
            MovementKind.EXPIRE,
            -points,
            party_id=party_id,
            funder_id=lot.funder_id,
            issuer_id=lot.issuer_id,
            breakage_share_micro=share_micro,
            pool_value_micro=-value_micro,
            terms_id=lot.terms_id,
            lot_id=lot.id,
        )
    )
    batch.new_lot_uses.append(lot_use(batch, lot, transaction_id, MovementKind.EXPIRE, points, row.period_id, None))
    lot.take(points)
    account.change(-points)
    account.note_next_expiry()


def make_usable(batch: Batch, account: Account, lot: Lot, cause: CommandRow, instant: datetime) -> None:
    """Gives a lot that is past the days of grace, before points return to it."""
    # What still lay in a past lot is expired first: the grace is for the refunded points alone.
    if lot.is_past(instant):
        if lot.remaining:
            expire_lot(batch, account, lot, cause)
        if not has_ended(batch.configuration.programme, instant):
            lot.grace_until = instant + timedelta(days=batch.configuration.programme.grace_days)


def _breakage(batch: Batch, lot: Lot, value_micro: int, period_id: int) -> tuple[int, int]:
    """Who shares in the value of a lot's expired points, and in how much of it (SETTLEMENT.md c.2, Expiry)."""
    if lot.funder_id == OPERATOR_ID:
        # What an operator-funded lot frees goes back to SUBSIDY whole, never to a partner.
        return OPERATOR_ID, value_micro
    if is_settled_as_leaver(batch.configuration, lot.issuer_id, period_id):
        # The issuer left, and its final statement is made: all of it stays with the operator, as BREAKAGE.
        return OPERATOR_ID, 0
    return lot.issuer_id, half_even(value_micro * lot.breakage_share_ppm, PPM)

"""Deciding about two-phase burns: points are set aside, then captured in full or in part, voided, or timed out.

The money is that of the authorization (its partner's reimbursement when it occurred) and is booked when captured.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from domain.asked import RESOLVABLE
from domain.batch import SYSTEM_KEY_PREFIX, Batch, BurnUse, CommandInput, Member, Original, StartOver
from domain.batch_clock import Booking
from domain.burning import begin_burn, lot_use, make_usable, redeemer_movement, take_in_burn_order
from domain.commands import Authorize, Capture, CommandKind, CommandRow, HoldView, MovementKind, Posted, Void
from domain.enrolling import key_conflict
from domain.errors import RefusalCode, Refused
from domain.expiring import note_use
from domain.ledger import fingerprint
from domain.limits import note_release
from domain.lots import Account, Hold, Lot
from domain.recalling import make_good
from domain.receipts import balance_view
from domain.rows import command_row
from domain.taking_part import check_captures
from domain.values import POINTS_MAX

TIME_OUT_KEY_PREFIX = f"{SYSTEM_KEY_PREFIX}timeout:"
"""Key of the command that times a hold out, followed by the hold's id: it cannot be booked twice."""


def decide_authorize(batch: Batch, command: Authorize, member: Member | None) -> Posted:
    """Sets points aside in burn order. Raises Refused and changes nothing."""
    begun = begin_burn(batch, command, CommandKind.AUTHORIZATION, member)
    if isinstance(begun, Posted):
        hold = batch.accounts[begun.command.account_id].holds[begun.command.id]
        return begun._replace(hold=hold_view(hold))
    row, account = begun.row, begun.account
    transaction_id = next(batch.new_ids)
    used = take_in_burn_order(begun)
    for lot, part in used:
        lot.set_aside(part)
        batch.new_lot_uses.append(
            lot_use(batch, lot, transaction_id, MovementKind.HOLD, part, row.period_id, row.partner_id)
        )
    account.set_aside(command.points)
    account.note_next_expiry()
    batch.new_transactions.append(
        redeemer_movement(row, transaction_id, MovementKind.HOLD, -command.points, begun.terms.id)
    )
    hold = Hold(
        account_id=account.id,
        id=row.id,
        transaction_id=transaction_id,
        partner_id=row.partner_id,
        store_id=row.store_id,
        member_id=row.member_id,
        reference=row.reference,
        points=command.points,
        captured=0,
        released=0,
        state="OPEN",
        recorded_at=row.recorded_at,
        expires_at=begun.instant + timedelta(minutes=batch.configuration.hold_minutes(row.partner_id)),
        terms_id=begun.terms.id,
        uses=[(lot.id, part) for lot, part in used],
        is_new=True,
    )
    account.holds[hold.id] = hold
    batch.new_holds.append(hold)
    batch.remember(Original(row, begun.print_, None))
    return _posted(batch, row, hold, command.points)


def decide_capture(batch: Batch, command: Capture) -> Posted:
    """Burns points of an authorization and releases the rest; of none of them it is a void. Raises Refused.

    A refusal changes nothing, except that a hold found past its time is timed out: the platform's doing, not the
    caller's, and what the sweep would do a moment later.
    """
    batch.check_key(command.key)
    if command.points is not None and not 0 <= command.points <= POINTS_MAX:
        message = f"points are from 1 to {POINTS_MAX}, or 0 to release them all"
        raise Refused(RefusalCode.AMOUNT_INVALID, message, "points")
    if command.points == 0:
        return _void(batch, command, None)._replace(points=0)
    hold, earlier = _meant(batch, command)
    print_ = _fingerprint(hold, CommandKind.CAPTURE, command.occurred_at, points=command.points)
    if earlier is not None:
        return _replayed(batch, earlier, hold, print_)
    check_captures(batch, hold.partner_id, command.occurred_at)
    _check_open(batch, hold, command.occurred_at)
    points = hold.points if command.points is None else command.points
    if points > hold.points:
        raise Refused(RefusalCode.EXCEEDS_ORIGINAL, f"only {hold.points} points are held", "points")
    row = _command_row(
        batch, hold, CommandKind.CAPTURE, command.key, command.occurred_at, points=points, moved_points=-points
    )
    stored = CommandInput(print_, reference_unique=False, whole=command.points is None)
    batch.new_commands.append((row, stored))
    batch.remember(_spend(batch, row, hold, points, print_))
    note_use(batch, row)
    return _posted(batch, row, hold, points)


def decide_void(batch: Batch, command: Void) -> Posted:
    """Releases all points of an authorization. Raises Refused, and changes then what ``decide_capture`` says."""
    batch.check_key(command.key)
    batch.check_reason(command.reason)
    return _void(batch, command, command.reason)


def _void(batch: Batch, command: Capture | Void, reason: str | None) -> Posted:
    hold, earlier = _meant(batch, command)
    print_ = _fingerprint(hold, CommandKind.VOID, command.occurred_at, reason=reason)
    if earlier is not None:
        return _replayed(batch, earlier, hold, print_)
    _check_open(batch, hold, command.occurred_at)
    row = _command_row(
        batch, hold, CommandKind.VOID, command.key, command.occurred_at, reason=reason, moved_points=hold.points
    )
    _release_all(batch, row, hold, "VOIDED", print_, batch.clock.booking(command.occurred_at))
    return _posted(batch, row, hold, hold.points)


def time_out_due(batch: Batch, account: Account, occurred_at: datetime) -> int:
    """Times out every loaded hold of the account whose time has run out; answers how many.

    ``occurred_at`` is that of the command that comes by; it chooses the instant and the period as for that command.
    """
    instant = batch.clock.expiry_instant(occurred_at)
    due = [hold for hold in account.holds.values() if hold.is_due(instant)]
    for hold in due:
        _time_out(batch, hold, occurred_at)
    return len(due)


def _time_out(batch: Batch, hold: Hold, cause_occurred_at: datetime) -> None:
    row = _command_row(
        batch,
        hold,
        CommandKind.VOID,
        f"{TIME_OUT_KEY_PREFIX}{hold.id}",
        batch.clock.ended_by(hold.expires_at),
        moved_points=hold.points,
    )
    # Booked with what found it: in history that is the period whose lock the batch holds.
    booking = batch.clock.booking(cause_occurred_at)
    row = row._replace(period_id=booking.period_id)
    _release_all(batch, row, hold, "EXPIRED", _fingerprint(hold, CommandKind.VOID, row.occurred_at), booking)


def hold_view(hold: Hold) -> HoldView:
    """As answers show it."""
    return HoldView(
        hold.account_id,
        hold.id,
        hold.partner_id,
        hold.points,
        hold.captured,
        hold.released,
        hold.state,
        hold.expires_at,
    )


# ---------------------------------------------------------------- which hold, and whether it is open


def _meant(batch: Batch, command: Capture | Void) -> tuple[Hold, Original | None]:
    """The hold that a capture or a void means, and what was posted under its key before."""
    earlier = batch.by_key.get((command.partner_id, command.key))
    ref = command.original
    if ref.given != 1:
        message = "name the authorization by exactly one of holdId, originalKey or reference"
        raise Refused(RefusalCode.INPUT_INVALID, message, "holdId")
    store_id = batch.store_id(command.partner_id, ref.store)
    found = batch.originals(command.partner_id, ref, store_id, RESOLVABLE)
    if earlier is not None:
        found = [o for o in found if o.command.id == earlier.command.reverses_id] or found
    if not found:
        message = "this partner has no authorization with that id, key or reference"
        raise Refused(RefusalCode.TRANSACTION_NOT_FOUND, message)
    if len(found) > 1:
        message = "the reference fits several authorizations: name the store, or use the key or the id"
        raise Refused(RefusalCode.AMBIGUOUS_REFERENCE, message, "reference")
    authorization = found[0].command
    account = batch.accounts.get(authorization.account_id)
    if account is None or authorization.id not in account.holds:
        # Another process committed it after this batch chose its locks.
        raise StartOver
    return account.holds[authorization.id], earlier


def _check_open(batch: Batch, hold: Hold, occurred_at: datetime) -> None:
    batch.clock.check_occurred(occurred_at)
    if hold.is_due(batch.clock.expiry_instant(occurred_at)):
        _time_out(batch, hold, occurred_at)
    if hold.state == "EXPIRED":
        message = (
            f"the authorization held its points until {hold.expires_at.isoformat()}; what is still to be paid, burn"
        )
        raise Refused(RefusalCode.HOLD_EXPIRED, message)
    if hold.state != "OPEN":
        raise Refused(RefusalCode.HOLD_RESOLVED, f"the authorization was {hold.state.lower()} before")


# ---------------------------------------------------------------- rows


def _fingerprint(
    hold: Hold, kind: CommandKind, occurred_at: datetime, *, points: int | None = None, reason: str | None = None
) -> bytes:
    return fingerprint(
        kind=kind,
        member_id=hold.member_id,
        store_id=hold.store_id,
        reference=hold.reference,
        points=points,
        reverses_id=hold.id,
        reason=reason,
        occurred_at=occurred_at,
    )


def _command_row(  # noqa: PLR0913 (the parts of a row, each by name)
    batch: Batch,
    hold: Hold,
    kind: CommandKind,
    key: str,
    occurred_at: datetime,
    *,
    points: int | None = None,
    reason: str | None = None,
    moved_points: int,
) -> CommandRow:
    return command_row(
        batch,
        kind,
        partner_id=hold.partner_id,
        key=key,
        account_id=hold.account_id,
        member_id=hold.member_id,
        store_id=hold.store_id,
        reference=hold.reference,
        points=points,
        reverses_id=hold.id,
        reason=reason,
        occurred_at=occurred_at,
        moved_points=moved_points,
    )


def _spend(batch: Batch, row: CommandRow, hold: Hold, points: int, print_: bytes) -> Original:
    """Captures the first points in burn order, releases the others; answers the capture as it may be reversed."""
    account = batch.accounts[hold.account_id]
    lots = {lot.id: lot for lot in account.lots}
    transaction_id = next(batch.new_ids)
    left = points
    uses: list[BurnUse] = []
    rest: list[tuple[Lot, int]] = []
    pool_micro = 0
    for lot_id, held in hold.uses:
        lot, part = lots[lot_id], min(left, held)
        if part:
            lot.spend_reserved(part)
            uses.append(BurnUse(lot.id, part, 0))
            pool_micro += part * lot.price_micro
            batch.new_lot_uses.append(
                lot_use(batch, lot, transaction_id, MovementKind.CAPTURE, part, row.period_id, row.partner_id)
            )
        if held > part:
            rest.append((lot, held - part))
        left -= part
    account.spend_held(points)
    reimbursement_micro = batch.configuration.terms_by_id[hold.terms_id].reimbursement_micro
    batch.new_transactions.append(
        redeemer_movement(
            row,
            transaction_id,
            MovementKind.CAPTURE,
            -points,
            hold.terms_id,
            reimbursement_micro=points * reimbursement_micro,
            pool_value_micro=-pool_micro,
        )
    )
    _release(batch, row, hold, rest, batch.clock.booking(row.occurred_at))
    hold.resolve("CAPTURED", points)
    return Original(row, print_, None, burn_transaction_id=transaction_id, burn_terms_id=hold.terms_id, uses=uses)


def _release_all(batch: Batch, row: CommandRow, hold: Hold, state: str, print_: bytes, booking: Booking) -> None:
    lots = {lot.id: lot for lot in batch.accounts[hold.account_id].lots}
    batch.new_commands.append((row, CommandInput(print_, reference_unique=False)))
    _release(batch, row, hold, [(lots[lot_id], part) for lot_id, part in hold.uses], booking)
    hold.resolve(state, 0)
    batch.remember(Original(row, print_, None))


def _release(batch: Batch, row: CommandRow, hold: Hold, parts: Sequence[tuple[Lot, int]], booking: Booking) -> None:
    points = sum(part for _, part in parts)
    if points == 0:
        return
    account = batch.accounts[hold.account_id]
    instant = batch.clock.expiry_instant(row.occurred_at)
    transaction_id = next(batch.new_ids)
    for lot, part in parts:
        # Their lot may have expired while they were held: they come back with the days of grace, as a refund does.
        make_usable(batch, account, lot, row, instant)
        lot.set_free(part)
        batch.new_lot_uses.append(
            lot_use(batch, lot, transaction_id, MovementKind.RELEASE, part, row.period_id, row.partner_id)
        )
    account.set_aside(-points)
    account.note_next_expiry()
    batch.new_transactions.append(redeemer_movement(row, transaction_id, MovementKind.RELEASE, points, hold.terms_id))
    note_release(batch, hold, points)
    make_good(batch, row, hold, parts, booking)


# ---------------------------------------------------------------- answers


def _replayed(batch: Batch, earlier: Original, hold: Hold, print_: bytes) -> Posted:
    if earlier.fingerprint != print_:
        raise key_conflict()
    row = earlier.command
    is_replay = batch.is_replay(row)
    return _posted(batch, row, hold, abs(row.moved_points))._replace(replayed=is_replay)


def _posted(batch: Batch, row: CommandRow, hold: Hold, points: int) -> Posted:
    return Posted(
        command=row,
        points=points,
        awards=(),
        declined_points=0,
        shortfall_points=0,
        balance=balance_view(batch, row.account_id, row.occurred_at),
        budget=None,
        replayed=False,
        hold=hold_view(hold),
    )

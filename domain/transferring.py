"""Deciding about points that move between accounts: a transfer closes lots and opens children at the target.

A child keeps issuer, funder, terms, price and dates of the lot that it comes from, so whole programme sums stay as they
are. No money moves. A burn that used a lot is refunded into that lot, whoever has the rest of its points by then; a
purchase whose lot was given away is clawed back from what the giver still has (SETTLEMENT.md c.2, "Member transfer").
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text

from domain.batch import Batch, CommandInput, Member, Original, StartOver
from domain.burning import Cause, check_points, expire_past_lots, lot_use
from domain.commands import (
    Command,
    CommandKind,
    CommandRow,
    CreatePool,
    JoinPool,
    LeavePool,
    Merge,
    MovementKind,
    Posted,
    Transfer,
    Unmerge,
)
from domain.confirming import confirm_due, confirmable_points
from domain.database import BatchConnection
from domain.enrolling import key_conflict
from domain.errors import RefusalCode, Refused
from domain.ledger import fingerprint
from domain.lots import Account, Lot, allocate, burn_order
from domain.members import input_digest
from domain.periods import local_date, local_midnight
from domain.receipts import balance_view, replayed
from domain.rows import command_row, movement_row
from domain.standing import once_named, print_member_id
from domain.taking_part import check_takes_part
from domain.values import NO_STORE_ID, OPERATOR_ID

# Also what a member moved before it came into a household, or while it was in one: the limit is the member's.
# What the operator moves is not bounded, and what the platform moves by itself ("whole") is no member's transfer.
MOVED_TODAY_SQL = text(
    """
    SELECT c.member_id, sum(c.points)::bigint FROM command AS c
     WHERE c.account_id IN (
               SELECT unnest(CAST(:accounts AS bigint[]))
                UNION
               SELECT unnest(ARRAY[s.home_account_id, p.account_id])
                 FROM pool_member AS s JOIN pool AS p ON p.id = s.pool_id
                WHERE s.member_id = ANY(CAST(:members AS bigint[])))
       AND c.member_id = ANY(CAST(:members AS bigint[]))
       AND c.kind = 'TRANSFER' AND NOT c.whole AND c.partner_id <> 0 AND c.recorded_at >= :since
     GROUP BY c.member_id
    """
)


async def load_moved_today(connection: BatchConnection, batch: Batch, commands: Sequence[Command]) -> None:
    """What was moved away since local midnight from members of this batch; only where a limit asks for it."""
    programme = batch.configuration.programme
    if programme.transfer_max_points_per_day is None or not any(isinstance(c, Transfer) for c in commands):
        return
    today = local_date(batch.clock.recorded_at, programme.zone)
    rows = await connection.execute(
        MOVED_TODAY_SQL,
        {
            "accounts": [member.account_id for member in batch.members.values()],
            "members": list(batch.members),
            "since": local_midnight(today, programme.zone),
        },
    )
    batch.moved_today = {member_id: int(points) for member_id, points in rows.all()}


def decide_transfer(batch: Batch, command: Transfer, source: Member | None, target: Member | None) -> Posted:
    """Accepts a transfer out of the giver's lots in burn order. Raises Refused and changes nothing."""
    batch.check_key(command.key)
    check_points(command.points)
    batch.check_reason(command.reason)
    earlier = batch.by_key.get((command.partner_id, command.key))
    # The receiver stands in no column of the command, so that a partner's own record of it does not name a member.
    digests = [input_digest(batch.secret, (("to", name),), ()) for name in once_named(batch, target)]
    prints = [
        fingerprint(
            kind=CommandKind.TRANSFER,
            member_id=print_member_id(batch, source, earlier),
            store_id=NO_STORE_ID,
            points=command.points,
            reason=command.reason,
            input_digest=digest,
            occurred_at=command.occurred_at,
        )
        for digest in digests
    ]
    if earlier is not None:
        if earlier.fingerprint not in prints:
            raise key_conflict()
        return replayed(batch, earlier, draws_on_budget=False)
    digest, print_ = digests[0], prints[0]
    batch.clock.check_occurred(command.occurred_at)
    source, target = batch.active_member(source, "from"), batch.active_member(target, "to")
    if source.account_id == target.account_id:
        raise Refused(RefusalCode.INPUT_INVALID, "both members share one account: there is nothing to move", "to")
    if command.partner_id != OPERATOR_ID:
        _check_partner(batch, command, source)
    account = batch.accounts[source.account_id]
    instant = batch.clock.expiry_instant(command.occurred_at)
    usable = account.usable(instant) + confirmable_points(batch, account, instant) - account.owed
    if usable < command.points:
        raise Refused(RefusalCode.INSUFFICIENT_POINTS, f"the member has {usable} points", "points")
    row = transfer_row(batch, command, CommandKind.TRANSFER, source, command.points, command.occurred_at)
    confirm_due(batch, account, row.period_id, instant)
    expire_past_lots(batch, account, row, instant)
    batch.new_commands.append((row, CommandInput(print_, reference_unique=False, input_digest=digest)))
    move(batch, row, allocate(burn_order(account.lots, instant), command.points), batch.accounts[target.account_id])
    batch.remember(Original(row, print_, None))
    if command.partner_id != OPERATOR_ID:
        batch.moved_today[source.id] = batch.moved_today.get(source.id, 0) + command.points
    return Posted(
        command=row,
        points=command.points,
        awards=(),
        declined_points=0,
        shortfall_points=0,
        balance=balance_view(batch, account.id, command.occurred_at),
        budget=None,
        replayed=False,
    )


def _check_partner(batch: Batch, command: Transfer, source: Member) -> None:
    check_takes_part(batch, command.partner_id, command.occurred_at)
    programme = batch.configuration.programme
    if not programme.member_transfers:
        message = "the programme does not let partners move points between members: ask the operator"
        raise Refused(RefusalCode.TRANSFER_NOT_ALLOWED, message)
    most = programme.transfer_max_points
    if most is not None and command.points > most:
        message = f"the programme lets at most {most} points be transferred at once"
        raise Refused(RefusalCode.LIMIT_EXCEEDED, message, "points")
    most = programme.transfer_max_points_per_day
    left = None if most is None else most - batch.moved_today.get(source.id, 0)
    if left is not None and command.points > left:
        message = f"the programme lets at most {most} points be transferred in a day, {max(left, 0)} are left today"
        raise Refused(RefusalCode.LIMIT_EXCEEDED, message, "points")


def transfer_row(
    batch: Batch,
    command: Transfer | Merge | Unmerge | CreatePool | JoinPool | LeavePool,
    kind: CommandKind,
    source: Member,
    points: int,
    occurred_at: datetime,
    reverses_id: int | None = None,
) -> CommandRow:
    """The command of points that leave the account of ``source``."""
    return command_row(
        batch,
        kind,
        partner_id=command.partner_id,
        key=command.key,
        account_id=source.account_id,
        member_id=source.id,
        points=points,
        reverses_id=reverses_id,
        reason=command.reason,
        occurred_at=occurred_at,
        moved_points=-points,
    )


def move(batch: Batch, row: CommandRow, parts: Sequence[tuple[Lot, int]], target: Account) -> list[Lot]:
    """Takes these parts out of lots of the command's account, and opens a child of each at the target.

    Without parts one row of zero points stands for the command, as for a purchase that earns nothing.
    """
    send(batch, row, parts)
    if not parts:
        return []
    in_id = arrive(batch, row, parts, target)
    children = [_child(batch, lot, part, target.id, in_id) for lot, part in parts]
    batch.new_lots += children
    for child in children:
        target.add(child)
    return children


def send(batch: Batch, row: CommandRow, parts: Sequence[tuple[Lot, int]]) -> None:
    """Takes these parts out of lots of the command's account."""
    source = batch.accounts[row.account_id]
    out_id = next(batch.new_ids)
    for lot, part in parts:
        lot.take(part)
        batch.new_lot_uses.append(lot_use(batch, lot, out_id, MovementKind.TRANSFER_OUT, part, row.period_id, None))
    points = sum(part for _, part in parts)
    source.change(-points)
    source.note_next_expiry()
    batch.new_transactions.append(movement_row(row, out_id, MovementKind.TRANSFER_OUT, -points, party_id=OPERATOR_ID))


def arrive(batch: Batch, row: CommandRow, parts: Sequence[tuple[Lot, int]], target: Account) -> int:
    """Writes that so many points arrive at the target; the caller opens or fills its lots. Answers the row's id."""
    in_id = next(batch.new_ids)
    points = sum(part for _, part in parts)
    batch.new_transactions.append(
        movement_row(row, in_id, MovementKind.TRANSFER_IN, points, account_id=target.id, party_id=OPERATOR_ID)
    )
    return in_id


def move_by_itself(
    batch: Batch, cause: Cause, parts: Sequence[tuple[Lot, int]], source: Account, target: Account
) -> list[Lot]:
    """Moves points because of what was just booked, as a command of the operator's own; answers the children.

    Of its own, because it is no business of the partner whose command caused it.
    """
    command_id = next(batch.new_ids)
    points = sum(part for _, part in parts)
    row = command_row(
        batch,
        CommandKind.TRANSFER,
        id_=command_id,
        partner_id=OPERATOR_ID,
        key=f"system:move:{command_id}",
        account_id=source.id,
        member_id=cause.member_id,
        points=points,
        occurred_at=cause.recorded_at,
        period_id=cause.period_id,
        moved_points=-points,
    )
    print_ = fingerprint(kind=row.kind, member_id=row.member_id, store_id=row.store_id, occurred_at=row.occurred_at)
    batch.new_commands.append((row, CommandInput(print_, reference_unique=False, whole=True)))
    return move(batch, row, parts, target)


def pass_on(batch: Batch, cause: Cause, account: Account, member: Member, instant: datetime) -> None:
    """Moves all that is usable of an account that nobody uses any more to where its member's points are now.

    Raises StartOver where that account is not locked.
    """
    target = batch.accounts.get(member.account_id)
    if target is None:
        raise StartOver
    parts = [(lot, lot.remaining) for lot in burn_order(account.lots, instant)]
    if parts:
        move_by_itself(batch, cause, parts, account, target)


def _child(batch: Batch, lot: Lot, points: int, account_id: int, transaction_id: int) -> Lot:
    return Lot(
        account_id=account_id,
        id=next(batch.new_ids),
        transaction_id=transaction_id,
        issuer_id=lot.issuer_id,
        funder_id=lot.funder_id,
        terms_id=lot.terms_id,
        price_micro=lot.price_micro,
        breakage_share_ppm=lot.breakage_share_ppm,
        granted=points,
        remaining=points,
        earned_at=lot.earned_at,
        expires_at=lot.expires_at,
        grace_until=lot.grace_until,
        rolling_months=lot.rolling_months,
        parent_id=lot.id,
        is_new=True,
    )

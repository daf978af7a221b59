"""Deciding about merges: one member stands for another who is the same person, until that is undone.

The duplicate is closed and its identifiers and points move to the member that is kept: each lot is closed and a child
opened, as in a transfer. Pending awards stay where they are and follow once they are confirmed. Undoing fills the lots
again that the merge emptied, exactly as they were, so it is refused once any of their children was touched.
"""

from collections.abc import Collection

from sqlalchemy import text

from domain.accounts import MergeChange, MergeRecord
from domain.batch import Batch, CommandInput, Member, Original, StartOver
from domain.burning import expire_past_lots, lot_use
from domain.commands import CommandKind, CommandRow, Merge, MovementKind, Posted, Unmerge
from domain.database import BatchConnection
from domain.enrolling import key_conflict
from domain.errors import LedgerFault, RefusalCode, Refused
from domain.ledger import fingerprint
from domain.lots import Lot, burn_order
from domain.members import input_digest
from domain.pooling import pool_of
from domain.receipts import balance_view, replayed
from domain.standing import once_named, print_member_id
from domain.transferring import arrive, move, send, transfer_row
from domain.values import NO_STORE_ID

# Everybody whose merges end at the duplicate, itself included: their identifiers are its own when it stands again.
_UNDER_SQL = """
    WITH RECURSIVE under (command_id, member_id) AS (
        SELECT command_id, duplicate_id FROM member_merge WHERE command_id = ANY(CAST(:commands AS bigint[]))
         UNION
        SELECT u.command_id, m.duplicate_id
          FROM under AS u JOIN member_merge AS m ON m.kept_id = u.member_id AND m.undone_by IS NULL)
"""
MERGES_SQL = text(
    """
    SELECT command_id, kept_id, duplicate_id, kept_account_id, duplicate_account_id, undone_by IS NOT NULL
      FROM member_merge WHERE command_id = ANY(CAST(:commands AS bigint[]))
    """
)
# What moved with the merge or by itself after it, unless an earlier merge moved it that is undone. What the duplicate
# brought into a household before is no part of it.
MOVED_LOTS_SQL = text(
    """
    SELECT m.command_id, l.id, p.id
      FROM member_merge AS m
      JOIN lot AS l ON l.account_id = m.kept_account_id AND l.parent_id IS NOT NULL
      JOIN lot AS p ON p.account_id = m.duplicate_account_id AND p.id = l.parent_id
      JOIN transaction AS t ON t.account_id = l.account_id AND t.id = l.transaction_id
      JOIN command AS c ON c.id = t.command_id
      JOIN command AS k ON k.id = m.command_id
     WHERE m.command_id = ANY(CAST(:commands AS bigint[]))
       AND (c.id = m.command_id
            OR (c.kind = 'TRANSFER' AND c.whole AND c.account_id = m.duplicate_account_id
                AND starts_with(c.idempotency_key, 'system:move:')
                AND (c.recorded_at, c.id) > (k.recorded_at, k.id)))
       AND NOT EXISTS (SELECT FROM lot_use AS u
                         JOIN transaction AS o ON o.account_id = u.account_id AND o.id = u.transaction_id
                         JOIN command AS b ON b.id = o.command_id AND b.kind = 'UNMERGE'
                        WHERE u.account_id = l.account_id AND u.lot_id = l.id AND u.kind = 'TRANSFER_OUT')
     ORDER BY l.id
    """
)
MOVED_IDENTIFIERS_SQL = text(
    f"""
    {_UNDER_SQL}
    SELECT u.command_id, i.kind, i.value
      FROM under AS u JOIN member_identifier AS i ON i.enrolled_member_id = u.member_id
    """  # noqa: S608 (constants of this module)
)

INSERT_MERGE_SQL = text(
    """
    INSERT INTO member_merge (command_id, kept_id, duplicate_id, kept_account_id, duplicate_account_id)
    VALUES (:command, :kept, :duplicate, :kept_account, :duplicate_account)
    """
)
CLOSE_MEMBER_SQL = text(
    "UPDATE member SET state = 'CLOSED', merged_into = :kept WHERE id = :duplicate OR merged_into = :duplicate"
)
MOVE_IDENTIFIERS_SQL = text(
    "UPDATE member_identifier SET member_id = :kept, enrolled_member_id = coalesce(enrolled_member_id, member_id)"
    " WHERE member_id = :duplicate"
)
UNDO_MERGE_SQL = text(
    "UPDATE member_merge SET undone_by = :undone_by WHERE command_id = :command AND undone_by IS NULL"
)
OPEN_MEMBER_SQL = text(
    f"""
    {_UNDER_SQL}
    UPDATE member SET state = CASE WHEN member.id = :duplicate THEN 'ACTIVE' ELSE state END,
                      merged_into = nullif(CAST(:duplicate AS bigint), member.id)
      FROM under WHERE member.id = under.member_id
    """  # noqa: S608 (constants of this module)
)
RETURN_IDENTIFIERS_SQL = text(
    f"""
    {_UNDER_SQL}
    UPDATE member_identifier SET member_id = :duplicate,
           enrolled_member_id = nullif(enrolled_member_id, CAST(:duplicate AS bigint))
      FROM under WHERE enrolled_member_id = under.member_id
    """  # noqa: S608 (constants of this module)
)


async def load_merges(connection: BatchConnection, commands: Collection[int]) -> dict[int, MergeRecord]:
    """Step 6: the merges among these commands, with what moved by them."""
    parameters = {"commands": list(commands)}
    records = {row[0]: MergeRecord(*row) for row in (await connection.execute(MERGES_SQL, parameters)).all()}
    for command_id, lot_id, parent_id in (await connection.execute(MOVED_LOTS_SQL, parameters)).all():
        records[command_id].moved.append((lot_id, parent_id))
    for command_id, kind, value in (await connection.execute(MOVED_IDENTIFIERS_SQL, parameters)).all():
        records[command_id].identifiers.add((kind, value))
    return records


async def write_merge(connection: BatchConnection, change: MergeChange) -> None:
    """Writes who stands for whom. Raises LedgerFault where the members are not as they were decided about."""
    merge = change.record
    members = {"kept": merge.kept_id, "duplicate": merge.duplicate_id}
    if change.undone_by is None:
        accounts = {"kept_account": merge.kept_account_id, "duplicate_account": merge.duplicate_account_id}
        await connection.execute(INSERT_MERGE_SQL, {"command": merge.command_id, **members, **accounts})
        touched = (await connection.execute(CLOSE_MEMBER_SQL, members)).rowcount
        await connection.execute(MOVE_IDENTIFIERS_SQL, members)
    else:
        undone = {"undone_by": change.undone_by, "command": merge.command_id}
        touched = (await connection.execute(UNDO_MERGE_SQL, undone)).rowcount
        parameters = {"duplicate": merge.duplicate_id, "commands": [merge.command_id]}
        await connection.execute(OPEN_MEMBER_SQL, parameters)
        await connection.execute(RETURN_IDENTIFIERS_SQL, parameters)
    if not touched:
        raise LedgerFault(f"merge {merge.command_id}: no member was changed")


# ---------------------------------------------------------------- merging


def decide_merge(batch: Batch, command: Merge, kept: Member | None, duplicate: Member | None) -> Posted:
    """Lets one member stand for another. Raises Refused and changes nothing."""
    batch.check_key(command.key)
    batch.check_reason(command.reason)
    earlier = batch.by_key.get((command.partner_id, command.key))
    occurred_at = batch.clock.recorded_at if earlier is None else earlier.command.occurred_at
    # Sent again, both references mean the member that was kept, or who stands for that one by now.
    digests = [input_digest(batch.secret, (("keep", name),), ()) for name in once_named(batch, kept)]
    prints = [
        fingerprint(
            kind=CommandKind.MERGE,
            member_id=print_member_id(batch, duplicate, earlier),
            store_id=NO_STORE_ID,
            reason=command.reason,
            input_digest=digest,
            occurred_at=occurred_at,
        )
        for digest in digests
    ]
    if earlier is not None:
        if earlier.fingerprint not in prints:
            raise key_conflict()
        return replayed(batch, earlier, draws_on_budget=False)
    digest, print_ = digests[0], prints[0]
    kept, duplicate = batch.active_member(kept, "keep"), batch.active_member(duplicate, "duplicate")
    _check_mergeable(batch, kept, duplicate)
    account = batch.accounts[duplicate.account_id]
    usable = account.usable(occurred_at)
    row = transfer_row(batch, command, CommandKind.MERGE, duplicate, usable, occurred_at)
    expire_past_lots(batch, account, row, occurred_at)
    batch.new_commands.append((row, CommandInput(print_, reference_unique=False, whole=True, input_digest=digest)))
    parts = [(lot, lot.remaining) for lot in burn_order(account.lots, occurred_at)]
    children = move(batch, row, parts, batch.accounts[kept.account_id])
    record = MergeRecord(row.id, kept.id, duplicate.id, kept.account_id, duplicate.account_id)
    record.moved = [(child.id, lot.id) for child, (lot, _) in zip(children, parts, strict=True)]
    _close(batch, record)
    batch.remember(Original(row, print_, None))
    return _posted(batch, row, kept)


def _check_mergeable(batch: Batch, kept: Member, duplicate: Member) -> None:
    if kept.id == duplicate.id:
        message = "both name the same member: perhaps they were merged before"
        raise Refused(RefusalCode.INPUT_INVALID, message, "duplicate")
    if pool_of(batch, duplicate) is not None:
        message = "the duplicate is in a pool: let it leave first"
        raise Refused(RefusalCode.MERGE_NOT_POSSIBLE, message, "duplicate")
    if batch.accounts[duplicate.account_id].held:
        message = "points of the duplicate are held by an authorization: capture or void it first"
        raise Refused(RefusalCode.MERGE_NOT_POSSIBLE, message, "duplicate")
    if owed := batch.accounts[duplicate.account_id].owed:
        message = f"the duplicate owes {owed} points, which nobody would earn back: merge the other way round"
        raise Refused(RefusalCode.MERGE_NOT_POSSIBLE, message, "duplicate")


def _close(batch: Batch, record: MergeRecord) -> None:
    batch.merges[record.command_id] = record
    batch.merge_changes.append(MergeChange(record))
    duplicate = batch.members[record.duplicate_id]
    batch.members[record.duplicate_id] = Member(duplicate.id, duplicate.account_id, "CLOSED", record.kept_id)
    for member_id, kept_id in [*batch.merged.items(), (record.duplicate_id, record.duplicate_id)]:
        if kept_id == record.duplicate_id:
            batch.merged[member_id] = record.kept_id
    record.identifiers = {i for i, owner in batch.identifiers.items() if owner == record.duplicate_id}
    batch.identifiers.update(dict.fromkeys(record.identifiers, record.kept_id))
    batch.left_accounts[record.duplicate_account_id] = True


# ---------------------------------------------------------------- undoing


def decide_unmerge(batch: Batch, command: Unmerge) -> Posted:
    """Lets the duplicate of a merge stand for itself again. Raises Refused and changes nothing."""
    batch.check_key(command.key)
    batch.check_reason(command.reason)
    original, record = _merge_of(batch, command)
    earlier = batch.by_key.get((command.partner_id, command.key))
    occurred_at = batch.clock.recorded_at if earlier is None else earlier.command.occurred_at
    print_ = fingerprint(
        kind=CommandKind.UNMERGE,
        member_id=record.kept_id,
        store_id=NO_STORE_ID,
        reason=command.reason,
        reverses_id=original.command.id,
        occurred_at=occurred_at,
    )
    if earlier is not None:
        if earlier.fingerprint != print_:
            raise key_conflict()
        return replayed(batch, earlier, draws_on_budget=False)
    if record.is_undone:
        raise Refused(RefusalCode.ALREADY_REVERSED, "this merge was undone before")
    kept = _kept(batch, record)
    lots = {lot.id: lot for account_id in _accounts(record) for lot in batch.accounts[account_id].lots}
    moved = [(lots[lot_id], lots[parent_id]) for lot_id, parent_id in record.moved]
    if any(lot.remaining != lot.granted or lot.is_past(occurred_at) for lot, _ in moved):
        message = "points that moved with the merge were used or have expired since: it can no longer be undone"
        raise Refused(RefusalCode.MERGE_NOT_POSSIBLE, message)
    if owed := batch.accounts[kept.account_id].owed:
        message = f"the member that was kept owes {owed} points, perhaps of the duplicate's purchases: not to be undone"
        raise Refused(RefusalCode.MERGE_NOT_POSSIBLE, message)
    points = sum(lot.granted for lot, _ in moved)
    row = transfer_row(batch, command, CommandKind.UNMERGE, kept, points, occurred_at, original.command.id)
    batch.new_commands.append((row, CommandInput(print_, reference_unique=False, whole=True)))
    _move_back(batch, row, record, moved)
    _reopen(batch, record, row)
    batch.remember(Original(row, print_, None))
    return _posted(batch, row, kept)


def _merge_of(batch: Batch, command: Unmerge) -> tuple[Original, MergeRecord]:
    ref = command.original
    original = None
    if ref.given != 1:
        message = "name the merge by exactly one of transactionId and originalKey"
        raise Refused(RefusalCode.INPUT_INVALID, message, "transactionId")
    if ref.command_id is not None:
        original = batch.by_id.get(ref.command_id)
    elif ref.key is not None:
        original = batch.by_key.get((command.partner_id, ref.key))
    if original is None or (original.command.kind, original.command.partner_id) != (
        CommandKind.MERGE, command.partner_id,
    ):  # fmt: skip
        raise Refused(RefusalCode.TRANSACTION_NOT_FOUND, "there is no merge with that id or key")
    record = batch.merges.get(original.command.id)
    if record is None:
        raise StartOver  # another process committed it after this batch chose its locks
    return original, record


def _accounts(record: MergeRecord) -> tuple[int, int]:
    return record.kept_account_id, record.duplicate_account_id


def _kept(batch: Batch, record: MergeRecord) -> Member:
    kept = batch.members.get(record.kept_id)
    if kept is None or kept.state != "ACTIVE":
        message = "the member that was kept was merged into another one since: undo that first"
        raise Refused(RefusalCode.MERGE_NOT_POSSIBLE, message)
    if kept.account_id != record.kept_account_id:
        message = "the member that was kept uses another account since: its points are not what was merged"
        raise Refused(RefusalCode.MERGE_NOT_POSSIBLE, message)
    return kept


def _move_back(batch: Batch, row: CommandRow, record: MergeRecord, moved: list[tuple[Lot, Lot]]) -> None:
    parts = [(lot, lot.remaining) for lot, _ in moved]
    send(batch, row, parts)
    if not parts:
        return
    account = batch.accounts[record.duplicate_account_id]
    in_id = arrive(batch, row, parts, account)
    for (lot, parent), (_, part) in zip(moved, parts, strict=True):
        # What rolled, or was given days of grace, while the merge lasted was promised to these points.
        if lot.usable_until > parent.usable_until:
            parent.expires_at, parent.grace_until = lot.expires_at, lot.grace_until
        parent.restore(part)
        batch.new_lot_uses.append(lot_use(batch, parent, in_id, MovementKind.TRANSFER_IN, part, row.period_id, None))
    account.change(row.points or 0)
    account.note_next_expiry()


def _reopen(batch: Batch, record: MergeRecord, row: CommandRow) -> None:
    record.is_undone = True
    batch.merge_changes.append(MergeChange(record, row.id))
    batch.members[record.duplicate_id] = Member(record.duplicate_id, record.duplicate_account_id, "ACTIVE")
    batch.merged.pop(record.duplicate_id, None)
    for identifier in record.identifiers & batch.identifiers.keys():
        batch.identifiers[identifier] = record.duplicate_id
    batch.left_accounts[record.duplicate_account_id] = False


def _posted(batch: Batch, row: CommandRow, kept: Member) -> Posted:
    return Posted(
        command=row,
        points=row.points or 0,
        awards=(),
        declined_points=0,
        shortfall_points=0,
        balance=balance_view(batch, kept.account_id, row.occurred_at),
        budget=None,
        replayed=False,
    )

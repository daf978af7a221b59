"""Deciding about household pools: members who share one account, and who of them may burn how much of it.

Who joins brings the points along: each lot is closed and a child opened on the pool's account, as in a transfer. Who
leaves goes back to an account of its own, and the points stay with the pool; the last one takes them along, since
nobody is left to use them. Whatever comes back later to an account that a member left follows the member.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import text

from domain.accounts import Membership, Pool, PoolChange, PoolRole
from domain.batch import Batch, CommandInput, Member, Original
from domain.burning import expire_past_lots
from domain.commands import CommandKind, CommandRow, CreatePool, JoinPool, LeavePool, Posted
from domain.database import BatchConnection
from domain.enrolling import key_conflict
from domain.errors import LedgerFault, RefusalCode, Refused
from domain.ledger import fingerprint
from domain.lots import Account, burn_order
from domain.members import input_digest
from domain.receipts import balance_view, replayed
from domain.standing import print_member_id
from domain.taking_part import check_takes_part
from domain.transferring import move, transfer_row
from domain.values import NO_STORE_ID, OPERATOR_ID, POINTS_MAX

POOL_MEMBERS_MAX = 20

POOLS_SQL = text(
    """
    SELECT p.id, p.account_id, s.command_id, s.member_id, s.home_account_id, s.role, s.burn_limit
      FROM pool AS p LEFT JOIN pool_member AS s ON s.pool_id = p.id AND s.ended_by IS NULL
     WHERE p.id = ANY(CAST(:pools AS bigint[]))
        OR p.id IN (SELECT pool_id FROM pool_member
                     WHERE member_id = ANY(CAST(:members AS bigint[])) AND ended_by IS NULL)
     ORDER BY p.id, s.command_id
    """
)
INSERT_ACCOUNT_SQL = text(
    "INSERT INTO account (id, available, pending, held, next_expires_at)"
    " VALUES (:id, :available, :pending, :held, :next_expires_at)"
)
INSERT_POOL_SQL = text("INSERT INTO pool (id, account_id, created_at) VALUES (:id, :account, :created_at)")
END_PLACE_SQL = text("UPDATE pool_member SET ended_by = :ended_by WHERE command_id = :command AND ended_by IS NULL")
BEGIN_PLACE_SQL = text(
    """
    INSERT INTO pool_member (command_id, pool_id, member_id, home_account_id, role, burn_limit, since)
    VALUES (:command, :pool, :member, :home_account, :role, :burn_limit, :since)
    """
)
MOVE_MEMBER_SQL = text("UPDATE member SET account_id = :account, burn_limit = :burn_limit WHERE id = :member")


async def load_pools(
    connection: BatchConnection, pool_ids: Collection[int], member_ids: Collection[int]
) -> dict[int, Pool]:
    """Steps 0 and 6: these pools and those in which these members are, with everybody who is in them."""
    pools: dict[int, Pool] = {}
    rows = await connection.execute(POOLS_SQL, {"pools": list(pool_ids), "members": list(member_ids)})
    for pool_id, account_id, command_id, member_id, home_account_id, role, burn_limit in rows.all():
        pool = pools.setdefault(pool_id, Pool(pool_id, account_id))
        if member_id is not None:
            place = Membership(command_id, member_id, home_account_id, PoolRole(role), burn_limit)
            pool.members[member_id] = place
    return pools


async def write_pool_change(connection: BatchConnection, batch: Batch, change: PoolChange) -> None:
    """Writes who is in a pool. Raises LedgerFault where somebody else changed that."""
    pool, now = change.pool, batch.clock.recorded_at
    if change.is_founding:
        account = batch.accounts[pool.account_id]
        columns = ("id", "available", "pending", "held", "next_expires_at")
        await connection.execute(INSERT_ACCOUNT_SQL, {name: getattr(account, name) for name in columns})
        await connection.execute(INSERT_POOL_SQL, {"id": pool.id, "account": pool.account_id, "created_at": now})
    ended, begun = change.ended, change.begun
    if ended is not None:
        parameters = {"ended_by": change.command_id, "command": ended.command_id}
        if (await connection.execute(END_PLACE_SQL, parameters)).rowcount != 1:
            raise LedgerFault(f"the place of member {ended.member_id} in pool {pool.id} was ended meanwhile")
    if begun is not None:
        place = {"home_account": begun.home_account_id, "role": begun.role, "burn_limit": begun.burn_limit}
        ids = {"command": begun.command_id, "pool": pool.id, "member": begun.member_id}
        await connection.execute(BEGIN_PLACE_SQL, {**ids, **place, "since": now})
        place = {"account": pool.account_id, "burn_limit": begun.burn_limit, "member": begun.member_id}
        await connection.execute(MOVE_MEMBER_SQL, place)
    elif ended is not None:
        place = {"account": ended.home_account_id, "burn_limit": None, "member": ended.member_id}
        await connection.execute(MOVE_MEMBER_SQL, place)


# ---------------------------------------------------------------- founding and joining


def decide_create_pool(batch: Batch, command: CreatePool, member: Member | None) -> Posted:
    """Founds a pool with its head and the head's points. Raises Refused and changes nothing."""
    found = _replayed(batch, command, member, ("create",))
    if isinstance(found, Posted):
        return found
    member = _joining(batch, command, member)
    account_id = next(batch.new_ids)
    pool = Pool(next(batch.new_ids), account_id, is_new=True)
    batch.accounts[account_id] = Account(account_id, 0, 0, 0, None, all_lots_loaded=True, is_new=True)
    batch.pools[pool.id] = pool
    return _join(batch, command, found, member, pool, PoolRole.HEAD, None)


def decide_join_pool(batch: Batch, command: JoinPool, member: Member | None) -> Posted:
    """Takes a member into a pool with its points, or changes its role and limit there. Raises Refused."""
    asked = ("join", str(command.pool_id), command.role, str(command.burn_limit))
    found = _replayed(batch, command, member, asked)
    if isinstance(found, Posted):
        return found
    if command.burn_limit is not None and not 1 <= command.burn_limit <= POINTS_MAX:
        raise Refused(RefusalCode.AMOUNT_INVALID, f"a limit is from 1 to {POINTS_MAX} points a day", "burnLimit")
    if command.burn_limit is not None and command.role == PoolRole.HEAD:
        raise Refused(RefusalCode.INPUT_INVALID, "a head burns without a limit: leave burnLimit out", "burnLimit")
    pool = batch.pools.get(command.pool_id)
    if pool is None or not pool.members:
        raise Refused(RefusalCode.POOL_NOT_FOUND, "there is no such pool, or everybody left it", "poolId")
    member = batch.active_member(member)
    if member.id in pool.members:
        return _change_place(batch, command, found, member, pool)
    member = _joining(batch, command, member)
    if len(pool.members) >= POOL_MEMBERS_MAX:
        message = f"a pool has at most {POOL_MEMBERS_MAX} members"
        raise Refused(RefusalCode.LIMIT_EXCEEDED, message, "poolId")
    return _join(batch, command, found, member, pool, command.role, command.burn_limit)


def _joining(batch: Batch, command: CreatePool | JoinPool, member: Member | None) -> Member:
    named = "head" if isinstance(command, CreatePool) else "member"
    member = batch.active_member(member, named)
    _check_caller(batch, command)
    if pool_of(batch, member) is not None:
        message = "the member is in a pool: let it leave that one first"
        raise Refused(RefusalCode.POOL_NOT_POSSIBLE, message, named)
    if batch.accounts[member.account_id].held:
        message = "points of the member are held by an authorization: capture or void it first"
        raise Refused(RefusalCode.POOL_NOT_POSSIBLE, message, named)
    if owed := batch.accounts[member.account_id].owed:
        message = f"the member owes {owed} points: they are to be earned back first"
        raise Refused(RefusalCode.POOL_NOT_POSSIBLE, message, named)
    return member


def _join(
    batch: Batch,
    command: CreatePool | JoinPool,
    stored: CommandInput,
    member: Member,
    pool: Pool,
    role: PoolRole,
    burn_limit: int | None,
) -> Posted:
    home = batch.accounts[member.account_id]
    row = _move_all(batch, command, stored, member, home, batch.accounts[pool.account_id])
    place = Membership(row.id, member.id, home.id, role, burn_limit)
    _settle(batch, PoolChange(row.id, pool, None, place, is_founding=pool.is_new), member)
    pool.is_new = False
    return _posted(batch, row)


def _change_place(batch: Batch, command: JoinPool, stored: CommandInput, member: Member, pool: Pool) -> Posted:
    _check_caller(batch, command)
    if command.role != PoolRole.HEAD and not pool.has_other_head(member.id):
        raise Refused(RefusalCode.POOL_NOT_POSSIBLE, "a pool needs a head: make another one first", "role")
    before = pool.members[member.id]
    row = _move_nothing(batch, command, stored, member)
    place = Membership(row.id, member.id, before.home_account_id, command.role, command.burn_limit)
    _settle(batch, PoolChange(row.id, pool, before, place), member)
    return _posted(batch, row)


# ---------------------------------------------------------------- leaving


def decide_leave_pool(batch: Batch, command: LeavePool, member: Member | None) -> Posted:
    """Lets a member go back to its own account; its points stay, unless it is the last one. Raises Refused."""
    found = _replayed(batch, command, member, ("leave",))
    if isinstance(found, Posted):
        return found
    member = batch.active_member(member)
    _check_caller(batch, command)
    pool = pool_of(batch, member)
    if pool is None:
        raise Refused(RefusalCode.POOL_NOT_POSSIBLE, "the member is in no pool", "member")
    is_last = len(pool.members) == 1
    if not is_last and not pool.has_other_head(member.id):
        message = "the pool's only head can leave last: make another one first"
        raise Refused(RefusalCode.POOL_NOT_POSSIBLE, message, "member")
    account, place = batch.accounts[pool.account_id], pool.members[member.id]
    if is_last and account.held:
        message = "points of the pool are held by an authorization: capture or void it first"
        raise Refused(RefusalCode.POOL_NOT_POSSIBLE, message, "member")
    if is_last and account.owed:
        message = f"the pool owes {account.owed} points, which nobody would earn back: the last member stays"
        raise Refused(RefusalCode.POOL_NOT_POSSIBLE, message, "member")
    home = batch.accounts[place.home_account_id]
    row = (
        _move_all(batch, command, found, member, account, home)
        if is_last
        else _move_nothing(batch, command, found, member)
    )
    _settle(batch, PoolChange(row.id, pool, place, None), member)
    return _posted(batch, row)


# ---------------------------------------------------------------- all of them

PoolCommand = CreatePool | JoinPool | LeavePool


def pool_of(batch: Batch, member: Member) -> Pool | None:
    """The pool in which the member is, of those that the batch knows."""
    return next((pool for pool in batch.pools.values() if member.id in pool.members), None)


def _replayed(batch: Batch, command: PoolCommand, member: Member | None, asked: Sequence[str]) -> Posted | CommandInput:
    """The first answer again, or what is to be stored of the command."""
    batch.check_key(command.key)
    batch.check_reason(command.reason)
    earlier = batch.by_key.get((command.partner_id, command.key))
    digest = input_digest(batch.secret, (("pool", " ".join(asked)),), ())
    print_ = fingerprint(
        kind=CommandKind.TRANSFER,
        member_id=print_member_id(batch, member, earlier),
        store_id=NO_STORE_ID,
        reason=command.reason,
        input_digest=digest,
        occurred_at=_moment(batch) if earlier is None else earlier.command.occurred_at,
    )
    if earlier is None:
        return CommandInput(print_, reference_unique=False, whole=True, input_digest=digest)
    if earlier.fingerprint != print_:
        raise key_conflict()
    return replayed(batch, earlier, draws_on_budget=False)


def _moment(batch: Batch) -> datetime:
    return batch.clock.recorded_at


def _check_caller(batch: Batch, command: PoolCommand) -> None:
    if command.partner_id != OPERATOR_ID:
        check_takes_part(batch, command.partner_id, _moment(batch))


def _move_all(
    batch: Batch, command: PoolCommand, stored: CommandInput, member: Member, account: Account, target: Account
) -> CommandRow:
    now = _moment(batch)
    row = transfer_row(batch, command, CommandKind.TRANSFER, member, account.usable(now), now)
    expire_past_lots(batch, account, row, now)
    batch.new_commands.append((row, stored))
    move(batch, row, [(lot, lot.remaining) for lot in burn_order(account.lots, now)], target)
    batch.remember(Original(row, stored.fingerprint, None))
    return row


def _move_nothing(batch: Batch, command: PoolCommand, stored: CommandInput, member: Member) -> CommandRow:
    row = transfer_row(batch, command, CommandKind.TRANSFER, member, 0, _moment(batch))
    batch.new_commands.append((row, stored))
    move(batch, row, [], batch.accounts[member.account_id])
    batch.remember(Original(row, stored.fingerprint, None))
    return row


def _settle(batch: Batch, change: PoolChange, member: Member) -> None:
    batch.pool_changes.append(change)
    pool, begun = change.pool, change.begun
    if begun is not None:
        pool.members[member.id] = begun
        batch.members[member.id] = Member(member.id, pool.account_id, member.state, None, begun.burn_limit)
        batch.left_accounts[begun.home_account_id] = True
        batch.left_accounts[pool.account_id] = False
    elif change.ended is not None:
        del pool.members[member.id]
        batch.members[member.id] = Member(member.id, change.ended.home_account_id, member.state)
        batch.left_accounts[change.ended.home_account_id] = False
        batch.left_accounts[pool.account_id] = not pool.members


def _posted(batch: Batch, row: CommandRow) -> Posted:
    account_id = batch.members[row.member_id].account_id
    return Posted(
        command=row,
        points=row.points or 0,
        awards=(),
        declined_points=0,
        shortfall_points=0,
        balance=balance_view(batch, account_id, row.occurred_at),
        budget=None,
        replayed=False,
    )

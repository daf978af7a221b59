"""Reading what changes of accounts need: pools, merges, debts, and what limited members moved or burned today."""

from collections.abc import Sequence

from sqlalchemy import text

from domain.asked import Asked, member_of
from domain.batch import Batch, Member, Original
from domain.commands import Command, CommandKind, Sweep
from domain.database import BatchConnection
from domain.limits import load_burned_today
from domain.merging import load_merges
from domain.owing import load_debts
from domain.pooling import load_pools
from domain.standing import standing_id
from domain.transferring import load_moved_today


async def load_account_changes(
    connection: BatchConnection, batch: Batch, asked: Asked, commands: Sequence[Command], originals: Sequence[Original]
) -> None:
    """Step 6, under the locks; no statement for a batch of purchases, burns and returns of unlimited members."""
    await load_debts(connection, batch)
    if asked.may_be_pooled:
        batch.pools = await load_pools(connection, asked.pool_ids, batch.members)
    if any(original.command.kind == CommandKind.MERGE for original in originals):
        batch.merges = await load_merges(connection, [original.command.id for original in originals])
    await _load_merged_with(connection, batch, commands)
    await load_moved_today(connection, batch, commands)
    await load_burned_today(connection, batch, commands)


# Whoever stood for a member that was merged and is not any more, at however many removes, and who stands under it.
MERGED_WITH_SQL = text(
    """
    WITH RECURSIVE above (member_id, other_id) AS (
        SELECT duplicate_id, kept_id FROM member_merge WHERE duplicate_id = ANY(CAST(:members AS bigint[]))
         UNION
        SELECT a.member_id, m.kept_id FROM above AS a JOIN member_merge AS m ON m.duplicate_id = a.other_id)
    SELECT member_id, other_id FROM above
     UNION
    SELECT merged_into, id FROM member WHERE merged_into = ANY(CAST(:members AS bigint[]))
    """
)


async def _load_merged_with(connection: BatchConnection, batch: Batch, commands: Sequence[Command]) -> None:
    """No statement but for commands that are sent again and name somebody else by now, or somebody in a digest."""
    again: list[tuple[Member, Original]] = []
    for command in commands:
        earlier = None if isinstance(command, Sweep) else batch.by_key.get((command.partner_id, command.key))
        for name in ("member", "source", "target", "keep", "duplicate"):
            ref = getattr(command, name, None)
            member = None if ref is None or earlier is None else member_of(batch, ref)
            if member is not None and earlier is not None and member.id != earlier.command.member_id:
                again.append((member, earlier))
    if not again:
        return
    members = sorted({member.id for member, _ in again})
    for member_id, other_id in (await connection.execute(MERGED_WITH_SQL, {"members": members})).all():
        batch.merged_with.setdefault(member_id, set()).add(other_id)
    for member, earlier in again:
        # Only to be shown again, and nobody locked who stood for the member then: it is shown as whose it is now.
        is_locked = standing_id(batch, earlier) in batch.members
        if not is_locked and earlier.command.member_id in batch.merged_with.get(member.id, ()):
            earlier.member_now = member

"""Reading what changes of accounts need: pools, merges, debts, and what limited members moved or burned today."""

from collections.abc import Sequence

from domain.asked import Asked
from domain.batch import Batch, Original
from domain.commands import Command, CommandKind
from domain.database import BatchConnection
from domain.limits import load_burned_today
from domain.merging import load_merges
from domain.owing import load_debts
from domain.pooling import load_pools
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
    await load_moved_today(connection, batch, commands)
    await load_burned_today(connection, batch, commands)

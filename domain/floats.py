"""Prepaid floats: which block of what a partner paid in each movement draws on (SETTLEMENT.md c.4).

A float is a budget window whose limit is the sum of its blocks. The oldest block is drawn first. What a return gives
back goes to the blocks that its award had drawn on, the last one first, so that what stays drawn is what the part that
the member keeps would have drawn. The window's lock guards its blocks.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

from sqlalchemy import text

from domain.batch import Batch, Original, TransactionRow
from domain.commands import CommandKind
from domain.database import BatchConnection
from domain.errors import LedgerFault
from domain.terms import Configuration


@dataclass(slots=True)
class Block:
    """One payment into a float, and how much of it is drawn."""

    id: int
    budget_id: int
    amount_micro: int
    used_micro: int


class FloatBlock(NamedTuple):
    """One payment into a float as it stands; what it opened with has neither bank reference nor note.

    ``occurred_at``: when the money came in, which is the age of the block; ``recorded_at``: when it was added.
    """

    id: int
    budget_id: int
    partner_id: int
    amount_micro: int
    used_micro: int
    occurred_at: datetime
    recorded_at: datetime
    bank_reference: str | None
    note: str | None


BLOCK_COLUMNS = ", ".join(f"f.{name}" for name in FloatBlock._fields)
"""Columns of ``float_block AS f``, in the order of FloatBlock."""


class FloatMove(NamedTuple):
    """A movement that draws on a float, or that gives back (negative) what ``drawn_by_id`` drew."""

    budget_id: int
    account_id: int
    partner_id: int
    transaction_id: int
    drawn_by_id: int
    amount_micro: int


class FloatUse(NamedTuple):
    """A row of ``float_use``, fields in the table's order."""

    block_id: int
    transaction_id: int
    drawn_by_id: int
    account_id: int
    partner_id: int
    amount_micro: int


Drawn = Mapping[int, Mapping[int, int]]
"""By movement, what it has drawn on each block and not given back since; its blocks from the oldest on."""


def attribute(moves: Iterable[FloatMove], blocks: Sequence[Block], drawn: Drawn) -> list[FloatUse]:
    """Draws and gives back, move by move, and changes the blocks; ``blocks`` stand from the oldest on.

    Raises LedgerFault where a float has less than its window says, or would get back what was not drawn from it.
    """
    of_float: defaultdict[int, list[Block]] = defaultdict(list)
    for block in blocks:
        of_float[block.budget_id].append(block)
    held = {movement_id: dict(parts) for movement_id, parts in drawn.items()}
    uses: list[FloatUse] = []
    for move in moves:
        own = of_float[move.budget_id]
        parts = held.setdefault(move.drawn_by_id, {})
        if move.amount_micro > 0:
            taken = _taken(move, [(block, block.amount_micro - block.used_micro) for block in own])
        else:
            taken = [(block, -micro) for block, micro in _taken(move, [(b, parts.get(b.id, 0)) for b in reversed(own)])]
        for block, micro in taken:
            block.used_micro += micro
            parts[block.id] = parts.get(block.id, 0) + micro
            uses.append(
                FloatUse(block.id, move.transaction_id, move.drawn_by_id, move.account_id, move.partner_id, micro)
            )
    return uses


def _taken(move: FloatMove, offers: Sequence[tuple[Block, int]]) -> list[tuple[Block, int]]:
    """What a move takes of each block, in the order of the offers; without sign."""
    left = abs(move.amount_micro)
    taken = []
    for block, offered in offers:
        micro = min(left, offered)
        if micro:
            taken.append((block, micro))
            left -= micro
    if left:
        raise LedgerFault(f"transaction {move.transaction_id}: blocks of float {move.budget_id} lack {left}")
    return taken


def on_floats(batch: Batch, rows: Iterable[TransactionRow]) -> list[TransactionRow]:
    """Those of these movements that draw on a float, or give back to one."""
    floats = {budget.id for budget in batch.budgets.values() if budget.plan.is_prepaid}
    return [row for row in rows if row.budget_id in floats and row.budget_micro] if floats else []


BLOCKS_SQL = text(
    """
    SELECT f.id, f.budget_id, f.amount_micro, f.used_micro FROM float_block AS f
     WHERE f.budget_id = ANY(CAST(:budgets AS bigint[]))
       AND (f.used_micro < f.amount_micro
            OR f.id IN (SELECT u.block_id FROM float_use AS u WHERE u.drawn_by_id = ANY(CAST(:movements AS bigint[]))))
     ORDER BY f.occurred_at, f.id
    """
)
DRAWN_SQL = text(
    """
    SELECT drawn_by_id, block_id, sum(amount_micro)::bigint FROM float_use
     WHERE drawn_by_id = ANY(CAST(:movements AS bigint[])) GROUP BY drawn_by_id, block_id
    """
)
INSERT_USES_SQL = text(
    """
    INSERT INTO float_use (block_id, transaction_id, drawn_by_id, account_id, partner_id, amount_micro)
    SELECT block_id, transaction_id, drawn_by_id, account_id, partner_id, amount_micro
      FROM unnest(CAST(:rows AS float_use[])) AS new ORDER BY block_id, transaction_id
    """
)
UPDATE_BLOCKS_SQL = text(
    """
    UPDATE float_block AS f SET used_micro = new.used_micro
      FROM unnest(CAST(:ids AS bigint[]), CAST(:used AS bigint[])) AS new (id, used_micro)
     WHERE f.id = new.id
    """
)


async def write_float_uses(connection: BatchConnection, rows: Iterable[TransactionRow]) -> None:
    """Step 8: attributes a batch's movements on floats to blocks, in the order of the movements.

    No statement for a batch that drew on none. Raises LedgerFault as ``attribute`` does, and when a statement did not
    touch exactly its rows.
    """
    ordered = [
        FloatMove(row.budget_id, row.account_id, row.party_id, row.id, row.reverses_id or row.id, row.budget_micro)
        for row in sorted(rows, key=attrgetter("id"))
        if row.budget_id is not None
    ]
    if not ordered:
        return
    earlier = sorted({move.drawn_by_id for move in ordered if move.drawn_by_id != move.transaction_id})
    drawn: defaultdict[int, dict[int, int]] = defaultdict(dict)
    if earlier:
        for movement_id, block_id, micro in (await connection.execute(DRAWN_SQL, {"movements": earlier})).all():
            drawn[movement_id][block_id] = micro
    budgets = sorted({move.budget_id for move in ordered})
    found = await connection.execute(BLOCKS_SQL, {"budgets": budgets, "movements": earlier})
    blocks = [Block(*row) for row in found.all()]
    before = {block.id: block.used_micro for block in blocks}
    uses = attribute(ordered, blocks, drawn)
    written = (await connection.execute(INSERT_USES_SQL, {"rows": uses})).rowcount
    changed = [block for block in blocks if block.used_micro != before[block.id]]
    parameters = {"ids": [block.id for block in changed], "used": [block.used_micro for block in changed]}
    updated = (await connection.execute(UPDATE_BLOCKS_SQL, parameters)).rowcount if changed else 0
    if (written, updated) != (len(uses), len(changed)):
        raise LedgerFault(f"{len(uses)} uses of {len(changed)} blocks expected, {written} of {updated} written")


DRAWN_FLOATS_SQL = text(
    """
    SELECT DISTINCT b.id
      FROM transaction AS t
      JOIN budget AS b ON b.id = t.budget_id
      JOIN budget_plan AS p ON p.id = b.plan_id AND p.funding = 'PREPAID'
     WHERE t.command_id = ANY(CAST(:commands AS bigint[])) AND t.kind = 'EARN'
        OR t.command_id IN (SELECT c.id FROM command AS c WHERE c.kind = 'CONFIRMATION'
                               AND c.reverses_id = ANY(CAST(:commands AS bigint[])))
    """
)


async def drawn_floats(
    connection: BatchConnection, configuration: Configuration, originals: Collection[Original]
) -> set[int]:
    """Step 0: the floats that these purchases drew on, to be locked with the others; no statement without floats."""
    bought = [original.command.id for original in originals if original.command.kind == CommandKind.EARN]
    if not bought or not configuration.has_floats:
        return set()
    rows = await connection.execute(DRAWN_FLOATS_SQL, {"commands": bought})
    return {budget_id for (budget_id,) in rows.all()}

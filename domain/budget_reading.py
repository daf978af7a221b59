"""Reading budgets for people and programs: windows, floats with their blocks, alerts; row-level security says whose."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.commands import BudgetView
from domain.floats import BLOCK_COLUMNS, FloatBlock
from domain.loading import LIVE_OVERDRAFT_SQL

BLOCKS_SHOWN_MAX = 100
"""How many blocks of a float are shown: those whose money came in last."""

BLOCKS_SQL = text(
    f"""
    SELECT {BLOCK_COLUMNS}
      FROM unnest(CAST(:ids AS bigint[])) AS asked (id)
     CROSS JOIN LATERAL (SELECT b.* FROM float_block AS b WHERE b.budget_id = asked.id
                          ORDER BY b.occurred_at DESC, b.id DESC LIMIT {BLOCKS_SHOWN_MAX}) AS f
     ORDER BY f.budget_id, f.occurred_at, f.id
    """  # noqa: S608 (constants of this application)
)
ALERTS_SQL = text(
    """
    SELECT a.id, a.partner_id, c.code, p.label, a.crossed_at, a.used_micro, a.limit_micro,
           coalesce(b.alerted_at = a.crossed_at, false)
      FROM budget_alert AS a JOIN budget AS b ON b.id = a.budget_id
      LEFT JOIN budget_plan AS l ON l.id = b.plan_id
      LEFT JOIN campaign AS c ON c.id = l.campaign_id
      LEFT JOIN period AS p ON p.id = b.period_id
     WHERE a.id < :before AND (CAST(:partner_id AS integer) IS NULL OR a.partner_id = CAST(:partner_id AS integer))
     ORDER BY a.id DESC LIMIT :limit
    """
)
WINDOWS_SQL = text(
    f"""
    SELECT b.partner_id, b.limit_micro, {LIVE_OVERDRAFT_SQL}, b.consumed_micro, b.reserved_micro, b.alerted_at,
           l.funding, b.id, p.label, c.code
      FROM budget AS b JOIN budget_plan AS l ON l.id = b.plan_id
      LEFT JOIN campaign AS c ON c.id = l.campaign_id
      LEFT JOIN period AS p ON p.id = b.period_id
     WHERE b.id > :after ORDER BY b.id LIMIT :limit
    """  # noqa: S608 (constants of this application)
)


class BudgetAlert(NamedTuple):
    """A time at which a window came to its alert threshold; ``is_above`` while it has not fallen below it since.

    ``campaign_code`` is None for a partner's own budget, ``window`` (its period's label) for a single one.
    """

    id: int
    partner_id: int
    campaign_code: str | None
    window: str | None
    crossed_at: datetime
    used_micro: int
    limit_micro: int
    is_above: bool


class ListedWindow(NamedTuple):
    """A window with what names it: the label of its period (None: a single one), the campaign whose own it is."""

    view: BudgetView
    window: str | None
    campaign_code: str | None


async def blocks_of(connection: AsyncConnection, budget_ids: Sequence[int]) -> dict[int, list[FloatBlock]]:
    """Per float, the last BLOCKS_SHOWN_MAX payments into it, the oldest first."""
    found: dict[int, list[FloatBlock]] = {}
    for row in await connection.execute(BLOCKS_SQL, {"ids": list(budget_ids)}):
        found.setdefault(row.budget_id, []).append(FloatBlock(*row))
    return found


async def alerts_page(
    connection: AsyncConnection, partner_id: int | None, before: int, limit: int
) -> list[BudgetAlert]:
    """Alerts with ids below ``before``, latest first; of one partner, or of all that the viewer may see."""
    parameters = {"partner_id": partner_id, "before": before, "limit": limit}
    return [BudgetAlert(*row) for row in await connection.execute(ALERTS_SQL, parameters)]


async def windows_page(connection: AsyncConnection, after: int, limit: int, now: datetime) -> list[ListedWindow]:
    """Windows with ids above ``after``, in the order in which they were first used."""
    rows = await connection.execute(WINDOWS_SQL, {"after": after, "limit": limit, "now": now})
    return [ListedWindow(BudgetView(*row[:8]), row[8], row[9]) for row in rows]

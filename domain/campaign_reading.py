"""Reading campaigns for people and programs; row-level security says which of them, and which budgets, show."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.commands import BudgetView
from domain.terms import CAMPAIGN_COLUMNS, CAMPAIGN_PLAN_SQL, BudgetPlan, Campaign, campaign_of
from domain.values import OPERATOR_ID

PAGE_SQL = text(
    f"SELECT {CAMPAIGN_COLUMNS} FROM campaign WHERE id < :before ORDER BY id DESC LIMIT :limit"  # noqa: S608 (constants)
)
WINDOWS_SQL = text(
    """
    SELECT p.campaign_id, coalesce(b.limit_micro, p.limit_micro), coalesce(b.overdraft_micro, p.overdraft_micro),
           coalesce(b.consumed_micro, 0), coalesce(b.reserved_micro, 0), b.alerted_at
      FROM budget_plan AS p LEFT JOIN budget AS b ON b.plan_id = p.id
     WHERE p.campaign_id = ANY(CAST(:ids AS integer[]))
    """
)


async def campaigns_page(connection: AsyncConnection, after: int, limit: int) -> list[Campaign]:
    """Campaigns after the one with that number (its id without the sign), in the order in which they were set up."""
    plans = {row[0]: BudgetPlan(*row[1:]) for row in await connection.execute(CAMPAIGN_PLAN_SQL)}
    rows = await connection.execute(PAGE_SQL, {"before": -after, "limit": limit})
    return [campaign_of(row, plans) for row in rows]


async def campaign_budgets(connection: AsyncConnection, campaign_ids: Sequence[int]) -> dict[int, BudgetView]:
    """Own budgets by campaign id; one that nothing drew on yet is its plan."""
    rows = await connection.execute(WINDOWS_SQL, {"ids": list(campaign_ids)})
    return {row[0]: BudgetView(OPERATOR_ID, *row[1:]) for row in rows}

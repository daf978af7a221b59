"""The budget windows of a statement: what its entries drew on them, and where its pending awards reserve."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from domain.database import Database
from settlement.reading import StatementKey, key_columns


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """A budget window that a partner's entries of a period drew on, or in which its pending awards of then reserve.

    What the entries drew, and the window as it stands now.

    ``window``: label of the window's period, None for a single budget over all of its plan's dates.
    ``lapsed_micro``: what was left of the statement's own period when that ended; no window takes over from another.
    """

    budget_id: int
    window: str | None
    drawn_micro: int
    limit_micro: int
    overdraft_micro: int
    consumed_micro: int
    reserved_micro: int
    lapsed_micro: int


BUDGETS_SQL = text(
    """
    WITH asked AS (SELECT * FROM unnest(CAST(:period_ids AS integer[]), CAST(:partner_ids AS integer[]))
                       AS given (period_id, partner_id))
    SELECT u.period_id, u.party_id, b.id, w.label, u.drawn_micro, b.limit_micro, b.overdraft_micro, b.consumed_micro,
           b.reserved_micro,
           CASE WHEN b.period_id = u.period_id AND w.state <> 'OPEN'
                THEN greatest(b.limit_micro - b.consumed_micro - b.reserved_micro, 0) ELSE 0 END
      FROM (SELECT period_id, party_id, budget_id, sum(drawn_micro) AS drawn_micro
              FROM (SELECT t.period_id, t.party_id, t.budget_id, t.budget_micro AS drawn_micro
                      FROM transaction AS t
                      JOIN asked ON asked.period_id = t.period_id AND asked.partner_id = t.party_id
                     WHERE t.kind IN ('EARN', 'CONFIRM', 'EARN_REVERSAL', 'OVERDRAW') AND t.budget_id IS NOT NULL
                     UNION ALL
                    SELECT t.period_id, a.funder_id, a.budget_id, 0
                      FROM pending_award AS a
                      JOIN transaction AS t ON t.account_id = a.account_id AND t.id = a.transaction_id
                      JOIN asked ON asked.period_id = t.period_id AND asked.partner_id = a.funder_id
                     WHERE a.open_points > 0 AND a.budget_id IS NOT NULL) AS entries
             GROUP BY period_id, party_id, budget_id) AS u
      JOIN budget AS b ON b.id = u.budget_id AND b.partner_id = u.party_id  -- a campaign's own belongs to nobody alone
      LEFT JOIN period AS w ON w.id = b.period_id
     ORDER BY u.period_id, u.party_id, b.id
    """
)


async def budgets_of_statements(
    database: Database, viewer_id: int, keys: Sequence[StatementKey]
) -> dict[StatementKey, list[BudgetUse]]:
    """By statement, the budget windows that its entries drew on, credits taken off, or reserve in."""
    found: defaultdict[StatementKey, list[BudgetUse]] = defaultdict(list)
    async with database.reading(viewer_id) as connection:
        for period_id, partner_id, budget_id, window, *amounts in await connection.execute(
            BUDGETS_SQL, key_columns(keys)
        ):
            found[(period_id, partner_id)].append(BudgetUse(budget_id, window, *map(int, amounts)))
    return {key: found[key] for key in keys}

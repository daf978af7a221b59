"""What must hold of negative balances (part of invariant 3): debts, accounts and movements say the same.

A debt is what an OVERDRAW movement left less what REPAY movements paid back; an account owes the sum of its debts; and
the operator's MEMBER_RECEIVABLE is the open points of all debts at their prices.
"""

from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.commands import MovementKind
from settlement.places import PLACES_MAX, find
from settlement.scan import LedgerScan, mix_sql

TOTALS_SQL = text(
    f"""
    SELECT d.made::text, d.open_points::text, d.value_micro::text, d.by_account::text, a.owed::text, a.by_account::text
      FROM (SELECT coalesce(sum({mix_sql("id")} * points), 0) AS made, coalesce(sum(open_points), 0) AS open_points,
                   coalesce(sum(open_points * price_micro), 0) AS value_micro,
                   coalesce(sum({mix_sql("account_id")} * open_points), 0) AS by_account
              FROM debt) AS d,
           (SELECT coalesce(sum(owed), 0) AS owed, coalesce(sum({mix_sql("id")}::numeric * owed), 0) AS by_account
              FROM account WHERE owed > 0) AS a
    """  # noqa: S608 (assembled from constants of this application)
)
DEBTS_SQL = text(
    f"""
    SELECT CASE WHEN d.id IS NULL THEN format('transaction %s (OVERDRAW) of %s points left no debt', t.id, -t.points)
                ELSE format('debt %s of account %s: %s of %s points open at %s; its movements overdraw %s worth %s,'
                            ' repay %s', d.id, d.account_id, d.open_points, d.points, d.price_micro,
                            coalesce(-t.points, 0), coalesce(t.issue_value_micro, 0), coalesce(r.points, 0))
           END AS place
      FROM debt AS d
      FULL JOIN (SELECT * FROM transaction WHERE kind = 'OVERDRAW') AS t ON t.id = d.id
      LEFT JOIN (SELECT account_id, reverses_id, -sum(points) AS points
                   FROM transaction WHERE kind = 'REPAY' GROUP BY account_id, reverses_id) AS r
        ON r.account_id = d.account_id AND r.reverses_id = d.id
     WHERE (d.points, d.points * d.price_micro, d.command_id, d.period_id, d.terms_id, d.funder_id)
           IS DISTINCT FROM (-t.points, t.issue_value_micro, t.command_id, t.period_id, t.terms_id, t.funder_id)
        OR d.open_points <> d.points - coalesce(r.points, 0)
     ORDER BY coalesce(d.id, t.id) LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)
REPAYMENTS_SQL = text(
    f"""
    SELECT format('transaction %s (REPAY) of account %s pays %s points worth %s of debt %s, which is at %s',
                  t.id, t.account_id, -t.points, t.issue_value_micro, t.reverses_id, d.price_micro) AS place
      FROM transaction AS t LEFT JOIN debt AS d ON d.account_id = t.account_id AND d.id = t.reverses_id
     WHERE t.kind = 'REPAY' AND (-t.points * d.price_micro, d.terms_id, d.period_id)
           IS DISTINCT FROM (t.issue_value_micro, t.terms_id, t.reverses_period_id)
     ORDER BY t.id LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)
ACCOUNTS_SQL = text(
    f"""
    SELECT format('account %s owes %s points, its debts have %s open', coalesce(a.id, d.account_id), a.owed,
                  coalesce(d.points, 0)) AS place
      FROM account AS a
      FULL JOIN (SELECT account_id, sum(open_points) AS points FROM debt GROUP BY account_id) AS d
        ON d.account_id = a.id
     WHERE a.owed IS DISTINCT FROM coalesce(d.points, 0)
     ORDER BY coalesce(a.id, d.account_id) LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)


class DebtCheck(NamedTuple):
    """How many points members owe, and where debts, accounts and movements do not add up."""

    owed_points: int
    problems: list[str]


async def check_debts(connection: AsyncConnection, scan: LedgerScan, *, is_everything: bool) -> DebtCheck:
    """Sums tell whether all is well, joins name the places; a verification makes the joins whatever the sums say."""
    made, open_points, value_micro, by_account, owed, by_owing = map(int, (await connection.execute(TOTALS_SQL)).one())
    overdrawn = -sum(group.by_movement for group in scan.movements if group.kind == MovementKind.OVERDRAW)
    wrong = (
        made != overdrawn
        or (open_points, by_account) != (owed, by_owing)
        or open_points != sum(group.sums.owed_points for group in scan.movements)
        or value_micro != sum(group.sums.receivable_micro for group in scan.movements)
    )
    if not wrong and not is_everything:
        return DebtCheck(owed, [])
    statements = (DEBTS_SQL, REPAYMENTS_SQL, ACCOUNTS_SQL)
    found = [place for statement in statements for place in await find(connection, statement, None)]
    return DebtCheck(owed, found or (["debts and movements disagree"] if wrong else []))

"""Used floats on the statement: what awards drew on money that was paid in before is credited, out of the deposit.

At the start of a close each partner is booked FLOAT_USED: the sum of what the period's movements drew on blocks that
were paid in (``float_use``), less what they gave back; PARTNER against DEPOSIT. It is the line PREPAID, from the
partner's side: a credit, or a charge where more was given back. What a float opened with by the coalition file was
paid outside these books, so no deposit pays for what is drawn of it. What movements of periods drew that were closed
before there was such a line (no ``period.credits_floats``) is credited once, by the first close since
(``period.credits_before``), less what was returned of it until then.
"""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.positions import LineKind, entry_line
from domain.writing import add_positions
from settlement.places import PLACES_MAX, find
from settlement.writing import write_entries

# Each use with the period o that drew, and the period p whose statements say so.
USES_FROM = """
      FROM float_block AS b
      JOIN float_use AS u ON u.block_id = b.id
      JOIN transaction AS t ON t.account_id = u.account_id AND t.id = u.transaction_id
      JOIN period AS o ON o.id = coalesce(t.reverses_period_id, t.period_id)
      LEFT JOIN period AS c ON c.credits_before
      JOIN period AS p ON p.id = CASE WHEN o.credits_floats THEN t.period_id
                                      WHEN c.id IS NOT NULL THEN greatest(t.period_id, c.id) END
"""
IS_PRIOR = "(t.reverses_period_id < t.period_id OR t.period_id < p.id)"
# What says something of an earlier period names the line that it corrects, as any entry does: it counts as prior.
_USED = f"""
    SELECT p.id AS period_id, u.partner_id, CASE WHEN {IS_PRIOR} THEN '{LineKind.PREPAID}' END AS line_kind,
           sum(u.amount_micro)::bigint AS amount_micro
    {USES_FROM}
     WHERE b.entry_id IS NOT NULL AND {{}}
     GROUP BY 1, 2, 3 HAVING sum(u.amount_micro) <> 0
"""
CREDIT_BEFORE_SQL = text(
    """
    UPDATE period SET credits_before = true
     WHERE id = :period_id AND credits_floats AND NOT EXISTS (SELECT FROM period WHERE credits_before)
       AND EXISTS (SELECT FROM period WHERE NOT credits_floats AND id < :period_id)
    """
)
USED_SQL = text(
    f"SELECT partner_id, line_kind, amount_micro FROM ({_USED.format('p.id = :period_id')}) AS used"  # noqa: S608
    " ORDER BY partner_id, line_kind NULLS FIRST"
)
_IN_SCOPE = "(CAST(:period_id AS integer) IS NULL OR {} = CAST(:period_id AS integer))"
CREDITS_SQL = text(
    f"""
    SELECT format('period %s, partner %s: FLOAT_USED%s of %s micro-units, its movements drew %s on paid blocks',
                  coalesce(e.label, u.period_id::text), coalesce(e.partner_id, u.partner_id),
                  CASE WHEN coalesce(e.line_kind, u.line_kind) IS NOT NULL THEN ' for earlier periods' ELSE '' END,
                  coalesce(e.amount_micro, 0), coalesce(u.amount_micro, 0)) AS place
      FROM (SELECT d.label, y.period_id, y.partner_id, y.line_kind, sum(y.amount_micro) AS amount_micro
              FROM partner_entry AS y LEFT JOIN period AS d ON d.id = y.period_id
             WHERE y.kind = 'FLOAT_USED' AND {_IN_SCOPE.format("y.period_id")}
             GROUP BY 1, 2, 3, 4) AS e
      FULL JOIN ({_USED.format("p.state <> 'OPEN' AND " + _IN_SCOPE.format("p.id"))}) AS u
        ON u.period_id = e.period_id AND u.partner_id = e.partner_id
       AND coalesce(u.line_kind, '') = coalesce(e.line_kind, '')
     WHERE e.amount_micro IS DISTINCT FROM u.amount_micro
     ORDER BY coalesce(e.period_id, u.period_id), coalesce(e.partner_id, u.partner_id) LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (constants)
)


async def credit_floats(connection: AsyncConnection, period_id: int, recorded_at: datetime) -> None:
    """Books FLOAT_USED of the period, which no movement enters any more, with its positions."""
    await connection.execute(CREDIT_BEFORE_SQL, {"period_id": period_id})
    used = (await connection.execute(USED_SQL, {"period_id": period_id})).all()
    for line_kind in (None, LineKind.PREPAID.value):
        entries = [
            (row.partner_id, "FLOAT_USED", line_kind, row.amount_micro, None)
            for row in used
            if row.line_kind == line_kind
        ]
        booked = await write_entries(connection, period_id, recorded_at, entries)
        await add_positions(
            connection,
            [
                (period_id, entry_line(partner_id, LineKind.PREPAID, line_kind, 1, amount_micro, row_hash))
                for partner_id, amount_micro, row_hash in booked
            ],
        )


async def credit_problems(connection: AsyncConnection, period_id: int | None) -> list[str]:
    """Where FLOAT_USED of closed and closing periods, or of one of them, is not what their movements drew."""
    return await find(connection, CREDITS_SQL, period_id)

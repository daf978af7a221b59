"""Final statements: whose statement of a period is the last one, and what the partner's lots leave then."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.endings import final_period_id
from domain.terms import PARTNER_COLUMNS, Partner, Programme
from settlement.lines import Outstanding

# A partner reads about itself alone; a close, which has no viewer, about all.
PARTNERS_SQL = text(
    f"""
    SELECT {PARTNER_COLUMNS},
           EXISTS (SELECT FROM position AS q WHERE q.period_id = :period_id AND q.partner_id = p.id) AS has_entries
      FROM partner AS p WHERE coalesce(viewer(), 0) IN (0, p.id) ORDER BY id
    """  # noqa: S608 (a constant)
)
# From the rows of the periods until then, and not from the lots, which tills go on changing: so that it can be told
# again at any time. Points that move between accounts stay those of their funder.
OUTSTANDING_SQL = text(
    """
    SELECT asked.id, coalesce(issued.points, 0) - coalesce(used.points, 0) AS points,
           coalesce(issued.value_micro, 0) - coalesce(used.value_micro, 0) AS value_micro
      FROM unnest(CAST(:ids AS integer[])) AS asked (id)
      LEFT JOIN (SELECT funder_id, sum(points) AS points, sum(pool_value_micro) AS value_micro
                   FROM transaction
                  WHERE kind IN ('EARN', 'CONFIRM') AND period_id <= :period_id
                    AND funder_id = ANY(CAST(:ids AS integer[]))
                  GROUP BY funder_id) AS issued ON issued.funder_id = asked.id
      LEFT JOIN (SELECT funder_id, sum(sign * points) AS points, sum(sign * points * price_micro) AS value_micro
                   FROM lot_use
                  CROSS JOIN LATERAL (SELECT CASE kind WHEN 'BURN_REVERSAL' THEN -1 ELSE 1 END) AS signed (sign)
                  WHERE kind NOT IN ('HOLD', 'RELEASE', 'TRANSFER_OUT', 'TRANSFER_IN')
                    AND period_id <= :period_id AND funder_id = ANY(CAST(:ids AS integer[]))
                  GROUP BY funder_id) AS used ON used.funder_id = asked.id
    """
)


async def load_finals(connection: AsyncConnection, programme: Programme, period_id: int) -> dict[int, Outstanding]:
    """By partner whose statement of the period is final, what its own lots leave: points that it paid for.

    It is final in the period in which the run-off ends, and whenever something is booked after that.
    """
    ids = []
    for *columns, has_entries in await connection.execute(PARTNERS_SQL, {"period_id": period_id}):
        last_id = final_period_id(programme, Partner(*columns))
        if last_id is not None and (last_id == period_id or (last_id < period_id and has_entries)):
            ids.append(columns[0])
    if not ids:
        return {}
    rows = await connection.execute(OUTSTANDING_SQL, {"ids": ids, "period_id": period_id})
    return {row.id: Outstanding(int(row.points), int(row.value_micro)) for row in rows}

"""What is pending, for the command line: how many points of whose purchases wait, for what, and since when."""

from typing import Any

from sqlalchemy import text

from api.runtime import Runtime
from domain.values import OPERATOR_ID, decimal_from_micro

PENDING_SQL = text(
    """
    SELECT p.code AS partner, a.waits_for_payment, count(*) AS awards, sum(a.open_points)::bigint AS points,
           sum(a.reserved_micro)::bigint AS reserved_micro, min(a.earned_at) AS oldest, min(a.release_at) AS first_until
      FROM pending_award AS a JOIN partner AS p ON p.id = a.partner_id
     WHERE a.open_points > 0
     GROUP BY p.code, a.waits_for_payment
     ORDER BY p.code, a.waits_for_payment
    """
)


async def describe_pending(runtime: Runtime) -> list[dict[str, Any]]:
    """A row per partner where the purchases were and what they wait for.

    ``reserved`` is what they reserve of all funders' budgets, ``pendingUntil`` when the first return window ends.
    Raises ConfigurationError before the first ``coalition apply``.
    """
    currency = (await runtime.programme_configuration()).programme.currency
    async with runtime.database.reading(OPERATOR_ID) as connection:
        rows = (await connection.execute(PENDING_SQL)).all()
    return [
        {
            "partner": row.partner,
            "waitsForPayment": row.waits_for_payment,
            "awards": row.awards,
            "points": row.points,
            "reserved": {"amount": str(decimal_from_micro(row.reserved_micro)), "currency": currency},
            "oldestPurchase": row.oldest.isoformat(),
            "pendingUntil": row.first_until.isoformat(),
        }
        for row in rows
    ]

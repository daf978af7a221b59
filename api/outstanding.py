"""What is outstanding, for the command line: whose points members still have, and what they are worth in the pool."""

from typing import Any

from sqlalchemy import text

from api.runtime import Runtime
from domain.endings import final_period_id
from domain.errors import ConfigurationError
from domain.values import OPERATOR_CODE, OPERATOR_ID, decimal_from_micro

# As the posting role: who issued a lot, and at which price, stands in no column that readers may see.
OUTSTANDING_SQL = text(
    """
    SELECT issuer_id, funder_id, count(*) AS lots, sum(remaining)::bigint AS available, sum(reserved)::bigint AS held,
           sum((remaining + reserved) * price_micro)::bigint AS value_micro,
           min(coalesce(grace_until, expires_at)) AS first_expiry, max(coalesce(grace_until, expires_at)) AS last_expiry
      FROM lot
     WHERE (remaining > 0 OR reserved > 0) AND issuer_id = coalesce(CAST(:partner_id AS integer), issuer_id)
     GROUP BY issuer_id, funder_id ORDER BY issuer_id, funder_id DESC
    """
)


async def describe_outstanding(runtime: Runtime, partner_code: str | None) -> list[dict[str, Any]]:
    """A row per issuer and who paid: the partner itself, or the operator.

    ``finalStatement``: label of the period with whose statement everything is settled with a partner that leaves.
    Raises ConfigurationError before the first ``coalition apply``, and for an unknown partner.
    """
    configuration = await runtime.programme_configuration()
    programme = configuration.programme
    if partner_code is not None and partner_code not in configuration.partners_by_code:
        raise ConfigurationError(f'no partner has the code "{partner_code}"')
    partner_id = None if partner_code is None else configuration.partners_by_code[partner_code].id
    async with runtime.database.posting() as connection:
        rows = (await connection.execute(OUTSTANDING_SQL, {"partner_id": partner_id})).all()
    described = []
    for row in rows:
        partner = configuration.partners[row.issuer_id]
        last_id = final_period_id(programme, partner)
        described.append(
            {
                "partner": partner.code,
                "paidBy": OPERATOR_CODE if row.funder_id == OPERATOR_ID else partner.code,
                "lots": row.lots,
                "available": row.available,
                "held": row.held,
                "poolValue": {"amount": str(decimal_from_micro(row.value_micro)), "currency": programme.currency},
                "firstExpiry": min(row.first_expiry, programme.burn_ends_at or row.first_expiry).isoformat(),
                "lastExpiry": min(row.last_expiry, programme.burn_ends_at or row.last_expiry).isoformat(),
                "leavesOn": None if partner.leaves_on is None else partner.leaves_on.isoformat(),
                "finalStatement": None if last_id is None else programme.calendar.label(last_id),
            }
        )
    return described

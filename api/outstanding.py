"""What is outstanding, for the command line: whose points members still have, and what members owe."""

from datetime import datetime
from typing import Any

from sqlalchemy import text

from api.runtime import Runtime
from domain.endings import final_period_id
from domain.errors import ConfigurationError
from domain.terms import Programme
from domain.values import OPERATOR_CODE, OPERATOR_ID, decimal_from_micro

# As the posting role: who issued a lot, and at which price, stands in no column that readers may see.
OUTSTANDING_SQL = text(
    """
    SELECT coalesce(l.issuer_id, d.issuer_id) AS issuer_id, coalesce(l.funder_id, d.funder_id) AS funder_id,
           coalesce(l.lots, 0) AS lots, coalesce(l.available, 0) AS available, coalesce(l.held, 0) AS held,
           coalesce(l.value_micro, 0) AS value_micro, l.first_expiry, l.last_expiry, coalesce(d.owed, 0) AS owed,
           coalesce(d.owed_micro, 0) AS owed_micro
      FROM (SELECT issuer_id, funder_id, count(*) AS lots, sum(remaining)::bigint AS available,
                   sum(reserved)::bigint AS held, sum((remaining + reserved) * price_micro)::bigint AS value_micro,
                   min(coalesce(grace_until, expires_at)) AS first_expiry,
                   max(coalesce(grace_until, expires_at)) AS last_expiry
              FROM lot WHERE remaining > 0 OR reserved > 0 GROUP BY issuer_id, funder_id) AS l
      FULL JOIN (SELECT t.partner_id AS issuer_id, x.funder_id, sum(x.open_points)::bigint AS owed,
                        sum(x.open_points * x.price_micro)::bigint AS owed_micro
                   FROM debt AS x JOIN terms AS t ON t.id = x.terms_id
                  WHERE x.open_points > 0 GROUP BY t.partner_id, x.funder_id) AS d
        ON d.issuer_id = l.issuer_id AND d.funder_id = l.funder_id
     WHERE CAST(:partner_id AS integer) IS NULL OR coalesce(l.issuer_id, d.issuer_id) = CAST(:partner_id AS integer)
     ORDER BY 1, 2 DESC
    """
)


async def describe_outstanding(runtime: Runtime, partner_code: str | None) -> list[dict[str, Any]]:
    """A row per issuer and who paid: the partner itself, or the operator.

    ``owed``: points that members owe since goods were returned whose points they had spent (negative balances).
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
                "owed": row.owed,
                "receivable": {"amount": str(decimal_from_micro(row.owed_micro)), "currency": programme.currency},
                "firstExpiry": _by_the_end(programme, row.first_expiry),
                "lastExpiry": _by_the_end(programme, row.last_expiry),
                "leavesOn": None if partner.leaves_on is None else partner.leaves_on.isoformat(),
                "finalStatement": None if last_id is None else programme.calendar.label(last_id),
            }
        )
    return described


def _by_the_end(programme: Programme, expiry: datetime | None) -> str | None:
    return None if expiry is None else min(expiry, programme.burn_ends_at or expiry).isoformat()

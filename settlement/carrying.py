"""What statements take beside the positions: what earlier ones left, the smallest amount, tax rates."""

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.positions import LineKind
from domain.terms import Programme
from settlement.finals import load_finals
from settlement.lines import Billing

CARRIED_SQL = text(
    """
    SELECT DISTINCT ON (partner_id) partner_id, carried_on_minor
      FROM statement WHERE period_id < :period_id ORDER BY partner_id, period_id DESC
    """
)
TAX_SQL = text("SELECT partner_id, code, rate_ppm FROM tax_rate WHERE valid @> CAST(:day AS date)")


async def load_billing(
    connection: AsyncConnection, programme: Programme, period_id: int, *, is_next: bool = True
) -> Billing:
    """What the period's statements take beside its positions, by the configuration of now.

    The tax rates are those of its last day. ``is_next``: it is the next to close, so that what is left to it is known.
    """
    carried = (await connection.execute(CARRIED_SQL, {"period_id": period_id})).all() if is_next else []
    day = programme.calendar.first_day(period_id + 1) - timedelta(days=1)
    rates = await connection.execute(TAX_SQL, {"day": day})
    return Billing(
        {row.partner_id: int(row.carried_on_minor) for row in carried if row.carried_on_minor},
        programme.minimum_settlement_minor,
        {(row.partner_id, LineKind(row.code)): row.rate_ppm for row in rates},
        await load_finals(connection, programme, period_id),
    )

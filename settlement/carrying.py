"""What statements leave to the next ones: amounts too small to be paid (SETTLEMENT.md c.5)."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

CARRIED_SQL = text(
    """
    SELECT DISTINCT ON (partner_id) partner_id, carried_on_minor
      FROM statement WHERE period_id < :period_id ORDER BY partner_id, period_id DESC
    """
)


async def carried_into(connection: AsyncConnection, period_id: int) -> dict[int, int]:
    """By partner, what its last statement before that period left, in minor units; those that left something only."""
    rows = await connection.execute(CARRIED_SQL, {"period_id": period_id})
    return {row.partner_id: int(row.carried_on_minor) for row in rows if row.carried_on_minor}

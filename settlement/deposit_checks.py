"""What must hold of deposits (part of invariant 16): entries are what was recorded, approved, or paid into floats."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.places import PLACES_MAX, find

DEPOSIT_ENTRIES_SQL = text(
    f"""
    SELECT CASE WHEN e.id IS NULL THEN format('deposit payment %s of partner %s: no entry books it', d.id, d.partner_id)
                WHEN d.id IS NULL
                THEN format('partner entry %s (DEPOSIT, partner %s) was paid into no deposit and no float', e.id,
                            e.partner_id)
                ELSE format('deposit payment %s of partner %s: its entry differs in partner, amount or time', d.id,
                            d.partner_id) END AS place
      FROM (SELECT id, partner_id, amount_micro, recorded_at FROM deposit_payment
             UNION ALL
            SELECT entry_id, partner_id, amount_micro, recorded_at FROM float_block WHERE entry_id IS NOT NULL) AS d
      FULL JOIN (SELECT * FROM partner_entry WHERE kind = 'DEPOSIT') AS e ON e.id = d.id
     WHERE (e.partner_id, e.amount_micro, e.recorded_at) IS DISTINCT FROM (d.partner_id, d.amount_micro, d.recorded_at)
     ORDER BY coalesce(d.id, e.id) LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)
PAYOUTS_SQL = text(
    f"""
    SELECT format('deposit payment %s (%s paid out to partner %s) is not what an approved proposal says', d.id,
                  -d.amount_micro, d.partner_id) AS place
      FROM deposit_payment AS d LEFT JOIN proposal AS p ON p.id = d.proposal_id
     WHERE d.amount_micro < 0 AND (p.kind, p.state, p.partner_id, -p.amount_micro)
           IS DISTINCT FROM ('DEPOSIT_PAYOUT', 'APPROVED', d.partner_id, d.amount_micro)
     ORDER BY d.id LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)
PAYOUTS_MISSING_SQL = text(
    f"""
    SELECT format('proposal %s (DEPOSIT_PAYOUT, partner %s) is approved, and nothing was paid out', p.id, p.partner_id)
           AS place
      FROM proposal AS p LEFT JOIN deposit_payment AS d ON d.proposal_id = p.id
     WHERE p.kind = 'DEPOSIT_PAYOUT' AND p.state = 'APPROVED' AND d.id IS NULL
     ORDER BY p.id LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)
NEGATIVE_SQL = text(
    f"""
    SELECT format('deposit of partner %s: %s micro-units', partner_id, held_micro) AS place
      FROM deposit_account WHERE held_micro < 0 ORDER BY partner_id LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a number)
)


async def deposit_problems(connection: AsyncConnection) -> list[str]:
    """Where deposits and their entries are not what was recorded and approved."""
    statements = (DEPOSIT_ENTRIES_SQL, PAYOUTS_SQL, PAYOUTS_MISSING_SQL, NEGATIVE_SQL)
    return [place for statement in statements for place in await find(connection, statement, None)]

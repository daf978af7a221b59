"""Reading holds: the open ones of an account, and those that are to be resolved."""

from collections.abc import Collection, Mapping

from sqlalchemy import text

from domain.database import BatchConnection
from domain.lots import Account, Hold

HOLDS_SQL = text(
    """
    SELECT h.account_id, h.id, h.transaction_id, h.partner_id, c.store_id, c.member_id, c.reference, h.points,
           h.captured, h.released, h.state, h.expires_at, t.terms_id,
           array_agg(u.lot_id ORDER BY u.id), array_agg(u.points ORDER BY u.id)
      FROM (SELECT * FROM hold WHERE account_id = ANY(CAST(:accounts AS bigint[])) AND state = 'OPEN'
             UNION
            SELECT * FROM hold WHERE command_id = ANY(CAST(:commands AS bigint[]))) AS h
      JOIN command AS c ON c.id = h.command_id
      JOIN transaction AS t ON t.account_id = h.account_id AND t.id = h.transaction_id
      JOIN lot_use AS u ON u.account_id = h.account_id AND u.transaction_id = h.transaction_id
     GROUP BY h.account_id, h.id, h.transaction_id, h.partner_id, c.id, h.points, h.captured, h.released, h.state,
              h.expires_at, t.terms_id
     ORDER BY h.id
    """
)


async def load_holds(
    connection: BatchConnection,
    accounts: Mapping[int, Account],
    account_ids: Collection[int],
    command_ids: Collection[int],
) -> set[int]:
    """Step 6: the open holds of some accounts, and those of some authorizations; answers the lots they stand on."""
    rows = await connection.execute(HOLDS_SQL, {"accounts": list(account_ids), "commands": list(command_ids)})
    lot_ids: set[int] = set()
    for *columns, lots, parts in rows.all():
        hold = Hold(*[*columns, list(zip(lots, parts, strict=True))])
        accounts[hold.account_id].holds[hold.id] = hold
        lot_ids.update(lots)
    return lot_ids

"""Reading holds: the open ones of an account, and those that are to be resolved, with what returns miss of them."""

from collections.abc import Sequence

from sqlalchemy import text

from domain.asked import accounts_with_holds, authorizations_of
from domain.batch import Batch, Original
from domain.commands import Command
from domain.database import BatchConnection
from domain.lots import Hold
from domain.recalling import load_recalls

HOLDS_SQL = text(
    """
    SELECT h.account_id, h.id, h.transaction_id, h.partner_id, c.store_id, c.member_id, c.reference, h.points,
           h.captured, h.released, h.state, c.recorded_at, h.expires_at, t.terms_id,
           array_agg(u.lot_id ORDER BY u.id), array_agg(u.points ORDER BY u.id),
           h.state = 'OPEN'
               AND EXISTS (SELECT FROM recall AS r WHERE r.account_id = h.account_id AND r.hold_id = h.id)
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
    connection: BatchConnection, batch: Batch, commands: Sequence[Command], originals: Sequence[Original]
) -> set[int]:
    """Step 6: the holds that deciding needs, no statement where there are none; answers the lots they stand on.

    Raises LocksMissing where what returns miss of them needs more locks.
    """
    parameters = {
        "accounts": accounts_with_holds(batch, commands, originals),
        "commands": authorizations_of(batch, originals),
    }
    if not any(parameters.values()):
        return set()
    rows = await connection.execute(HOLDS_SQL, parameters)
    lot_ids: set[int] = set()
    recalled = []
    for *columns, lots, parts, is_recalled in rows.all():
        hold = Hold(*[*columns, list(zip(lots, parts, strict=True))])
        batch.accounts[hold.account_id].holds[hold.id] = hold
        lot_ids.update(lots)
        if is_recalled:
            recalled.append((hold.account_id, hold.id))
    if recalled:
        await load_recalls(connection, batch, commands, recalled)
    return lot_ids

"""What must hold of the books after whatever a test did, and whether anything changed at all."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.commands import MovementKind
from domain.database import Database
from domain.ledger import FINGERPRINT_SQL, HASHED_TRANSACTION_COLUMNS, row_hash_sql
from domain.positions import MovementSums, contributions

TABLES_SQL = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")

NONE_OF_THESE = {
    "a float whose blocks are not its limit, or gave other than was consumed": """
        SELECT b.id, b.limit_micro, b.consumed_micro, sum(f.amount_micro), sum(f.used_micro)
          FROM budget AS b JOIN budget_plan AS p ON p.id = b.plan_id AND p.funding = 'PREPAID'
          LEFT JOIN float_block AS f ON f.budget_id = b.id
         GROUP BY b.id
        HAVING (b.limit_micro, b.consumed_micro) <> (coalesce(sum(f.amount_micro), 0), coalesce(sum(f.used_micro), 0))
    """,
    "a block that its uses do not explain": """
        SELECT f.id, f.used_micro, sum(u.amount_micro) FROM float_block AS f
          LEFT JOIN float_use AS u ON u.block_id = f.id
         GROUP BY f.id HAVING f.used_micro <> coalesce(sum(u.amount_micro), 0)
    """,
    "a movement on a float that its uses do not explain": """
        SELECT t.id, t.budget_micro, sum(u.amount_micro)
          FROM transaction AS t JOIN budget AS b ON b.id = t.budget_id
          JOIN budget_plan AS p ON p.id = b.plan_id AND p.funding = 'PREPAID'
          LEFT JOIN float_use AS u ON u.transaction_id = t.id
         GROUP BY t.account_id, t.id HAVING t.budget_micro <> coalesce(sum(u.amount_micro), 0)
    """,
    "more given back to a block than the same movement had drawn on it": """
        SELECT block_id, drawn_by_id, sum(amount_micro) FROM float_use GROUP BY 1, 2 HAVING sum(amount_micro) < 0
    """,
    "an expansion that does not balance": """
        SELECT transaction_id, unit, sum(amount) FROM ledger_entry GROUP BY 1, 2 HAVING sum(amount) <> 0
    """,
    "a unit that does not sum to zero": "SELECT unit, sum(amount) FROM ledger_entry GROUP BY 1 HAVING sum(amount) <> 0",
    "an account that is not the sum of its lots": """
        SELECT a.id, a.available, a.held, sum(l.remaining), sum(l.reserved)
          FROM account AS a LEFT JOIN lot AS l ON l.account_id = a.id
         GROUP BY a.id
        HAVING (a.available, a.held) <> (coalesce(sum(l.remaining), 0), coalesce(sum(l.reserved), 0))
    """,
    "an account that is not the sum of its movements": """
        SELECT a.id, a.available, a.held, a.pending FROM account AS a LEFT JOIN transaction AS t ON t.account_id = a.id
         GROUP BY a.id
        HAVING a.available + a.held
            <> coalesce(sum(t.points) FILTER (WHERE kind NOT IN ('EARN_PENDING', 'CANCEL', 'HOLD', 'RELEASE',
                                                                 'OVERDRAW')), 0)
            OR a.held <> coalesce(-sum(t.points) FILTER (WHERE kind IN ('HOLD', 'RELEASE')), 0)
                         + coalesce(sum(t.points) FILTER (WHERE kind = 'CAPTURE'), 0)
            OR a.pending <> coalesce(sum(t.points) FILTER (WHERE kind IN ('EARN_PENDING', 'CANCEL')), 0)
                            - coalesce(sum(t.points) FILTER (WHERE kind = 'CONFIRM'), 0)
    """,
    "pending points that no pending award has": """
        SELECT a.id, a.pending, sum(p.open_points) FROM account AS a LEFT JOIN pending_award AS p ON p.account_id = a.id
         GROUP BY a.id HAVING a.pending <> coalesce(sum(p.open_points), 0)
    """,
    "held points that no open hold has": """
        SELECT a.id, a.held, sum(h.points) FROM account AS a
          LEFT JOIN hold AS h ON h.account_id = a.id AND h.state = 'OPEN'
         GROUP BY a.id HAVING a.held <> coalesce(sum(h.points), 0)
    """,
    "a pending award that its movements do not explain": """
        SELECT p.id, p.granted, p.open_points FROM pending_award AS p
          LEFT JOIN transaction AS t ON t.account_id = p.account_id AND t.lot_id = p.id
           AND t.kind IN ('EARN_PENDING', 'CONFIRM', 'CANCEL')
         GROUP BY p.account_id, p.id
        HAVING p.open_points <> coalesce(sum(CASE t.kind WHEN 'CONFIRM' THEN -t.points ELSE t.points END), 0)
    """,
    "an account whose next expiry is later than a lot's": """
        SELECT a.id, a.next_expires_at, min(coalesce(l.grace_until, l.expires_at))
          FROM account AS a JOIN lot AS l ON l.account_id = a.id AND l.remaining > 0
         GROUP BY a.id
        HAVING a.next_expires_at IS NULL OR a.next_expires_at > min(coalesce(l.grace_until, l.expires_at))
    """,
    "a lot that its uses do not explain": """
        SELECT l.id, l.granted, l.remaining, l.reserved FROM lot AS l LEFT JOIN lot_use AS u ON u.lot_id = l.id
         GROUP BY l.account_id, l.id
        HAVING l.granted - l.remaining - l.reserved
            <> coalesce(sum(CASE WHEN u.kind IN ('BURN_REVERSAL', 'TRANSFER_IN') THEN -u.points ELSE u.points END)
                        FILTER (WHERE u.kind NOT IN ('HOLD', 'RELEASE')), 0)
            OR l.reserved
            <> coalesce(sum(CASE WHEN u.kind = 'HOLD' THEN u.points ELSE -u.points END)
                        FILTER (WHERE u.kind IN ('HOLD', 'CAPTURE', 'RELEASE')), 0)
    """,
    "a movement that is not the sum of its lots": """
        SELECT t.id, t.kind, t.points, u.points, l.granted FROM transaction AS t
          LEFT JOIN (SELECT transaction_id, sum(points) AS points FROM lot_use GROUP BY 1) AS u
            ON u.transaction_id = t.id
          LEFT JOIN (SELECT transaction_id, sum(granted) AS granted
                       FROM (SELECT transaction_id, granted FROM lot
                              UNION ALL SELECT transaction_id, granted FROM pending_award) AS opened GROUP BY 1) AS l
            ON l.transaction_id = t.id
         WHERE t.kind NOT IN ('CANCEL', 'OVERDRAW')
           AND abs(t.points)
            <> CASE WHEN t.kind IN ('EARN', 'EARN_PENDING', 'CONFIRM', 'TRANSFER_IN')
                      OR (t.kind = 'ADJUST' AND t.points > 0)
                    THEN coalesce(l.granted, 0) + CASE t.kind WHEN 'TRANSFER_IN' THEN coalesce(u.points, 0) ELSE 0 END
                    ELSE coalesce(u.points, 0) END
    """,
    "a movement whose pool value is not that of its lots": """
        SELECT t.id, t.kind, t.pool_value_micro FROM transaction AS t JOIN lot_use AS u ON u.transaction_id = t.id
         GROUP BY t.account_id, t.id
        HAVING abs(t.pool_value_micro)
            <> CASE WHEN t.kind IN ('HOLD', 'RELEASE', 'TRANSFER_OUT', 'TRANSFER_IN') THEN 0
                    ELSE sum(u.points * u.price_micro) END
    """,
    "an account that owes other points than its debts": """
        SELECT a.id, a.owed, sum(d.open_points) FROM account AS a LEFT JOIN debt AS d ON d.account_id = a.id
         GROUP BY a.id HAVING a.owed <> coalesce(sum(d.open_points), 0)
    """,
    "a debt that its movements do not explain": """
        SELECT d.id, d.points, d.open_points FROM debt AS d LEFT JOIN transaction AS t ON d.id IN (t.id, t.reverses_id)
         GROUP BY d.account_id, d.id
        HAVING d.open_points <> coalesce(sum(CASE t.kind WHEN 'REPAY' THEN t.points ELSE -t.points END), 0)
            OR d.open_points * d.price_micro
            <> coalesce(sum(CASE t.kind WHEN 'REPAY' THEN -1 ELSE 1 END * t.issue_value_micro), 0)
    """,
    "a receivable that its debts do not explain": """
        SELECT * FROM (SELECT coalesce(-sum(amount), 0) AS booked FROM ledger_entry
                        WHERE book = 'MEMBER_RECEIVABLE') AS e,
                      (SELECT coalesce(sum(open_points * price_micro), 0) AS open FROM debt) AS d
         WHERE booked <> open
    """,
    "who owes points and has some that are usable": """
        SELECT a.id, a.owed, a.available FROM account AS a
         WHERE a.owed > 0 AND EXISTS (SELECT FROM lot AS l WHERE l.account_id = a.id AND l.remaining > 0
            AND coalesce(l.grace_until, l.expires_at) > (SELECT max(recorded_at) FROM command))
    """,
    "a pool that is not its open lots at their prices": """
        SELECT * FROM (SELECT coalesce(sum(pool_value_micro), 0) AS booked FROM transaction) AS t,
                      (SELECT coalesce(sum((remaining + reserved) * price_micro), 0) AS open FROM lot) AS l
         WHERE booked <> open
    """,
    "a budget that is not the sum of its movements": """
        SELECT b.id, b.consumed_micro, sum(t.budget_micro)
          FROM budget AS b LEFT JOIN transaction AS t ON t.budget_id = b.id
         GROUP BY b.id HAVING b.consumed_micro <> coalesce(sum(t.budget_micro), 0)
    """,
    "a reservation that no pending award has": """
        SELECT b.id, b.reserved_micro, sum(p.reserved_micro)
          FROM budget AS b LEFT JOIN pending_award AS p ON p.budget_id = b.id
         GROUP BY b.id HAVING b.reserved_micro <> coalesce(sum(p.reserved_micro), 0)
    """,
    "budget money without a budget": "SELECT id FROM transaction WHERE budget_id IS NULL AND budget_micro <> 0",
    "a fingerprint that does not recompute": f"SELECT c.id FROM command AS c WHERE c.fingerprint <> {FINGERPRINT_SQL}",
    "a row hash that does not recompute": f"""
        SELECT t.id FROM transaction AS t WHERE t.row_hash <> {row_hash_sql(HASHED_TRANSACTION_COLUMNS, "t")}
    """,
    "an identifier without its member": """
        SELECT kind, value FROM member_identifier AS i
         WHERE NOT EXISTS (SELECT FROM member AS m WHERE m.id = i.member_id)
    """,
    "a command that moved nothing it should have": """
        SELECT c.id, c.kind FROM command AS c
         WHERE c.kind <> 'ENROLL' AND NOT EXISTS (SELECT FROM transaction AS t WHERE t.command_id = c.id)
    """,
    "a movement that its command does not carry": """
        SELECT t.id FROM transaction AS t LEFT JOIN command AS c ON c.id = t.command_id
         WHERE c.id IS NULL OR (c.period_id, c.partner_id) <> (t.period_id, t.partner_id)
            OR (c.account_id <> t.account_id AND c.kind NOT IN ('TRANSFER', 'MERGE', 'UNMERGE'))
    """,
}

MOVEMENTS_SQL = text(
    """
    SELECT period_id, kind, party_id, coalesce(reverses_period_id < period_id, false), count(*), sum(points),
           sum(issue_value_micro), sum(service_fee_micro), sum(reimbursement_micro), sum(breakage_share_micro),
           sum(pool_value_micro), sum(row_hash)
      FROM transaction GROUP BY 1, 2, 3, 4
    """
)
POSITIONS_SQL = text(
    """
    SELECT period_id, partner_id, kind, entries, points, amount_micro, prior_amount_micro, hash_sum
      FROM position WHERE kind NOT IN ('FIXED_FEE', 'ADJUSTMENT', 'PREPAID')
    """
)


# A window that nobody drew on is as good as none, and so is a page of the calendar: a refused command may make them.
ROWS_THAT_COUNT = {
    "budget": "consumed_micro <> 0 OR reserved_micro <> 0 OR alerted_at IS NOT NULL",
    "float_block": "used_micro <> 0 OR id <> budget_id",
    "period": "state <> 'OPEN' OR imported",
    "row_seal": "relation NOT IN ('budget', 'float_block', 'period')",
}


async def contents(database: Database) -> dict[str, tuple[int, int]]:
    """Per table its number of rows and a hash over all of them, whatever their order."""
    async with database.posting() as connection:
        tables = [row.tablename for row in await connection.execute(TABLES_SQL)]
        sums = " UNION ALL ".join(
            f"SELECT '{table}', count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {table} AS t"
            f" WHERE {ROWS_THAT_COUNT.get(table, 'true')}"
            for table in tables
            if not table.startswith("oauth")
        )
        return {table: (rows, int(hashes)) for table, rows, hashes in await connection.execute(text(sums))}


async def check_books(database: Database) -> None:
    """Asserts every sum that ties the tables together."""
    async with database.posting("REPEATABLE READ") as connection:
        found = {}
        for what, sql in NONE_OF_THESE.items():
            wrong = [tuple(row) for row in await connection.execute(text(sql))]
            if wrong:
                found[what] = wrong
        assert found == {}
        assert await _stored_positions(connection) == await _recomputed_positions(connection)


async def _stored_positions(connection: AsyncConnection) -> dict[tuple[int, int, str], list[int]]:
    return {
        (period_id, partner_id, kind): list(map(int, totals))
        for period_id, partner_id, kind, *totals in await connection.execute(POSITIONS_SQL)
    }


async def _recomputed_positions(connection: AsyncConnection) -> dict[tuple[int, int, str], list[int]]:
    positions: dict[tuple[int, int, str], list[int]] = defaultdict(lambda: [0] * 5)
    for period_id, kind, party_id, prior, *sums in await connection.execute(MOVEMENTS_SQL):
        for change in contributions(MovementSums(MovementKind(kind), party_id, prior, *_whole(sums))):
            totals = positions[(period_id, change.partner_id, change.kind.value)]
            for index, value in enumerate(change[2:]):
                totals[index] += value
    return dict(positions)


def _whole(sums: Sequence[int]) -> tuple[int, int, int, int, int, int, int, int]:
    a, b, c, d, e, f, g, h = map(int, sums)
    return a, b, c, d, e, f, g, h

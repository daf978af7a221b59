"""A ledger of any size, made by SQL: what the posting path would have written, without its time.

Rows are set-based and consistent: commands with fingerprints, hashed movements, lots, uses, accounts, budgets and
positions, so that a close audits them as real ones and finds nothing wrong. Of ten movements of a member nine are
purchases and the last is a burn out of the lot of the one before it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from api.clock import system_clock
from api.embedded import EmbeddedServer
from api.migrations import migrate_async
from domain.commands import Amount, Earn, MemberRef, MovementKind, StoreRef
from domain.database import Database, DatabaseUrls
from domain.ledger import FINGERPRINT_SQL, HASHED_TRANSACTION_COLUMNS, ensure_periods, row_hash_sql
from domain.positions import Contribution, MovementSums, contributions
from domain.terms import ConfigurationCache, load_configuration
from domain.writing import add_positions
from partners.apply import apply_coalition
from partners.coalition_file import parse_coalition
from tests.bench.documents import MEMBER_STRIDE
from tests.bench.shop import PARTNERS, coalition_toml

ROWS_PER_MEMBER = 50
BURN_POINTS = 5
IDS_PER_ROW = 4
ID_BLOCK = 5_000
TRANSACTION_TYPES = {
    "kind": "text", "occurred_at": "timestamptz", "recorded_at": "timestamptz", "period_id": "integer",
    "partner_id": "integer", "party_id": "integer", "funder_id": "integer", "issuer_id": "integer",
    "store_id": "integer", "terms_id": "integer", "rule_id": "integer", "reverses_period_id": "integer",
}  # fmt: skip
"""The columns of ``transaction`` that are no bigint."""


def run_alone(server: EmbeddedServer, *statements: str, database: str = "postgres") -> None:
    """Runs statements as superuser, each outside a transaction."""
    asyncio.run(_run_alone(make_url(server.superuser_dsn(database)), statements))


async def _run_alone(url: URL, statements: Sequence[str]) -> None:
    engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


@asynccontextmanager
async def opened(server: EmbeddedServer, database: str) -> AsyncIterator[Database]:
    """A database as the application opens it."""
    url = make_url(server.superuser_dsn(database))
    made = Database(DatabaseUrls(url, url, url))
    try:
        yield made
    finally:
        await made.dispose()


def make_history(
    server: EmbeddedServer, database: str, rows: int, first_period: int, periods: int, *, lively: bool
) -> None:
    """A new database with the coalition and that many movements, spread evenly over periods in a row."""
    run_alone(server, f"CREATE DATABASE {database}")
    asyncio.run(_fill(server, database, rows, first_period, periods, lively=lively))
    # As a ledger is that grew slowly: statistics known, no work left over for the ones who read it first.
    run_alone(server, "VACUUM (ANALYZE)", "CHECKPOINT", database=database)


def members_of(rows: int) -> int:
    """How many members that many movements have: card-0 and so on."""
    return rows // ROWS_PER_MEMBER


async def purchases(database: Database, run: str, count: int, members: int, at: datetime) -> list[Earn]:
    """Commands of purchases then, by all members and at all partners in turn; ``run`` makes their keys their own."""
    configuration = await ConfigurationCache(database).current()
    assert configuration is not None
    return [
        Earn(
            configuration.partners_by_code[f"p{number % PARTNERS}"].id,
            f"{run}-{number}",
            MemberRef(identifier=("card", f"card-{number * MEMBER_STRIDE % members}")),
            Amount(Decimal(f"{10 + number % 90}.50"), "EUR"),
            at,
            f"{run}-{number}",
            StoreRef(code="s1"),
            "STORE",
        )
        for number in range(count)
    ]


async def _fill(
    server: EmbeddedServer, database: str, rows: int, first_period: int, periods: int, *, lively: bool
) -> None:
    await migrate_async(make_url(server.superuser_dsn(database)))
    start = date(first_period // 12, first_period % 12 + 1, 1)
    async with opened(server, database) as platform:
        await apply_coalition(platform, parse_coalition(coalition_toml(start, lively=lively)), clock=system_clock)
        async with platform.posting() as connection:
            configuration = await load_configuration(connection)
            assert configuration is not None
            calendar = configuration.programme.calendar
            await ensure_periods(connection, [calendar.span(first_period + i) for i in range(periods)])
    engine = create_async_engine(make_url(server.superuser_dsn(database)), poolclass=NullPool)
    async with engine.begin() as connection:
        # No triggers: what they guard is made right here, and their sets of millions of rows would not fit.
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(text("SET LOCAL work_mem = '256MB'"))
        await connection.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
        indexes = await _without_indexes(connection)
        for statement in _statements(rows, first_period, periods):
            await connection.execute(text(statement))
        for statement in indexes:
            await connection.execute(text(statement))
        await add_positions(connection, await _position_changes(connection))
    await engine.dispose()


INDEXES_SQL = """
SELECT pg_get_indexdef(indexrelid) AS made, indexrelid::regclass::text AS name
  FROM pg_index WHERE indrelid::regclass::text IN ('command', 'transaction', 'lot', 'lot_use')
   AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid) ORDER BY indexrelid
"""


async def _without_indexes(connection: AsyncConnection) -> list[str]:
    """Drops the indexes of the big tables that no constraint needs; the statements that make them again."""
    found = (await connection.execute(text(INDEXES_SQL))).all()
    for _, name in found:
        await connection.execute(text(f"DROP INDEX {name}"))
    return [made for made, _ in found]


def _statements(rows: int, first_period: int, periods: int) -> list[str]:
    members = members_of(rows)
    per_period = rows // periods
    columns = ", ".join(HASHED_TRANSACTION_COLUMNS)
    typed = ", ".join(f"{name}::{TRANSACTION_TYPES.get(name, 'bigint')}" for name in HASHED_TRANSACTION_COLUMNS)
    return [
        """
        CREATE TEMP TABLE till ON COMMIT DROP AS
        SELECT row_number() OVER (ORDER BY p.id) - 1 AS number, p.id AS partner_id, s.id AS store_id, t.id AS terms_id,
               t.issue_price_micro, t.service_fee_micro, t.reimbursement_micro, t.breakage_share_ppm, r.id AS rule_id,
               b.id AS plan_id, b.limit_micro
          FROM partner AS p JOIN store AS s ON s.partner_id = p.id JOIN terms AS t ON t.partner_id = p.id
          JOIN earn_rule AS r ON r.partner_id = p.id JOIN budget_plan AS b ON b.partner_id = p.id
        """,
        f"""
        CREATE TEMP TABLE month ON COMMIT DROP AS
        SELECT id - {first_period} AS number, id AS period_id, opens_at, (closes_at - opens_at) / {per_period} AS step
          FROM period WHERE id BETWEEN {first_period} AND {first_period + periods - 1}
        """,
        # till_of is where the movement happens, issuer_of (of a burn) where the points of its lot were earned.
        f"""
        CREATE TEMP VIEW movement AS
        SELECT n, 1 + n % {members} AS account_id, n / {members} % 10 = 9 AS is_burn,
               n / {members} % 10 = 8 AND n + {members} < {rows} AS is_used,
               n * {IDS_PER_ROW} + 1 AS command_id, n * {IDS_PER_ROW} + 2 AS transaction_id,
               n * {IDS_PER_ROW} + 3 AS lot_id, n * {IDS_PER_ROW} + 4 AS use_id, 10 + n % 90 AS points,
               m.period_id, m.number * {PARTNERS} + till_of.number + 1 AS budget_id,
               m.opens_at + m.step * (n % {per_period}) AS at, till_of.*, issuer_of.partner_id AS issuer_id,
               issuer_of.issue_price_micro AS lot_price_micro
          FROM generate_series(0::bigint, {per_period * periods - 1}) AS n
          JOIN month AS m ON m.number = n / {per_period}
          JOIN till AS till_of ON till_of.number = (n + n / {members}) % {PARTNERS}
          JOIN till AS issuer_of ON issuer_of.number = (n + (n - {members}) / {members}) % {PARTNERS}
        """,
        f"""
        INSERT INTO command (id, partner_id, idempotency_key, fingerprint, kind, account_id, member_id, store_id,
            reference, reference_unique, channel, amount_minor, eligible_minor, lines, points, whole, reverses_id,
            reason, input_digest, created_member, declined_points, occurred_at, recorded_at, period_id)
        SELECT id, partner_id, idempotency_key, {FINGERPRINT_SQL}, kind, account_id, member_id, store_id,
            reference, true, channel, amount_minor, amount_minor, lines, points, false, reverses_id,
            reason, input_digest, false, 0, occurred_at, occurred_at, period_id
          FROM (SELECT command_id AS id, partner_id, 'key-' || n AS idempotency_key, account_id,
                       CASE WHEN is_burn THEN 'BURN' ELSE 'EARN' END AS kind, account_id AS member_id, store_id,
                       'receipt-' || n AS reference, 'STORE' AS channel,
                       CASE WHEN NOT is_burn THEN points * 100 END AS amount_minor, NULL AS lines,
                       CASE WHEN is_burn THEN {BURN_POINTS} END AS points, false AS whole, NULL::bigint AS reverses_id,
                       NULL AS reason, NULL AS input_digest, at AS occurred_at, period_id
                  FROM movement) AS c
        """,
        f"""
        INSERT INTO transaction ({columns}, row_hash)
        SELECT {columns}, {row_hash_sql(HASHED_TRANSACTION_COLUMNS, "new")}
          FROM (SELECT {typed} FROM ({_movement_rows()}) AS untyped) AS new
        """,
        f"""
        INSERT INTO lot (account_id, id, transaction_id, issuer_id, funder_id, terms_id, price_micro,
            breakage_share_ppm, granted, remaining, earned_at, expires_at)
        SELECT account_id, lot_id, transaction_id, partner_id, partner_id, terms_id, issue_price_micro,
               breakage_share_ppm, points, CASE WHEN is_used THEN points - {BURN_POINTS} ELSE points END, at,
               at + interval '24 months'
          FROM movement WHERE NOT is_burn
        """,
        f"""
        INSERT INTO lot_use (account_id, id, lot_id, transaction_id, kind, points, period_id, issuer_id, funder_id,
            redeemer_id, price_micro)
        SELECT account_id, use_id, (n - {members}) * {IDS_PER_ROW} + 3, transaction_id, 'BURN', {BURN_POINTS},
               period_id, issuer_id, issuer_id, partner_id, lot_price_micro
          FROM movement WHERE is_burn
        """,
        """
        INSERT INTO account (id, available, next_expires_at)
        SELECT account_id, sum(remaining), min(expires_at) FROM lot GROUP BY account_id
        """,
        """
        INSERT INTO member (id, account_id, enrolled_at, partner_id, store_id)
        SELECT a.id, a.id, p.opens_at, 0, 0 FROM account AS a CROSS JOIN
               (SELECT min(opens_at) AS opens_at FROM period) AS p
        """,
        """
        INSERT INTO member_identifier (kind, value, member_id, partner_id)
        SELECT 'card', 'card-' || id - 1, id, 0 FROM account
        """,
        f"""
        INSERT INTO budget (id, plan_id, partner_id, period_id, limit_micro, overdraft_micro, consumed_micro)
        SELECT m.number * {PARTNERS} + till.number + 1, till.plan_id, till.partner_id, m.period_id, till.limit_micro, 0,
               coalesce(drawn.micro, 0)
          FROM month AS m CROSS JOIN till LEFT JOIN
               (SELECT budget_id, sum(budget_micro) AS micro FROM transaction GROUP BY budget_id) AS drawn
               ON drawn.budget_id = m.number * {PARTNERS} + till.number + 1
        """,
        f"SELECT setval('ledger_id', {(rows * IDS_PER_ROW // ID_BLOCK + 2) * ID_BLOCK})",
    ]


def _movement_rows() -> str:
    earned = "CASE WHEN NOT is_burn THEN"
    burned = "CASE WHEN is_burn THEN"
    return f"""
        SELECT account_id, transaction_id AS id, command_id, CASE WHEN is_burn THEN 'BURN' ELSE 'EARN' END AS kind,
               period_id, partner_id, partner_id AS party_id, {earned} partner_id END AS funder_id,
               {earned} partner_id END AS issuer_id, store_id,
               {burned} -{BURN_POINTS} ELSE points END AS points,
               {burned} {BURN_POINTS} ELSE points END AS requested_points, 0 AS shortfall_points,
               {earned} -points * issue_price_micro ELSE 0 END AS issue_value_micro,
               {earned} -points * service_fee_micro ELSE 0 END AS service_fee_micro,
               {burned} {BURN_POINTS} * reimbursement_micro ELSE 0 END AS reimbursement_micro,
               0 AS breakage_share_micro,
               {burned} -{BURN_POINTS} * lot_price_micro ELSE points * issue_price_micro END AS pool_value_micro,
               {earned} budget_id END AS budget_id,
               {earned} points * (issue_price_micro + service_fee_micro) ELSE 0 END AS budget_micro,
               terms_id, {earned} rule_id END AS rule_id, {earned} lot_id END AS lot_id,
               NULL AS reverses_id, NULL AS reverses_period_id, at AS occurred_at, at AS recorded_at
          FROM movement
    """


GROUPS_SQL = """
SELECT period_id, kind, party_id, count(*) AS entries, sum(points) AS points, sum(issue_value_micro) AS issue,
       sum(service_fee_micro) AS fee, sum(reimbursement_micro) AS reimbursement, sum(breakage_share_micro) AS breakage,
       sum(pool_value_micro) AS pool, sum(row_hash) AS hash_sum
  FROM transaction GROUP BY period_id, kind, party_id
"""


async def _position_changes(connection: AsyncConnection) -> list[tuple[int, Contribution]]:
    return [
        (row.period_id, part)
        for row in await connection.execute(text(GROUPS_SQL))
        for part in contributions(MovementSums(MovementKind(row.kind), row.party_id, False, *map(int, row[3:])))
    ]

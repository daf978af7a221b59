"""Reads what performance reports sum up: stored facts of closed periods, and the ledger itself for the others.

A closed period never changes, so its facts are stored once, by the first report after the close. Whatever is not stored
is computed from the rows of its period, so that a report is exact at every moment and for what is booked late.

Facts name members as they were; who stands for whom is looked up when a report is read, since merges come later and may
be undone. Two members who are one person count as the one who stands for both, new where that one was enrolled.

This is the one place where facts of all partners meet: it reads as the operator, since whether a member was active at a
rival is in the rival's rows, and answers sums only, after ``performance`` took out what the viewer may not know.
"""

from datetime import date, timedelta

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.database import PERFORMANCE_LOCK_CLASS, Database
from domain.periods import local_midnight
from domain.terms import Programme
from domain.values import OPERATOR_ID
from settlement.performance import Cell, Members, Performance, Totals, performance

Parameters = dict[str, object]

TOTAL_COLUMNS = "partner_id, day, period_id, purchases, sales_minor, issued, reversed, burned, restored, charge_micro"
ACTIVITY_COLUMNS = "partner_id, day, member_id, period_id, purchases, first_at, last_at"
BURN_COLUMNS = "redeemer_id, issuer_id, day, account_id, period_id, points, value_micro, issue_value_micro"

PERIODS = "ANY(CAST(:period_ids AS integer[]))"

# The facts of some periods, out of the ledger: what is stored for a closed period and read afresh for an open one.
TOTALS_OF_PERIODS = f"""
    SELECT partner_id, CAST(occurred_at AT TIME ZONE CAST(:zone AS text) AS date) AS day, period_id,
           sum(purchases) AS purchases, sum(sales_minor) AS sales_minor, sum(issued) AS issued,
           sum(reversed) AS reversed, sum(burned) AS burned, sum(restored) AS restored,
           sum(charge_micro) AS charge_micro
      FROM (SELECT c.partner_id, c.occurred_at, c.period_id, CASE WHEN c.kind = 'EARN' THEN 1 ELSE 0 END AS purchases,
                   CASE WHEN c.kind = 'EARN' THEN c.amount_minor ELSE -coalesce(c.amount_minor, 0) END AS sales_minor,
                   0 AS issued, 0 AS reversed, 0 AS burned, 0 AS restored, 0 AS charge_micro
              FROM command AS c
             WHERE c.period_id = {PERIODS} AND c.kind IN ('EARN', 'REVERSAL')
             UNION ALL
            SELECT t.partner_id, t.occurred_at, t.period_id, 0, 0,
                   CASE WHEN t.kind IN ('EARN', 'CONFIRM') THEN t.points ELSE 0 END,
                   CASE WHEN t.kind IN ('EARN_REVERSAL', 'OVERDRAW') THEN -t.points ELSE 0 END,
                   CASE WHEN t.kind IN ('BURN', 'CAPTURE') THEN -t.points ELSE 0 END,
                   CASE WHEN t.kind = 'BURN_REVERSAL' THEN t.points ELSE 0 END, 0
              FROM transaction AS t
             WHERE t.period_id = {PERIODS}
               AND t.kind IN ('EARN', 'CONFIRM', 'EARN_REVERSAL', 'OVERDRAW', 'BURN', 'CAPTURE', 'BURN_REVERSAL')
             UNION ALL
            SELECT t.party_id, t.occurred_at, t.period_id, 0, 0, 0, 0, 0, 0, -t.issue_value_micro - t.service_fee_micro
              FROM transaction AS t
             WHERE t.period_id = {PERIODS} AND t.kind IN ('EARN', 'CONFIRM') AND t.party_id <> 0) AS fact
     GROUP BY 1, 2, 3"""  # noqa: S608 (a constant)
ACTIVITY_OF_PERIODS = f"""
    SELECT c.partner_id, CAST(c.occurred_at AT TIME ZONE CAST(:zone AS text) AS date) AS day, c.member_id, c.period_id,
           count(*) AS purchases, min(c.occurred_at) AS first_at, max(c.occurred_at) AS last_at
      FROM command AS c
     WHERE c.period_id = {PERIODS} AND c.kind = 'EARN'
     GROUP BY 1, 2, 3, 4"""  # noqa: S608 (a constant)
BURNS_OF_PERIODS = f"""
    SELECT u.redeemer_id, u.issuer_id, CAST(t.occurred_at AT TIME ZONE CAST(:zone AS text) AS date) AS day,
           u.account_id, u.period_id, sum(u.points) AS points,
           sum(u.points * (t.reimbursement_micro / -t.points)) AS value_micro,  -- a whole price per point
           sum(u.points * u.price_micro) AS issue_value_micro
      FROM transaction AS t
      JOIN lot_use AS u ON u.account_id = t.account_id AND u.transaction_id = t.id
     WHERE t.period_id = {PERIODS} AND t.kind IN ('BURN', 'CAPTURE')
     GROUP BY 1, 2, 3, 4, 5"""  # noqa: S608 (a constant)

UNSTORED_SQL = text(
    "SELECT p.id FROM period AS p LEFT JOIN performance_period AS s ON s.period_id = p.id"
    " WHERE s.period_id IS NULL AND p.state = ANY(CAST(:states AS text[])) ORDER BY p.id"
)
TAKE_TURN_SQL = text(f"SELECT pg_try_advisory_xact_lock({PERFORMANCE_LOCK_CLASS}, 0)")
CLAIM_PERIOD_SQL = text(
    "INSERT INTO performance_period (period_id) VALUES (:period_id) ON CONFLICT DO NOTHING RETURNING period_id"
)
STORE_SQLS = (
    text(f"INSERT INTO performance_total ({TOTAL_COLUMNS}) {TOTALS_OF_PERIODS}"),
    text(f"INSERT INTO performance_activity ({ACTIVITY_COLUMNS}) {ACTIVITY_OF_PERIODS}"),
    text(f"INSERT INTO performance_burn ({BURN_COLUMNS}) {BURNS_OF_PERIODS}"),
    text(
        f"""
        INSERT INTO performance_first AS f (member_id, partner_id, first_at)
        SELECT a.member_id, a.partner_id, min(a.first_at) FROM performance_activity AS a
         WHERE a.period_id = {PERIODS} GROUP BY 1, 2
            ON CONFLICT (member_id, partner_id) DO UPDATE SET first_at = least(f.first_at, excluded.first_at)
        """  # noqa: S608 (a constant)
    ),
)


def _totals_sql(whose: str) -> TextClause:
    return text(
        f"""
        WITH unstored AS MATERIALIZED ({TOTALS_OF_PERIODS})
        SELECT coalesce(sum(f.purchases), 0), coalesce(sum(f.sales_minor), 0), coalesce(sum(f.issued), 0),
               coalesce(sum(f.reversed), 0), coalesce(sum(f.burned), 0), coalesce(sum(f.restored), 0),
               coalesce(sum(f.charge_micro), 0)
          FROM (SELECT {TOTAL_COLUMNS} FROM performance_total
                 UNION ALL
                SELECT {TOTAL_COLUMNS} FROM unstored) AS f
         WHERE f.day BETWEEN :from_day AND :to_day AND {whose.format("f.partner_id")}
        """  # noqa: S608 (words of this module)
    )


def _members_sql(whose: str) -> TextClause:
    return text(
        f"""
        WITH unstored AS MATERIALIZED ({ACTIVITY_OF_PERIODS}),
        merged AS MATERIALIZED (SELECT id, merged_into FROM member WHERE merged_into IS NOT NULL),
        activity AS NOT MATERIALIZED (
            SELECT a.partner_id, coalesce(g.merged_into, a.member_id) AS member_id, a.purchases, a.last_at
              FROM (SELECT {ACTIVITY_COLUMNS} FROM performance_activity WHERE day BETWEEN :from_day AND :to_day
                     UNION ALL
                    SELECT {ACTIVITY_COLUMNS} FROM unstored WHERE day BETWEEN :from_day AND :to_day) AS a
              LEFT JOIN merged AS g ON g.id = a.member_id
        ),
        buyer AS MATERIALIZED (
            SELECT a.member_id, sum(a.purchases) AS purchases
              FROM activity AS a WHERE {whose.format("a.partner_id")} GROUP BY a.member_id
        ),
        own AS (
            SELECT b.member_id, b.member_id AS own_id FROM buyer AS b
             UNION ALL
            SELECT b.member_id, g.id FROM buyer AS b JOIN merged AS g ON g.merged_into = b.member_id
        ),
        beginning AS (
            SELECT member_id, partner_id, min(first_at) AS first_at,
                   min(min(first_at)) OVER (PARTITION BY member_id) AS anywhere_at
              FROM (SELECT own.member_id, f.partner_id, f.first_at
                      FROM performance_first AS f JOIN own ON own.own_id = f.member_id
                     UNION ALL
                    SELECT own.member_id, u.partner_id, u.first_at
                      FROM unstored AS u JOIN own ON own.own_id = u.member_id) AS known
             GROUP BY member_id, partner_id
        ),
        newcomer AS MATERIALIZED (
            SELECT m.id, m.partner_id, m.enrolled_at FROM member AS m
             WHERE m.merged_into IS NULL AND m.enrolled_at >= :from_at AND m.enrolled_at < :to_at
               AND {whose.format("m.partner_id")}
        )
        SELECT (SELECT count(*) FROM buyer), (SELECT count(*) FROM buyer WHERE purchases >= 2),
               (SELECT count(*) FROM newcomer),
               (SELECT count(DISTINCT n.id) FROM newcomer AS n JOIN activity AS a ON a.member_id = n.id
                 WHERE a.partner_id <> n.partner_id AND a.last_at >= n.enrolled_at),
               (SELECT count(DISTINCT b.member_id) FROM beginning AS b
                 WHERE b.first_at >= :from_at AND b.first_at < :to_at AND b.anywhere_at < b.first_at
                   AND {whose.format("b.partner_id")})
        """  # noqa: S608 (words of this module)
    )


def _matrix_sql(whose: str) -> TextClause:
    return text(
        f"""
        WITH unstored AS MATERIALIZED ({BURNS_OF_PERIODS}),
        merged AS MATERIALIZED (
            SELECT m.account_id, k.account_id AS kept_id FROM member AS m JOIN member AS k ON k.id = m.merged_into
        )
        SELECT f.issuer_id, f.redeemer_id, count(DISTINCT coalesce(g.kept_id, f.account_id)), sum(f.points),
               sum(f.value_micro), sum(f.issue_value_micro)
          FROM (SELECT {BURN_COLUMNS} FROM performance_burn
                 UNION ALL
                SELECT {BURN_COLUMNS} FROM unstored) AS f
          LEFT JOIN merged AS g ON g.account_id = f.account_id
         WHERE f.day BETWEEN :from_day AND :to_day AND {whose}
         GROUP BY f.issuer_id, f.redeemer_id
         ORDER BY f.issuer_id, f.redeemer_id
        """  # noqa: S608 (words of this module)
    )


ONE, ALL = "{} = CAST(:partner_id AS integer)", "true"
PARTNER_SQLS = (
    _totals_sql(ONE),
    _members_sql(ONE),
    _matrix_sql("CAST(:partner_id AS integer) IN (f.issuer_id, f.redeemer_id)"),
)
COALITION_SQLS = (_totals_sql(ALL), _members_sql(ALL), _matrix_sql(ALL))
PARTNER_IDS_SQL = text("SELECT id FROM partner")


async def performance_report(
    database: Database, programme: Programme, viewer_id: int, partner_id: int | None, from_day: date, to_day: date
) -> Performance:
    """What happened on the local days ``from_day`` to ``to_day``, both included, at one partner or (None) at all.

    The caller has checked that the viewer may ask: a partner about itself, the operator about any or all.
    """
    await store_closed_periods(database, programme)
    # One snapshot: a period that is stored meanwhile must not count twice, nor a purchase in one figure only.
    async with database.reading(OPERATOR_ID, "REPEATABLE READ") as connection:
        parameters: Parameters = {
            "period_ids": await _unstored(connection, ["OPEN", "CLOSING", "CLOSED"]),
            "zone": programme.timezone,
            "from_day": from_day,
            "to_day": to_day,
            "from_at": local_midnight(from_day, programme.zone),
            "to_at": local_midnight(to_day + timedelta(days=1), programme.zone),
        }
        if partner_id is not None:
            parameters["partner_id"] = partner_id
        totals_sql, members_sql, matrix_sql = COALITION_SQLS if partner_id is None else PARTNER_SQLS
        totals = (await connection.execute(totals_sql, parameters)).one()
        members = (await connection.execute(members_sql, parameters)).one()
        cells = [Cell(*map(int, row)) for row in await connection.execute(matrix_sql, parameters)]
        partner_ids = (await connection.execute(PARTNER_IDS_SQL)).scalars().all()
    found = (Totals(*map(int, totals)), Members(*map(int, members)), cells)
    return performance(viewer_id, partner_ids, found, programme.currency_digits)


async def store_closed_periods(database: Database, programme: Programme) -> None:
    """Stores the facts of closed periods that have none yet, one transaction each.

    Nobody waits for another process that is at it: what is not stored is computed.
    """
    async with database.reading(OPERATOR_ID) as connection:
        period_ids = await _unstored(connection, ["CLOSED"])
    for period_id in period_ids:
        async with database.posting() as connection:
            if not (await connection.execute(TAKE_TURN_SQL)).scalar_one():
                return
            claimed = await connection.execute(CLAIM_PERIOD_SQL, {"period_id": period_id})
            if claimed.one_or_none() is not None:
                for statement in STORE_SQLS:
                    await connection.execute(statement, {"period_ids": [period_id], "zone": programme.timezone})


async def _unstored(connection: AsyncConnection, states: list[str]) -> list[int]:
    return list((await connection.execute(UNSTORED_SQL, {"states": states})).scalars())

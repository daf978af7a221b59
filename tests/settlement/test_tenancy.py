"""Invariant 19: what the reading role shows a partner, when somebody opens a policy, and when nobody did."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from domain.database import Database
from domain.errors import Refused
from settlement.closing import close_period
from settlement.tenancy import AT_A_CLOSE, OPEN_TABLES, OWN_ROWS, WHEN_VERIFYING, Extent, check_tenancy
from settlement.verifying import verify
from tests.settlement.rows import noon
from tests.settlement.test_closing import At
from tests.settlement.worked_example import Example

Tamper = Callable[[str], Awaitable[None]]

IN_APRIL = noon(2017, 4, 1)
FUNDED_BY_A = """
    INSERT INTO campaign (code, name, valid, partner_ids, bonus_points, min_amount_micro, include_categories,
                          include_products, funder_ids, shares_ppm)
    VALUES ('a', 'a', '[2017-03-01,2017-04-01)', '{2}', 1, 0, '{}', '{}', '{1}', '{1000000}'),
           ('ab', 'ab', '[2017-03-01,2017-04-01)', '{3}', 1, 0, '{}', '{}', '{1,2}', '{500000,500000}')
"""
OWN_BUDGETS = """
    INSERT INTO budget_plan (campaign_id, valid, per_period, limit_micro, overdraft_micro, on_limit, after_period,
                             funding)
    SELECT id, '[2017-03-01,)', false, 1, 0, 'DECLINE', 'CREDIT_CURRENT', 'POSTPAID' FROM campaign
"""
WINDOWS = """
    INSERT INTO budget (id, plan_id, partner_id, period_id, limit_micro, overdraft_micro)
    SELECT -id, id, 0, 0, 1, 0 FROM budget_plan WHERE campaign_id IS NOT NULL
"""
FUNDED_ELSEWHERE = "UPDATE transaction SET party_id = 2 WHERE kind = 'EARN' AND points = 18518"


async def tried(database: Database, extent: Extent = AT_A_CLOSE, seed: int = 1) -> tuple[bool, str]:
    """Whether invariant 19 holds, and what it says."""
    async with database.posting("REPEATABLE READ") as connection:
        found = await check_tenancy(database, connection, seed, extent)
    assert found.number == 19
    return found.holds, found.detail


async def test_each_partner_reads_its_own_rows(database: Database, booked_march: Example, tamper: Tamper) -> None:
    for statement in (FUNDED_BY_A, OWN_BUDGETS, WINDOWS, FUNDED_ELSEWHERE):
        await tamper(statement)
    holds, detail = await tried(database, WHEN_VERIFYING)
    async with database.posting() as connection:
        rows, tables = 0, await bounded(database)
        for name in tables:
            own = OWN_ROWS.get(name, "partner_id = v.viewer")
            count = f"SELECT count(*) FROM {name} AS r CROSS JOIN (VALUES (1), (2), (3)) AS v (viewer) WHERE {own}"
            rows += (await connection.execute(text(count))).scalar_one()
    assert (holds, detail) == (True, f"tried as 3 of 3 partners: {rows} rows of {len(tables)} tables, each its own")
    assert rows > 50
    assert {"command", "dispute", "float_use", "hold", "payment", "statement", "statement_line"} < tables


async def bounded(database: Database) -> set[str]:
    """The tables of which the reading role may see columns that name partners, without those open to all."""
    async with database.posting() as connection:
        names = await connection.execute(
            text(
                "SELECT DISTINCT c.table_name FROM information_schema.columns AS c JOIN information_schema.tables AS t"
                " USING (table_schema, table_name) WHERE t.table_type = 'BASE TABLE'"
                " AND c.column_name IN ('partner_id', 'party_id', 'funder_id', 'issuer_id', 'redeemer_id',"
                " 'funder_ids', 'partner_ids')"
            )
        )
    return {name for (name,) in names} - {"lot", "oauth_client", *OPEN_TABLES}


NEW_TABLE = """
    CREATE TABLE rebate (issuer_id integer); GRANT SELECT ON rebate TO coalition_reading;
    ALTER TABLE rebate ENABLE ROW LEVEL SECURITY
"""
OPENED = {
    "a policy says yes to all": (
        "ALTER POLICY own_rows ON statement_line USING (true)",
        "policy own_rows of table statement_line asks nothing about the viewer",
    ),
    "a policy asks, and says yes to all": (
        "ALTER POLICY own_rows ON lot_use USING ((SELECT viewer()) IS NOT NULL)",
        "rows of table lot_use that are not its own",
    ),
    "one more policy lets one partner in": (
        "CREATE POLICY friend ON command FOR SELECT TO coalition_reading USING (viewer() = 2)",
        "partner B reads 10 rows of table command that are not its own",
    ),
    "row security is off": (
        "ALTER TABLE transaction DISABLE ROW LEVEL SECURITY",
        "table transaction names partners, and the reading role sees its funder_id, issuer_id, partner_id, party_id",
    ),
    "columns of lots are granted": (
        "GRANT SELECT (issuer_id, price_micro) ON lot TO coalition_reading",
        "table lot names partners, and the reading role sees its issuer_id, price_micro without a policy",
    ),
    "a table is new": (
        NEW_TABLE,
        "table rebate names partners, and no rule says whose rows they are",
    ),
    "a view reads as its owner": (
        "ALTER VIEW ledger_entry SET (security_invoker = false)",
        "view ledger_entry is read with the rights of its owner",
    ),
    "everybody is the operator": (
        "CREATE OR REPLACE FUNCTION viewer() RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT 0'",
        "partner C reads 11 rows of table position that are not its own",
    ),
}


@pytest.mark.parametrize(("change", "place"), OPENED.values(), ids=list(OPENED))
async def test_what_opens_a_policy_is_named_and_nothing_closes(
    database: Database, at: At, booked_march: Example, tamper: Tamper, change: str, place: str
) -> None:
    assert (await tried(database))[0]
    for statement in change.split(";"):
        await tamper(statement)
    with pytest.raises(Refused) as refused:
        await close_period(database, at(IN_APRIL), "2017-03", "close")
    assert "2017-03 stays CLOSING. Invariant 19 (" in refused.value.message
    assert place in refused.value.message
    failed = [check for check in (await verify(database, at(IN_APRIL))).checks if not check.holds]
    assert [check.number for check in failed] == [19]
    assert place in failed[0].detail


async def test_a_role_that_passes_by_policies_is_named(
    database: Database, booked_march: Example, tamper: Tamper
) -> None:
    try:
        await tamper("ALTER ROLE coalition_reading BYPASSRLS")
        holds, detail = await tried(database)
    finally:
        await tamper("ALTER ROLE coalition_reading NOBYPASSRLS")
    assert not holds
    assert "role coalition_reading passes by policies" in detail
    assert "rows of table statement" not in detail, "nothing is closed yet"
    assert "rows of table transaction that are not its own" in detail


async def test_a_close_tries_some_partners_and_some_pages(
    database: Database, booked_march: Example, tamper: Tamper
) -> None:
    await tamper(
        "INSERT INTO partner_entry (id, period_id, partner_id, kind, amount_micro, recorded_at, row_hash)"
        " SELECT -n, 24206, 1 + n % 3, 'PAYMENT', n, now(), n FROM generate_series(1, 20000) AS n"
    )
    read = []
    for seed in range(3):
        holds, detail = await tried(database, Extent(1, 16), seed)
        assert holds, detail
        read.append(int(detail.split()[6]))
    # 16 pages of about 80 rows each, a third of which are the one partner's.
    assert 100 < min(read) < max(read) < 1_000, read
    await tamper("ALTER POLICY own_rows ON partner_entry USING ((SELECT viewer()) IS NOT NULL)")
    for seed in range(3):
        holds, detail = await tried(database, Extent(1, 16), seed)
        assert "rows of table partner_entry that are not its own" in detail

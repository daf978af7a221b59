"""Seals: who changes, adds or takes away a row beside the application is found, also after the application wrote it."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import URL, text

from domain.commands import Posted
from domain.database import Database
from domain.positions import LineKind
from settlement.verifying import verify
from tests.conftest import run_as_superuser
from tests.domain.coalitions import coalition, partner
from tests.domain.tills import Till, till_on

Tamper = Callable[[str], Awaitable[None]]


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    """A household of two, and points that roll."""
    async with till_on(
        database, coalition(partner("grocer", starts="2017-03-01"), expiry="rolling", expiry_months=12)
    ) as opened:
        await opened.enrolled("card-1", "card-2", "card-3")
        founded = await opened.accept(opened.founding("f1", "card-1"))
        assert isinstance(founded, Posted)
        pool_id = await opened.one("SELECT id FROM pool")
        await opened.accept(opened.joining("j1", pool_id, "card-2", burn_limit=50))
        await opened.accept(opened.purchase("k1", "100.00"))
        yield opened


async def failing(till: Till) -> dict[int, str]:
    report = await verify(till.database, till.clock)
    return {check.number: check.detail for check in report.checks if not check.holds}


async def test_an_update_by_the_application_seals_nothing_that_was_changed_before(till: Till, tamper: Tamper) -> None:
    """Of the place in the household, and of the lot, other columns are written afterwards."""
    await tamper("UPDATE pool_member SET burn_limit = 5000 WHERE burn_limit = 50")
    await tamper("UPDATE lot SET expires_at = expires_at + interval '9 years'")
    place = await till.one("SELECT command_id FROM pool_member WHERE burn_limit = 5000")
    lot_id = await till.one("SELECT id FROM lot")
    await till.accept(till.leaving("l1", "card-2"))
    await till.accept(till.burn("b1", 10))
    failed = await failing(till)
    assert set(failed) == {2, 3}
    assert failed[2].startswith(f"lot {lot_id} of account")
    assert "was altered" in failed[2]
    assert failed[3] == f"pool_member {place} was changed: burn_limit"


async def test_whoever_is_not_the_posting_role_seals_nothing(till: Till, database_url: URL) -> None:
    """With every trigger awake."""
    member = till.members["card-3"].member_id
    [(kind, digest)] = await till.rows(
        "SELECT kind, encode(sha256(convert_to(value, 'UTF8')), 'hex') FROM member_identifier WHERE member_id = :id",
        id=member,
    )
    await run_as_superuser(
        database_url,
        "INSERT INTO early_reversal (id, partner_id, idempotency_key, fingerprint, original_key, store_id, occurred_at,"
        " recorded_at, expires_at) VALUES (7, 1, 'key', '', 'k1', 0, '2017-03-15', '2017-03-15', '2017-04-15')",
        "UPDATE terms SET pending_days = 3",
        f"DELETE FROM member_identifier WHERE member_id = {member}",
    )
    assert await failing(till) == {
        3: f"member_identifier {kind} {digest} is gone",
        10: "terms 1 was changed: pending_days",
        12: "early_reversal 7 was not written by the application",
    }


async def test_a_table_that_is_sealed_no_more_is_named(till: Till, tamper: Tamper) -> None:
    await tamper("DELETE FROM sealed_table WHERE relation = 'payment'")
    assert await failing(till) == {16: "payment is no sealed table any more"}


@pytest.mark.parametrize(
    ("constraint", "operators_own"),
    [("position_kind", True), ("statement_line_kind", False), ("statement_tax_kind", False)],
)
async def test_a_kind_of_line_that_does_not_exist_cannot_be_written_by_anybody(
    database: Database, constraint: str, operators_own: bool
) -> None:
    """Verification would have no name for it, and constraints hold for superusers with triggers asleep, too."""
    async with database.reading(0) as connection:
        defined = text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name")
        said = (await connection.execute(defined, {"name": constraint})).scalar_one()
    on_no_statement = {LineKind.POOL, LineKind.SUBSIDY, LineKind.MEMBER_RECEIVABLE}
    assert set(re.findall("'([A-Z_]+)'", said)) == set(LineKind) - (set() if operators_own else on_no_statement)

"""Held and captured points in the month end: the matrix, the statement line, and invariant 17 when it is broken."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from domain.database import Database
from domain.values import OPERATOR_ID
from settlement.closing import close_period
from settlement.reading import period_by_label
from settlement.verifying import verify
from tests.domain.coalitions import coalition, partner
from tests.domain.tills import Till, till_on

Tamper = Callable[[str], Awaitable[None]]


TWO = coalition(partner("grocer", starts="2017-03-01"), partner("fuel", starts="2017-03-01"))


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    """March: 200 points; one hold captured in part, one voided, one timed out, one open."""
    async with till_on(database, TWO) as opened:
        await opened.enrolled("card-1")
        await opened.accept(opened.purchase("k1", "150.00"))
        await opened.accept(opened.purchase("k2", "50.00", partner="fuel"))
        for key, points in (("captured", 60), ("voided", 30), ("expired", 20)):
            await opened.accept(opened.authorization(key, points, partner="fuel"))
        await opened.accept(opened.capture("c", "captured", 45, partner="fuel"))
        await opened.accept(opened.void("v", "voided", partner="fuel"))
        opened.clock.forward(days=7)
        await opened.accept(opened.authorization("open", 100, partner="fuel"))
        yield opened


async def failing(till: Till) -> dict[int, str]:
    """The invariants that do not hold, with what they say."""
    report = await verify(till.database, till.clock)
    return {check.number: check.detail for check in report.checks if not check.holds}


async def test_the_books_close_with_holds_in_every_state(till: Till) -> None:
    assert await till.rows("SELECT state, captured, released FROM hold ORDER BY id") == [
        ("CAPTURED", 45, 15),
        ("VOIDED", 0, 30),
        ("EXPIRED", 0, 20),
        ("OPEN", 0, 0),
    ]
    till.clock.now += timedelta(days=20)
    await close_period(till.database, till.clock, "2017-03", "close")
    assert await failing(till) == {}
    # 45 x 0.0090 to the fuel station; what is held is still in the pool.
    assert await till.rows(
        "SELECT partner_id, points, exact_micro FROM statement_line WHERE kind = 'REIMBURSEMENT'"
    ) == [(till.id_of("fuel"), 45, 405_000)]
    period = await period_by_label(till.database, OPERATOR_ID, "2017-03")
    assert period is not None
    assert await till.one("SELECT pool_micro FROM period WHERE label = '2017-03'") == 155 * 10_000


BROKEN = {
    "a hold claims more": ("UPDATE hold SET points = points + 1 WHERE state = 'OPEN'", {17}, "(OPEN): 101 held"),
    "a hold forgets its capture": (
        "UPDATE hold SET captured = 44, released = 16 WHERE state = 'CAPTURED'",
        {17},
        "(CAPTURED): 60 held, 44 captured, 16 released; its movements hold 60, capture 45, release 15",
    ),
    "a void is forgotten": (
        "UPDATE hold SET state = 'OPEN', released = 0 WHERE state = 'VOIDED'",
        {17},
        "(OPEN): 30 held, 0 captured, 0 released; its movements hold 30, capture 0, release 30",
    ),
    "an open hold is gone": ("DELETE FROM hold WHERE state = 'OPEN'", {17}, "its movements hold 100"),
    "points are reserved by nobody": (
        "UPDATE lot SET reserved = reserved + 1, remaining = remaining - 1 WHERE reserved > 0 AND remaining > 0",
        {2, 3},
        "reserved 101",
    ),
    "a use of a capture names another redeemer": (
        "UPDATE lot_use SET redeemer_id = 1 WHERE kind = 'CAPTURE'",
        {7, 13},
        "CAPTURE at partner 1: uses and transactions differ by 45 points",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_hold_is_found_and_named(till: Till, tamper: Tamper, name: str) -> None:
    sql, numbers, place = BROKEN[name]
    assert await failing(till) == {}
    await tamper("ALTER TABLE hold DROP CONSTRAINT hold_resolves_once")
    await tamper(sql)
    failed = await failing(till)
    assert set(failed) == numbers, failed
    assert place in " ".join(failed.values()), failed

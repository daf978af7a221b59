"""What holds give back for returns, in the month end: beside the shortfall of a closed month, and when it is forged."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from domain.database import Database
from domain.ledger import HASHED_TRANSACTION_COLUMNS, row_hash_sql
from domain.positions import LineKind
from domain.values import OPERATOR_ID
from settlement.closing import close_period
from settlement.prior_periods import PriorPart, prior_periods_of_statements
from settlement.reading import statements_of_periods
from settlement.verifying import verify
from tests.domain.books import check_books
from tests.domain.coalitions import coalition, partner
from tests.domain.tills import APRIL, MARCH, Till, till_on

Tamper = Callable[[str], Awaitable[None]]
TWO = coalition(partner("grocer", starts="2017-03-01"), partner("fuel", starts="2017-03-01", hold_minutes=60 * 24 * 60))
LINES = """
    SELECT kind, points, exact_micro, prior_exact_micro FROM statement_line
     WHERE period_id = :id AND partner_id = 1 ORDER BY kind
"""


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    """March: 100 points, 80 of them held, all goods returned."""
    async with till_on(database, TWO) as opened:
        await opened.enrolled("card-1")
        await opened.accept(opened.purchase("k", "100.00"))
        await opened.accept(opened.authorization("a", 80, partner="fuel"))
        await opened.accept(opened.reversal("v", "k"))
        yield opened


async def failing(till: Till) -> dict[int, str]:
    """The invariants that do not hold, with what they say."""
    report = await verify(till.database, till.clock)
    return {check.number: check.detail for check in report.checks if not check.holds}


async def test_made_good_after_the_close_of_the_return(till: Till) -> None:
    till.clock.now += timedelta(days=20)
    await close_period(till.database, till.clock, "2017-03", "close-1")
    await till.accept(till.capture("c", "a", 30, partner="fuel"))
    by_period = await statements_of_periods(till.database, OPERATOR_ID, [MARCH, APRIL])
    drafts = [one for statements in by_period.values() for one in statements if one.partner_id == 1]
    said = {one.period_id: (one.shortfall_points, one.shortfall_value_micro) for one in drafts}
    assert said == {MARCH: (80, 800_000), APRIL: (-50, -500_000)}

    till.clock.to(2017, 5, 2)
    await close_period(till.database, till.clock, "2017-04", "close-2")
    # 20 in March; of the 80 that were held 30 are spent, and 50 are April's, of March's purchase.
    assert await till.rows(LINES, id=MARCH) == [
        ("EARN_REVERSAL", 20, 200_000, 0),
        ("ISSUE", 100, -1_000_000, 0),
        ("SERVICE_FEE", 100, -100_000, 0),
        ("SERVICE_FEE_REFUND", 20, 20_000, 0),
    ]
    assert await till.rows(LINES, id=APRIL) == [
        ("EARN_REVERSAL", 50, 500_000, 500_000),
        ("SERVICE_FEE_REFUND", 50, 50_000, 50_000),
    ]
    assert await till.rows(
        "SELECT period_id, shortfall_points, shortfall_value_micro FROM statement WHERE partner_id = 1 ORDER BY 1"
    ) == [(MARCH, 80, 800_000), (APRIL, -50, -500_000)]
    parts = await prior_periods_of_statements(till.database, OPERATOR_ID, [(APRIL, 1)])
    assert parts[(APRIL, 1)] == [
        PriorPart(LineKind.EARN_REVERSAL, MARCH, 500_000),
        PriorPart(LineKind.SERVICE_FEE_REFUND, MARCH, 50_000),
    ]
    assert await failing(till) == {}
    await check_books(till.database)


REHASHED = f"row_hash = {row_hash_sql(HASHED_TRANSACTION_COLUMNS, 'transaction')}"
FORGED = {
    "more came back than holds brought": "UPDATE recall SET taken_points = taken_points - 1 WHERE taken_points > 0",
    "a hold brought what nobody took": "UPDATE recall SET taken_points = taken_points + 1 WHERE taken_points > 0",
    "what was noted is gone": "DELETE FROM recall",
    "a shortfall was made good by nothing": "UPDATE transaction SET shortfall_points = -1 WHERE kind = 'EARN_REVERSAL'"
    " AND shortfall_points > 0",
}


@pytest.mark.parametrize("forged", FORGED)
async def test_a_verification_finds_it(till: Till, tamper: Tamper, forged: str) -> None:
    await till.accept(till.void("w", "a", partner="fuel"))
    assert await failing(till) == {}
    await tamper(FORGED[forged])
    await tamper(f"UPDATE transaction SET {REHASHED} WHERE kind = 'EARN_REVERSAL'")
    assert "points made good, holds brought" in (await failing(till)).get(10, "")


async def test_the_database_takes_nothing_twice_from_a_hold(till: Till) -> None:
    await till.accept(till.void("w", "a", partner="fuel"))
    with pytest.raises(Exception, match="recall of hold"):
        await till.rows("UPDATE recall SET taken_points = 79 RETURNING hold_id")
    with pytest.raises(Exception, match="permission denied"):
        await till.rows("DELETE FROM recall RETURNING hold_id")

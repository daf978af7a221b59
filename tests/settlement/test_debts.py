"""Balances below zero in the month end: what members owe is neither pool nor margin, and a broken debt is found."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, timedelta

import pytest

from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.ledger import HASHED_TRANSACTION_COLUMNS, row_hash_sql
from domain.positions import LineKind
from domain.values import OPERATOR_ID
from settlement.budget_uses import budgets_of_statements
from settlement.closing import close_period
from settlement.performance_reading import performance_report
from settlement.prior_periods import PriorPart, prior_periods_of_statements
from settlement.reading import PeriodFigures, period_by_label, period_figures
from settlement.verifying import verify
from tests.domain.books import check_books
from tests.domain.coalitions import coalition, partner
from tests.domain.tills import APRIL, MARCH, Till, till_on

Tamper = Callable[[str], Awaitable[None]]

FUEL = {"issue_price": "0.010500", "service_fee": "0.001200", "reimbursement": "0.009200"}
TWO = coalition(
    partner("grocer", starts="2017-03-01"),
    partner("fuel", starts="2017-03-01", terms=FUEL),
    claw_back="negative_balance",
)
LINES = """
    SELECT partner_id, kind, points, exact_micro, prior_exact_micro FROM statement_line
     WHERE period_id = :id ORDER BY partner_id, kind
"""


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    """March: 100 points of the grocer, burned at the fuel station, and goods of 90 returned. April: 60 earned back."""
    async with till_on(database, TWO) as opened:
        await opened.enrolled("card-1", "card-2")
        await opened.accept(opened.purchase("k1", "100.00"))
        await opened.accept(opened.burn("b1", 100, partner="fuel"))
        await opened.accept(opened.reversal("v1", "k1", amount="90.00"))
        yield opened


async def april(till: Till) -> None:
    till.clock.to(2017, 4, 5)
    await till.accept(till.purchase("k2", "60.00", partner="fuel"))
    await till.accept(till.reversal("v2", "k1"))


async def failing(till: Till) -> dict[int, str]:
    """The invariants that do not hold, with what they say."""
    report = await verify(till.database, till.clock)
    return {check.number: check.detail for check in report.checks if not check.holds}


async def closed(till: Till, label: str) -> dict[int, str]:
    """Closes a period; answers what its certificate says of each invariant."""
    await close_period(till.database, till.clock, label, f"close-{label}")
    period = await period_by_label(till.database, OPERATOR_ID, label)
    assert period is not None
    assert period.certificate is not None
    assert all(check.holds for check in period.certificate.checks)
    return {check.number: check.detail for check in period.certificate.checks}


async def test_what_members_owe_is_told_apart_from_pool_and_margin(till: Till) -> None:
    # Grocer: 1.00 + 0.10 charged, 0.90 + 0.09 credited; fuel station: 0.92 reimbursed. The pool got 1.00 and gave 1.00.
    draft = {MARCH: PeriodFigures(-81, 0, 90_000, 0, 900_000, 0, is_draft=True)}
    assert await period_figures(till.database, [MARCH]) == draft
    till.clock.now += timedelta(days=20)
    said = await closed(till, "2017-03")
    assert said[3] == "2 accounts hold 0 points, members owe 90"
    assert said[4] == "0 opening + 100 issued + 0 restored - 100 burned - 0 reversed - 0 expired = 0 closing"
    assert said[6] == "operator net -0.810000 = pool change 0.000000 + margin 0.090000 - 0.900000 owed"
    assert await till.rows(LINES, id=MARCH) == [
        (1, "EARN_REVERSAL", 90, 900_000, 0),
        (1, "ISSUE", 100, -1_000_000, 0),
        (1, "SERVICE_FEE", 100, -100_000, 0),
        (1, "SERVICE_FEE_REFUND", 90, 90_000, 0),
        (2, "REIMBURSEMENT", 100, 920_000, 0),
    ]
    assert await period_figures(till.database, [MARCH]) == {
        MARCH: PeriodFigures(-81, 0, 90_000, 0, 900_000, 0, is_draft=False)
    }

    await april(till)
    till.clock.to(2017, 5, 2)
    said = await closed(till, "2017-04")
    # 60 are charged to the fuel station at 0.0105 and leave the pool again for a debt at 0.0100: 0.03 of spread, and
    # 10 more are owed. The last 10 of the March purchase came back: of a closed period, at its terms.
    assert said[3] == "2 accounts hold 0 points, members owe 40"
    assert said[4] == (
        "0 opening + 60 issued + 0 restored - 0 burned - 0 reversed - 0 expired - 60 paid back = 0 closing"
    )
    assert said[6] == "operator net 0.590000 = pool change 0.000000 + margin 0.090000 - -0.500000 owed"
    assert await till.rows(LINES, id=APRIL) == [
        (1, "EARN_REVERSAL", 10, 100_000, 100_000),
        (1, "SERVICE_FEE_REFUND", 10, 10_000, 10_000),
        (2, "ISSUE", 60, -630_000, 0),
        (2, "SERVICE_FEE", 60, -72_000, 0),
    ]
    assert await failing(till) == {}
    await check_books(till.database)


async def test_reports_and_statements_count_what_is_owed_as_returned(till: Till) -> None:
    await april(till)
    budgets = await budgets_of_statements(till.database, OPERATOR_ID, [(MARCH, 1), (APRIL, 1)])
    assert [[use.drawn_micro for use in budgets[(period_id, 1)]] for period_id in (MARCH, APRIL)] == [
        [10 * 11_000],
        [-10 * 11_000],
    ]
    parts = await prior_periods_of_statements(till.database, OPERATOR_ID, [(APRIL, 1)])
    assert parts[(APRIL, 1)] == [
        PriorPart(LineKind.EARN_REVERSAL, MARCH, 100_000),
        PriorPart(LineKind.SERVICE_FEE_REFUND, MARCH, 10_000),
    ]
    programme, days = till.configuration.programme, (date(2017, 3, 1), date(2017, 4, 30))
    report = await performance_report(till.database, programme, OPERATOR_ID, None, *days)
    assert (report.totals.issued, report.totals.reversed, report.totals.burned) == (160, 100, 100)


async def test_a_close_finds_a_debt_that_somebody_changed(till: Till, tamper: Tamper) -> None:
    till.clock.now += timedelta(days=20)
    await tamper("UPDATE debt SET open_points = open_points - 1")
    with pytest.raises(Refused) as refused:
        await close_period(till.database, till.clock, "2017-03", "close")
    assert refused.value.code == RefusalCode.AUDIT_FAILED
    assert "89 of 90 points open at 10000; its movements overdraw 90 worth 900000, repay 0" in refused.value.message
    assert "owes 90 points, its debts have 89 open" in refused.value.message
    await tamper("UPDATE debt SET open_points = open_points + 1")
    assert (await closed(till, "2017-03"))[3].endswith("members owe 90")


REHASH = f"UPDATE transaction AS t SET row_hash = {row_hash_sql(HASHED_TRANSACTION_COLUMNS, 't')}"
BROKEN: dict[str, tuple[list[str], set[int], str]] = {
    "a debt is forgotten": (
        ["DELETE FROM debt WHERE points = 90"],
        {3},
        "(OVERDRAW) of 90 points left no debt",
    ),
    "a debt is at another price": (
        ["UPDATE debt SET price_micro = 10001 WHERE points = 90"],
        {3},
        "30 of 90 points open at 10001; its movements overdraw 90 worth 900000, repay 60",
    ),
    "an account owes more": (
        ["UPDATE account SET owed = owed + 1 WHERE owed > 0"],
        {3},
        "owes 41 points, its debts have 40 open",
    ),
    "two accounts owe each other's points": (
        ["UPDATE account SET owed = 40 - owed"],
        {3},
        "owes 40 points, its debts have 0 open",
    ),
    "a repayment is of no debt": (
        ["UPDATE transaction SET reverses_id = id WHERE kind = 'REPAY'", REHASH],
        {3, 9},
        "pays 60 points worth 600000 of debt",
    ),
    "a repayment frees more than it pays": (
        ["UPDATE transaction SET issue_value_micro = issue_value_micro + 1 WHERE kind = 'REPAY'", REHASH],
        {1, 3, 9, 10},
        "REPAY not at the prices of terms 1",
    ),
    "an overdraft reverses nothing": (
        ["UPDATE transaction SET reverses_id = NULL WHERE kind = 'OVERDRAW' AND points = -10", REHASH],
        {9, 10},
        "(OVERDRAW) names no original",
    ),
    "an overdraft is of more than was earned": (
        ["UPDATE transaction SET points = -91 WHERE kind = 'OVERDRAW' AND points = -90", REHASH],
        {3, 8, 9, 10, 15},
        "movements overdraw 91 worth 900000, repay 60",
    ),
    "a lot's use by a repayment is gone": (["DELETE FROM lot_use WHERE kind = 'REPAY'"], {2, 7, 13}, "its lot uses 0"),
    "a repayment's command asks for other points": (
        ["UPDATE command SET points = 61 WHERE kind = 'REPAYMENT'"],
        {12, 13},
        "(REPAYMENT): points 61",
    ),
    "the period claims that members owe less": (
        ["UPDATE period SET receivable_change_micro = 0 WHERE label = '2017-03'"],
        {6},
        "stored member receivable change 0 instead of 900000",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_debt_is_found_and_named(till: Till, tamper: Tamper, name: str) -> None:
    statements, numbers, place = BROKEN[name]
    till.clock.now += timedelta(days=20)
    await closed(till, "2017-03")
    await april(till)
    assert await failing(till) == {}
    for sql in statements:
        await tamper(sql)
    failed = await failing(till)
    assert set(failed) == numbers, failed
    assert place in " ".join(failed.values()), failed

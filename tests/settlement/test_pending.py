"""Pending points at the month's end: no statement has them before they are confirmed, and every check still holds."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from domain.commands import ConfirmPayment, OriginalRef, Sweep
from domain.database import Database
from domain.values import OPERATOR_ID
from settlement.budget_uses import budgets_of_statements
from settlement.closing import close_period
from settlement.performance_reading import performance_report
from settlement.verifying import VerifyReport, verify
from tests.domain.coalitions import Day, coalition, partner
from tests.domain.tills import APRIL, MARCH, Till, queue_on, till_on
from tests.factories import COALITION_TOML
from tests.settlement.performance_oracle import read_ledger
from tests.settlement.test_performance_reading import assert_equal_to, quarter

Tamper = Callable[[str], Awaitable[None]]

FROM_MARCH = "2017-03-01"
SHOPS = coalition(
    partner(
        "grocer",
        terms=[{"pending_days": 20}, {"from": Day("2017-04-01"), "issue_price": "0.010200"}],
        starts=FROM_MARCH,
    ),
    partner(
        "online",
        terms={"pending_days": 5},
        risk="PAID_FIRST",
        budgets={"on_limit": "OPERATOR_FUNDED", "limit": "1.10"},
        starts=FROM_MARCH,
    ),
    partner("fuel", starts=FROM_MARCH),
)


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    async with till_on(database, SHOPS) as opened:
        await opened.enrolled("card-1", "card-2")
        yield opened


async def sweep(till: Till, *cards: str) -> None:
    await till.queue.post_many([Sweep(till.members[card].account_id) for card in cards])


async def close(till: Till, label: str, on: tuple[int, int, int]) -> None:
    till.clock.to(*on)
    closed = await close_period(till.database, till.clock, label, f"close-{label}")
    assert closed.period.certificate is not None
    assert [check.detail for check in closed.period.certificate.checks if not check.holds] == []


async def statement(till: Till, code: str, period_id: int) -> dict[str, Any]:
    """A closed statement's lines (points, exact) by kind, and what it drew on which window."""
    document = await till.one(
        "SELECT document FROM statement WHERE partner_id = :partner AND period_id = :period",
        partner=till.id_of(code),
        period=period_id,
    )
    facts = json.loads(document)
    lines = {line["kind"]: (line["points"], line["exact"], line["prior_period_exact"]) for line in facts["lines"]}
    return {"lines": lines, "drawn": [(budget["window"], budget["drawn"]) for budget in facts["budgets"]]}


async def verified(till: Till) -> VerifyReport:
    report = await verify(till.database, till.clock)
    assert [check for check in report.checks if not check.holds] == []
    return report


async def a_march_with_pending_points(till: Till) -> None:
    """Grocer: 300 pending until April; fuel: 50 usable; online: 100 of its own and 40 of the operator's, unpaid."""
    await till.accept(till.purchase("usable", "50.00", partner="fuel"))
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "200.00", card="card-2"))
    await till.accept(till.reversal("r1", "k2", amount="25.00"))
    await till.accept(till.purchase("o1", "100.00", partner="online"))
    await till.accept(till.purchase("o2", "40.00", partner="online"))
    till.clock.to(2017, 3, 25)
    await till.accept(till.burn("b", 30, partner="fuel"))


async def test_a_period_closes_with_awards_pending_and_the_one_of_the_confirmation_counts_them(till: Till) -> None:
    await a_march_with_pending_points(till)
    await close(till, "2017-03", (2017, 4, 1))
    # Nothing of the grocer's or the shop's is in March: they have no statement.
    assert await till.rows("SELECT partner_id FROM statement WHERE period_id = :period", period=MARCH) == [
        (till.id_of("fuel"),)
    ]
    assert await till.rows("SELECT consumed_micro, reserved_micro FROM budget ORDER BY partner_id") == [
        (0, 275 * 11_000), (0, 100 * 11_000), (50 * 11_000, 0),
    ]  # fmt: skip
    await verified(till)
    # The windows say what is set aside, though no entry of March drew on them.
    keys = [(MARCH, till.id_of(code)) for code in ("grocer", "fuel")] + [(APRIL, till.id_of("grocer"))]
    uses = await budgets_of_statements(till.database, till.id_of("grocer"), keys)
    shown = [[(one.window, one.drawn_micro, one.reserved_micro) for one in uses[key]] for key in keys]
    assert shown == [[("2017-03", 0, 275 * 11_000)], [], []]

    till.clock.to(2017, 4, 3)
    await till.accept(till.reversal("r2", "k1", amount="10.00"))  # still pending: until 5 April
    till.clock.to(2017, 4, 10)
    await sweep(till, "card-1", "card-2")
    await till.accept(till.reversal("r3", "k1", amount="30.00"))  # confirmed: at March's price
    till.clock.to(2017, 4, 12)
    for key in ("o1", "o2"):
        await till.accept(ConfirmPayment(till.id_of("online"), f"p-{key}", OriginalRef(key=key), till.clock.now))
    await close(till, "2017-04", (2017, 5, 1))

    assert await statement(till, "grocer", APRIL) == {
        "lines": {
            "ISSUE": (265, "-2.650000", "0.000000"),
            "SERVICE_FEE": (265, "-0.265000", "0.000000"),
            "EARN_REVERSAL": (30, "0.300000", "0.000000"),
            "SERVICE_FEE_REFUND": (30, "0.030000", "0.000000"),
        },
        # What March's window had reserved was drawn on it; the return after its end credits April's.
        "drawn": [("2017-03", "2.915000"), ("2017-04", "-0.330000")],
    }
    assert await statement(till, "online", APRIL) == {
        "lines": {"ISSUE": (100, "-1.000000", "0.000000"), "SERVICE_FEE": (100, "-0.100000", "0.000000")},
        "drawn": [("2017-03", "1.100000")],
    }
    assert await till.rows(
        "SELECT amount_micro, points FROM position WHERE kind = 'SUBSIDY' AND period_id = :period", period=APRIL
    ) == [(-400_000, 40)]
    till.clock.to(2017, 5, 2)
    await till.accept(till.reversal("r4", "k2"))
    await verified(till)
    prior = await till.rows(
        "SELECT kind, amount_micro, prior_amount_micro FROM position WHERE period_id = :period AND partner_id = 1"
        " ORDER BY kind",
        period=APRIL + 1,
    )
    # The movement that it reverses was booked in April, however early the purchase was.
    assert prior == [("EARN_REVERSAL", 1_750_000, 1_750_000), ("SERVICE_FEE_REFUND", 175_000, 175_000)]


async def test_a_close_and_a_release_at_once_book_each_point_in_one_period(database: Database, till: Till) -> None:
    """The last seconds of March: what is due then is confirmed on one side of the border, and the close holds."""
    for number in range(30):
        await till.enrolled(f"c-{number}")
    happened = datetime(2017, 3, 10, 12, tzinfo=UTC)
    await till.accept_all([till.purchase(f"k-{n}", "10.00", card=f"c-{n}", at=happened) for n in range(30)])
    till.clock.now = datetime(2017, 3, 31, 21, 59, 59, tzinfo=UTC)
    async with queue_on(database, till.configuration, at=datetime(2017, 3, 31, 22, tzinfo=UTC)) as after:
        closing = asyncio.ensure_future(close_period(database, after.clock, "2017-03", "close"))
        accounts = [member.account_id for card, member in till.members.items() if card.startswith("c-")]
        for account_id in accounts:
            await asyncio.gather(till.queue.post(Sweep(account_id)), after.queue.post(Sweep(account_id)))
        await closing
    counted = await till.rows(
        "SELECT period_id, count(*), sum(points) FROM transaction WHERE kind = 'CONFIRM' GROUP BY 1 ORDER BY 1"
    )
    assert sum(row[1] for row in counted) == 30
    assert sum(row[2] for row in counted) == 300
    till.clock.to(2017, 4, 2)
    await verified(till)


async def test_reports_count_points_when_they_are_confirmed(database: Database) -> None:
    toml = COALITION_TOML.replace('fixed_fee = "50.00"', 'fixed_fee = "50.00"\npending_days = 9').replace(
        'category = "fuel station"', 'category = "fuel station"\nrisk = "PAID_FIRST"'
    )
    async with till_on(database, toml) as till:
        await quarter(till)
        waiting = "SELECT DISTINCT c.idempotency_key FROM pending_award AS p JOIN command AS c ON c.id = p.command_id"
        for (key,) in await till.rows(f"{waiting} WHERE p.waits_for_payment AND p.open_points > 0 AND p.id % 3 > 0"):
            paid = ConfirmPayment(till.id_of("fuel"), f"paid-{key}", OriginalRef(key=key), till.clock.now)
            await till.accept(paid)
        await sweep(till, *till.members)
        ledger = await read_ledger(database, till.configuration.programme.zone)
        kinds = {row.kind for row in ledger.tables["transaction"]}
        assert kinds >= {"EARN", "EARN_PENDING", "CONFIRM", "CANCEL", "EARN_REVERSAL", "BURN"}
        await assert_equal_to(till, ledger)
        till.clock.to(2017, 5, 2)
        for label in ("2017-01", "2017-02", "2017-03"):
            await close_period(database, till.clock, label, label)
        await assert_equal_to(till, ledger)
        await verified(till)


async def test_a_purchase_is_a_sale_on_its_day_and_its_points_are_issued_on_the_day_of_the_confirmation(
    till: Till,
) -> None:
    await till.accept(till.purchase("k", "100.00"))
    till.clock.to(2017, 4, 7)
    await sweep(till, "card-1")
    for day, expected in ((date(2017, 3, 15), (1, 0, 0)), (date(2017, 4, 5), (0, 100, 1_100_000))):
        report = await performance_report(till.database, till.configuration.programme, OPERATOR_ID, 1, day, day)
        totals = report.totals
        assert (totals.purchases, totals.issued, totals.charge_micro) == expected


DAMAGES = {
    "an award forgets a point": (
        "UPDATE pending_award SET open_points = open_points - 1 WHERE open_points = 100",
        {3, 11, 18},
        "granted 100, open 99, confirmed 0, its lot holds 0",
    ),
    "an account has more pending": ("UPDATE account SET pending = pending + 1 WHERE pending = 175", {3}, "pending 176"),
    "an award was granted more": (
        "UPDATE pending_award SET granted = granted + 1 WHERE granted = 200",
        {13, 18},
        "grants 200 points, its lot holds 201",
    ),
    "a window reserves less": (
        "UPDATE budget SET reserved_micro = reserved_micro - 1 WHERE partner_id = 1",
        {11},
        "of partner 1: reserved 3.024999, its pending awards 3.025000",
    ),
    "an award reserves less": (
        "UPDATE pending_award SET reserved_micro = reserved_micro - 1 WHERE granted = 200",
        {11},
        "of partner 1: reserved 3.025000, its pending awards 3.024999",
    ),
    "a pending award is charged": (
        "UPDATE transaction SET issue_value_micro = -1 WHERE kind = 'EARN_PENDING' AND points = 200",
        {1, 6, 9, 10, 18},
        "EARN_PENDING carries money",
    ),
    "a lot of a pending award is opened": (
        """
        INSERT INTO lot (account_id, id, transaction_id, issuer_id, funder_id, terms_id, price_micro,
                         breakage_share_ppm, granted, remaining, earned_at, expires_at)
        SELECT account_id, id, transaction_id, issuer_id, funder_id, terms_id, 10000, 0, granted, granted, earned_at,
               release_at
          FROM pending_award WHERE granted = 200
        """,
        {2, 3, 4, 5, 13, 18},
        "its lot holds 200",
    ),
    "an award is gone": ("DELETE FROM pending_award WHERE granted = 40", {3, 13}, "grants 40 points, its lot holds 0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_verify_finds_and_names_broken_pending_points(till: Till, tamper: Tamper, damage: str) -> None:
    await a_march_with_pending_points(till)
    await verified(till)
    change, numbers, place = DAMAGES[damage]
    await tamper(change)
    report = await verify(till.database, till.clock)
    failed = [check for check in report.checks if not check.holds]
    assert {check.number for check in failed} == numbers, failed
    assert any(place in check.detail for check in failed), failed


CONFIRMED_DAMAGES = {
    "a confirmation of more": (
        "UPDATE command SET points = points + 1 WHERE kind = 'CONFIRMATION' AND points = 100",
        {12, 13},
        "(CONFIRMATION): points 101",
    ),
    "a lot of more than was confirmed": (
        "UPDATE lot SET granted = granted + 1, remaining = remaining + 1 WHERE granted = 100",
        {2, 3, 4, 5, 13, 18},
        "confirmed 100, its lot holds 101",
    ),
    "a confirmation at another price": (
        "UPDATE transaction SET issue_value_micro = issue_value_micro - 1 WHERE kind = 'CONFIRM' AND points = 100",
        {1, 6, 9, 10},
        "CONFIRM not at the prices of terms",
    ),
    "a confirmation that draws on no window": (
        "UPDATE transaction SET budget_micro = 0 WHERE kind = 'CONFIRM' AND points = 100",
        {9, 11},
        "of partner 1: consumed 3.025000, its entries draw 1.925000",
    ),
}


@pytest.mark.parametrize("damage", CONFIRMED_DAMAGES)
async def test_verify_finds_and_names_broken_confirmations(till: Till, tamper: Tamper, damage: str) -> None:
    await a_march_with_pending_points(till)
    till.clock.to(2017, 4, 10)
    await sweep(till, "card-1", "card-2")
    await verified(till)
    change, numbers, place = CONFIRMED_DAMAGES[damage]
    await tamper(change)
    report = await verify(till.database, till.clock)
    failed = [check for check in report.checks if not check.holds]
    assert {check.number for check in failed} == numbers, failed
    assert any(place in check.detail for check in failed), failed

"""The marketing budget at the till: its five behaviours, its windows, and when it raises the alarm."""

from datetime import UTC, datetime

from domain.commands import BudgetView
from domain.errors import RefusalCode
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import APRIL, MARCH, Till, window_of

THREE_RULES: list[Table] = [
    {"code": "extra", "points_per_unit": "0.5"},
    {"code": "base", "points_per_unit": "1"},
    {"code": "more", "points_per_unit": "0.25"},
]
PRICE = 11_000
ROW = ("points", "requested_points", "party_id", "issue_value_micro", "service_fee_micro", "budget_micro")


def shop(on_limit: str, limit: str = "1.10", **budget: str) -> str:
    """A partner whose budget carries 100 points, and rules that give 1, 0.5 and 0.25 points per euro."""
    return coalition(partner("grocer", budgets={"limit": limit, "on_limit": on_limit, **budget}, rules=THREE_RULES))


async def granted(till: Till, key: str, amount: str) -> list[int]:
    """What base, extra and more give for a purchase that is accepted."""
    posted = await till.accept(till.purchase(key, amount))
    assert [award.rule_code for award in posted.awards] == ["base", "extra", "more"]
    points = [award.granted_points for award in posted.awards]
    asked = sum(award.requested_points for award in posted.awards)
    assert (posted.points, posted.declined_points) == (sum(points), asked - sum(points))
    assert posted.command.declined_points == posted.declined_points
    return points


async def test_decline_refuses_the_whole_purchase(open_till: OpenTill) -> None:
    till = await open_till(shop("DECLINE"))

    await till.refuse(till.purchase("k", "58.00"), RefusalCode.BUDGET_EXHAUSTED)  # 58 + 29 + 14 = 101
    assert await granted(till, "k", "56.00") == [56, 28, 14]
    await till.refuse(till.purchase("k2", "2.00"), RefusalCode.BUDGET_EXHAUSTED)  # 2 + 1 + 0 = 3, and 2 are left
    assert await granted(till, "k2", "1.99") == [1, 0, 0]
    assert await granted(till, "k3", "1.00") == [1, 0, 0]
    assert await till.budget() == (100 * PRICE, True)
    await till.refuse(till.purchase("k4", "1.00"), RefusalCode.BUDGET_EXHAUSTED)
    assert await granted(till, "k4", "0.99") == [0, 0, 0]


async def test_partial_grants_what_is_left_award_by_award(open_till: OpenTill) -> None:
    till = await open_till(shop("PARTIAL", "1.11"))  # 100 points and 10,000 micro-units that buy none

    assert await granted(till, "k", "80.00") == [80, 20, 0]
    assert await till.movements("k", *ROW) == [
        (80, 80, 1, -800_000, -80_000, 880_000),
        (20, 40, 1, -200_000, -20_000, 220_000),
        (0, 20, 1, 0, 0, 0),
    ]
    # With nothing left it grants nothing, and is accepted.
    assert await granted(till, "k2", "80.00") == [0, 0, 0]
    assert await till.rows("SELECT granted FROM lot ORDER BY id") == [(80,), (20,)]
    assert await till.budget() == (100 * PRICE, True)


async def test_base_only_drops_every_bonus_or_declines(open_till: OpenTill) -> None:
    till = await open_till(shop("BASE_ONLY"))

    assert await granted(till, "k", "58.00") == [58, 0, 0]
    assert await granted(till, "k2", "24.00") == [24, 12, 6]  # exactly the 42 that are left
    await till.refuse(till.purchase("k3", "1.00"), RefusalCode.BUDGET_EXHAUSTED)
    assert await till.movements("k", *ROW) == [
        (58, 58, 1, -580_000, -58_000, 638_000),
        (0, 29, 1, 0, 0, 0),
        (0, 14, 1, 0, 0, 0),
    ]


async def test_operator_funded_moves_whole_awards_to_the_operator(open_till: OpenTill) -> None:
    till = await open_till(shop("OPERATOR_FUNDED"))

    posted = await till.accept(till.purchase("k", "80.00"))
    assert [(award.granted_points, award.funder_id) for award in posted.awards] == [(80, 1), (40, 0), (20, 1)]
    assert (posted.points, posted.declined_points) == (140, 0)
    # No fee, no budget; the lot keeps its issuer and price.
    assert await till.movements("k", *ROW, "budget_id IS NULL", "funder_id", "issuer_id", "pool_value_micro") == [
        (80, 80, 1, -800_000, -80_000, 880_000, False, 1, 1, 800_000),
        (40, 40, 0, -400_000, 0, 0, True, 0, 1, 400_000),
        (20, 20, 1, -200_000, -20_000, 220_000, False, 1, 1, 200_000),
    ]
    assert await till.rows("SELECT granted, issuer_id, funder_id, price_micro FROM lot ORDER BY id") == [
        (80, 1, 1, 10_000),
        (40, 1, 0, 10_000),
        (20, 1, 1, 10_000),
    ]
    assert await granted(till, "k2", "10.00") == [10, 5, 2]
    assert await till.budget() == (100 * PRICE, True)
    assert await till.rows("SELECT partner_id, kind, entries, points, amount_micro FROM position ORDER BY kind") == [
        (1, "ISSUE", 2, 100, -1_000_000),
        (0, "POOL", 6, 157, 1_570_000),
        (1, "SERVICE_FEE", 2, 100, -100_000),
        (0, "SUBSIDY", 4, 57, -570_000),
    ]
    assert await till.rows("SELECT book, sum(amount) FROM ledger_entry WHERE unit = 'MONEY' GROUP BY 1 ORDER BY 1") == [
        ("FEES", 100_000),
        ("PARTNER", -1_100_000),
        ("POOL", 1_570_000),
        ("SUBSIDY", -570_000),
    ]


async def test_overdraft_reaches_as_far_as_it_was_approved(open_till: OpenTill) -> None:
    till = await open_till(shop("OVERDRAFT", approved_overdraft="0.11"))

    posted = await till.accept(till.purchase("k", "62.00"))
    assert posted.points == 108
    assert window_of(posted) == BudgetView(1, 1_100_000, 110_000, 108 * PRICE, 0, till.clock.now)
    assert window_of(posted).available_micro == 2 * PRICE
    await till.refuse(till.purchase("k2", "2.00"), RefusalCode.BUDGET_EXHAUSTED)
    assert await granted(till, "k2", "1.00") == [1, 0, 0]


async def test_points_without_price_need_no_money(open_till: OpenTill) -> None:
    free = {"issue_price": "0", "service_fee": "0"}
    till = await open_till(coalition(partner("grocer", terms=free, budgets={"limit": "0", "on_limit": "DECLINE"})))

    assert (await till.accept(till.purchase("k", "100.00"))).points == 100
    assert await till.rows("SELECT granted, price_micro FROM lot") == [(100, 0)]


async def test_without_money_for_the_day_every_award_is_declined(open_till: OpenTill) -> None:
    window = {"from": Day("2017-03-16"), "to": Day("2017-03-31"), "limit": "100.00"}
    till = await open_till(coalition(partner("grocer", budgets=window)))

    await till.refuse(till.purchase("k"), RefusalCode.BUDGET_EXHAUSTED)
    till.clock.to(2017, 3, 15, 23)  # the 16th has begun in Berlin
    # The window is that of the booking, not of the day it happened.
    assert (await till.accept(till.purchase("k", at=datetime(2017, 3, 1, tzinfo=UTC)))).points == 100
    till.clock.to(2017, 3, 31, 22)
    await till.refuse(till.purchase("k2"), RefusalCode.BUDGET_EXHAUSTED)


async def test_each_period_has_its_window(open_till: OpenTill) -> None:
    plans: list[Table] = [
        {"from": Day("2017-01-01"), "limit": "1.10"},
        {"from": Day("2017-05-01"), "limit": "2.20", "on_limit": "DECLINE"},
    ]
    till = await open_till(coalition(partner("grocer", budgets=plans)))
    march = till.clock.now

    assert (await till.accept(till.purchase("march", "150.00"))).points == 100
    till.clock.to(2017, 4, 1, 0)
    assert (await till.accept(till.purchase("april", "30.00", at=march))).points == 30
    till.clock.to(2017, 5, 1, 0)
    assert (await till.accept(till.purchase("may", "199.00"))).points == 199
    await till.refuse(till.purchase("k", "2.00"), RefusalCode.BUDGET_EXHAUSTED)
    assert await till.rows("SELECT period_id, limit_micro, consumed_micro FROM budget ORDER BY 1") == [
        (MARCH, 1_100_000, 100 * PRICE),
        (APRIL, 1_100_000, 30 * PRICE),
        (APRIL + 1, 2_200_000, 199 * PRICE),
    ]


async def test_a_single_window_lasts_over_its_periods(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", budgets={"to": Day("2017-12-31"), "limit": "1.10"})))

    assert (await till.accept(till.purchase("march", "70.00"))).points == 70
    till.clock.to(2017, 4, 20)
    assert (await till.accept(till.purchase("april", "70.00"))).points == 30
    assert await till.rows("SELECT period_id, consumed_micro FROM budget") == [(0, 100 * PRICE)]


async def test_the_alarm_is_raised_once_per_crossing(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", budgets={"limit": "1.10", "alert_at": "0.80"})))

    async def alarm(key: str, amount: str) -> datetime | None:
        till.clock.forward(minutes=1)
        posted = await till.accept(till.purchase(key, amount))
        assert posted.budget is not None
        return posted.budget.alerted_at

    assert await alarm("k1", "79.00") is None
    crossed = await alarm("k2", "1.00")
    assert crossed == till.clock.now
    assert await alarm("k3", "5.00") == crossed
    # A return brings it down to 79: quiet; up again: a new alarm.
    till.clock.forward(minutes=1)
    back = await till.accept(till.reversal("v", "k3"))
    assert back.budget is not None
    assert back.budget.alerted_at == crossed
    quiet = await till.accept(till.reversal("v2", "k2"))
    assert window_of(quiet) == BudgetView(1, 1_100_000, 0, 79 * PRICE, 0, None)
    assert await till.budget() == (79 * PRICE, False)
    again = await alarm("k4", "1.00")
    assert again == till.clock.now
    assert await till.rows("SELECT alerted_at FROM budget") == [(again,)]


async def test_no_alarm_where_none_is_wanted(open_till: OpenTill) -> None:
    toml = coalition(partner("grocer", budgets={"limit": "1.10"})).replace('alert_at = "0.80"\n', "")
    till = await open_till(toml)

    assert (await till.accept(till.purchase("k", "100.00"))).points == 100
    assert await till.budget() == (100 * PRICE, False)

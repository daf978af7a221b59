"""Campaigns at the till: who pays how much of a bonus, on which terms and budget, and what a return takes back."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.commands import Posted, Sweep
from domain.errors import RefusalCode
from settlement.closing import close_period
from settlement.verifying import verify
from tests.domain.books import contents
from tests.domain.coalitions import Table, campaign, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import APRIL, MARCH, queue_on

GROCER, FUEL, RESTAURANT = 1, 2, 3
FUEL_TERMS = {"issue_price": "0.010500", "service_fee": "0.001200", "reimbursement": "0.009200", "breakage_share": "0"}
DINNER_TERMS = {"issue_price": "0.012000", "service_fee": "0.001500", "breakage_share": "0.25"}
JOINT = (("grocer", "0.6"), ("restaurant", "0.4"))
ROW = ("points", "requested_points", "partner_id", "party_id", "funder_id", "issuer_id")
MONEY = ("issue_value_micro", "service_fee_micro", "pool_value_micro", "budget_micro")


def three(*campaigns: str, **budgets: Table) -> str:
    """Grocer, fuel and restaurant with their own prices; a table of a partner's code changes its budget."""
    return coalition(
        partner("grocer", budgets=budgets.get("grocer", {})),
        partner("fuel", terms=FUEL_TERMS, budgets=budgets.get("fuel", {})),
        partner("restaurant", terms=DINNER_TERMS, budgets=budgets.get("restaurant", {})),
        *campaigns,
    )


async def test_a_joint_bonus_is_an_award_per_funder_at_its_own_terms(open_till: OpenTill) -> None:
    till = await open_till(three(campaign("spring", *JOINT, multiplier="1.1", partners=["grocer"])))

    posted = await till.accept(till.purchase("k", "10010.00"))
    assert [award[:4] for award in posted.awards] == [
        ("base", GROCER, 10_010, 10_010),
        (None, GROCER, 601, 601),
        (None, RESTAURANT, 400, 400),
    ]
    assert [award.campaign_code for award in posted.awards] == [None, "spring", "spring"]
    assert (posted.points, posted.declined_points) == (11_011, 0)
    # SETTLEMENT.md c.6: 1,001 points are 601 and 400; the row stays the till's, its party, price and lot the funder's.
    assert await till.movements("k", *ROW, *MONEY) == [
        (10_010, 10_010, 1, 1, 1, 1, -100_100_000, -10_010_000, 100_100_000, 110_110_000),
        (601, 601, 1, 1, 1, 1, -6_010_000, -601_000, 6_010_000, 6_611_000),
        (400, 400, 1, 3, 3, 3, -4_800_000, -600_000, 4_800_000, 5_400_000),
    ]
    assert await till.rows(
        "SELECT granted, issuer_id, funder_id, price_micro, breakage_share_ppm FROM lot ORDER BY id"
    ) == [
        (10_010, 1, 1, 10_000, 500_000),
        (601, 1, 1, 10_000, 500_000),
        (400, 3, 3, 12_000, 250_000),
    ]
    assert await till.budget("grocer") == (116_721_000, False)
    assert await till.budget("restaurant") == (5_400_000, False)
    replay = await till.accept(till.purchase("k", "10010.00"))
    assert replay == posted._replace(replayed=True)


async def test_the_operator_pays_its_part_at_the_till_s_price_without_fee_or_budget(open_till: OpenTill) -> None:
    shares = (("operator", "0.5"), ("restaurant", "0.5"))
    till = await open_till(three(campaign("gift", *shares, bonus_points=7, partners=["fuel"])))

    posted = await till.accept(till.purchase("k", "10.00", partner="fuel"))
    # Seven points in halves: the odd one goes to whose code comes first.
    assert [award[1:4] for award in posted.awards] == [(FUEL, 10, 10), (0, 4, 4), (RESTAURANT, 3, 3)]
    assert (await till.movements("k", *ROW, *MONEY))[1:] == [
        (4, 4, 2, 0, 0, 2, -42_000, 0, 42_000, 0),
        (3, 3, 2, 3, 3, 3, -36_000, -4_500, 36_000, 40_500),
    ]
    assert await till.rows("SELECT amount_micro FROM position WHERE kind = 'SUBSIDY'") == [(-42_000,)]
    assert (await till.accept(till.purchase("elsewhere", "10.00"))).points == 10


@pytest.mark.parametrize(
    ("on_limit", "parts", "declined"),
    [
        ("DECLINE", [(GROCER, 60, 60), (RESTAURANT, 40, 0)], 40),
        ("BASE_ONLY", [(GROCER, 60, 60), (RESTAURANT, 40, 0)], 40),
        ("PARTIAL", [(GROCER, 60, 60), (RESTAURANT, 40, 10)], 30),
        ("OPERATOR_FUNDED", [(GROCER, 60, 60), (0, 40, 40)], 0),
    ],
)
async def test_what_one_funder_cannot_pay_is_no_matter_of_the_others(
    open_till: OpenTill, on_limit: str, parts: list[tuple[int, int, int]], declined: int
) -> None:
    ten_points = {"limit": "0.14", "on_limit": on_limit}
    till = await open_till(three(campaign("spring", *JOINT, multiplier="2"), restaurant=ten_points))

    posted = await till.accept(till.purchase("k", "100.00"))
    assert [award[1:4] for award in posted.awards[1:]] == parts
    assert (posted.declined_points, posted.command.declined_points) == (declined, declined)
    if on_limit == "OPERATOR_FUNDED":  # as where a till's own award is taken over: issue value at the till's price
        assert (await till.movements("k", *ROW, *MONEY))[2] == (40, 40, 1, 0, 0, 1, -400_000, 0, 400_000, 0)


async def test_a_campaign_never_refuses_the_purchase_of_its_till(open_till: OpenTill) -> None:
    tight = {"limit": "1.10", "on_limit": "DECLINE"}
    till = await open_till(three(campaign("own", ("grocer", "1"), multiplier="3"), grocer=tight))

    posted = await till.accept(till.purchase("k", "40.00"))  # 40 points, 60 are left, 80 more are too many
    assert [award[2:4] for award in posted.awards] == [(40, 40), (80, 0)]
    assert [award[2:4] for award in (await till.accept(till.purchase("k2", "20.00"))).awards] == [(20, 20), (40, 40)]
    await till.refuse(till.purchase("k3", "1.00"), RefusalCode.BUDGET_EXHAUSTED)


async def test_who_may_not_issue_is_not_charged(open_till: OpenTill) -> None:
    text = three(campaign("spring", *JOINT, multiplier="2"))
    till = await open_till(text.replace('name = "Restaurant"', 'name = "Restaurant"\nstate = "SUSPENDED"'))

    posted = await till.accept(till.purchase("k", "100.00"))
    assert [award[1:4] for award in posted.awards[1:]] == [(GROCER, 60, 60), (RESTAURANT, 40, 0)]
    assert (await till.movements("k", *ROW, *MONEY))[2] == (0, 40, 1, 3, 3, 3, 0, 0, 0, 0)


async def test_a_campaign_s_own_budget_pays_for_every_part(open_till: OpenTill) -> None:
    own = {"limit": "1.00", "on_limit": "PARTIAL", "alert_at": "0.5"}
    shares = (("grocer", "0.5"), ("operator", "0.25"), ("restaurant", "0.25"))
    till = await open_till(three(campaign("year", *shares, budget=own, multiplier="2")))

    await till.accept(till.purchase("k", "20.00"))
    assert await till.movements("k", "points", "funder_id", "budget_micro") == [
        (20, 1, 220_000),
        (10, 1, 110_000),
        (5, 0, 50_000),  # the operator pays no fee to itself
        (5, 3, 67_500),
    ]
    window = "SELECT partner_id, period_id, consumed_micro, alerted_at IS NULL FROM budget ORDER BY partner_id, id"
    assert await till.rows(window) == [(0, 0, 227_500, True), (1, MARCH, 220_000, True)]
    till.clock.to(2017, 4, 3)
    await till.accept(till.purchase("k2", "200.00"))
    # 0.7725 are left: 70 of 100 for the grocer at 0.011, nothing for 50 at 0.01 or 50 at 0.0135 out of 0.0025.
    assert (await till.movements("k2", "points", "requested_points", "funder_id", "budget_micro"))[1:] == [
        (70, 100, 1, 770_000),
        (0, 50, 0, 0),
        (0, 50, 3, 0),
    ]
    assert await till.rows(window) == [(0, 0, 997_500, False), (1, MARCH, 220_000, True), (1, APRIL, 2_200_000, True)]
    await till.accept(till.reversal("back", "k"))
    assert (await till.rows(window))[0] == (0, 0, 770_000, False)


async def test_which_purchases_take_part(open_till: OpenTill) -> None:
    till = await open_till(
        three(
            campaign("day", ("restaurant", "1"), bonus_points=5, days=("2017-03-10", "2017-03-11")),
            campaign("basket", ("fuel", "1"), bonus_points=3, min_amount="50.00", days=("2017-03-15", "2017-03-15")),
            campaign("wine", ("fuel", "1"), points_per_unit="2", include_categories=["wine"], include_products=["cork"],
                     max_points=30, days=("2017-03-15", "2017-03-15")),
        )
    )  # fmt: skip

    async def bonuses(key: str, amount: str, **more: Any) -> dict[str | None, int]:
        posted = await till.accept(till.purchase(key, amount, **more))
        return {award.campaign_code: award.granted_points for award in posted.awards[1:]}

    first, after = datetime(2017, 3, 9, 23, tzinfo=UTC), datetime(2017, 3, 11, 23, tzinfo=UTC)
    assert await bonuses("d1", "1.00", at=first) == {"day": 5}  # midnight in Berlin
    assert await bonuses("d2", "1.00", at=first - timedelta(seconds=1)) == {}
    assert await bonuses("d3", "1.00", at=after - timedelta(seconds=1)) == {"day": 5}
    assert await bonuses("d4", "1.00", at=after) == {}
    assert await bonuses("d5", "0.00", at=first) == {}
    assert await bonuses("b1", "50.00") == {"basket": 3}
    assert await bonuses("b2", "49.99") == {}
    wine = [
        ("red", "wine", "1", "7.50"),
        ("cork", None, "1", "1.99"),
        ("milk", "dairy", "1", "2.00"),
        (None, None, "1", "0"),
    ]
    assert await bonuses("w1", "11.49", lines=wine) == {"wine": 18}  # 9.49 x 2
    assert await bonuses("w2", "20.00", lines=[("red", "wine", "1", "20.00")]) == {"wine": 30}
    assert await bonuses("w3", "20.00", lines=[("milk", "dairy", "1", "20.00")]) == {}


async def test_a_purchase_that_earns_too_much_with_its_campaign_is_refused(open_till: OpenTill) -> None:
    free = {"issue_price": "0", "service_fee": "0"}
    till = await open_till(
        coalition(partner("grocer", terms=free), campaign("big", ("grocer", "1"), multiplier="1000"))
    )

    await till.refuse(till.purchase("k", "1000001.00"), RefusalCode.AMOUNT_INVALID, "amount")
    assert (await till.accept(till.purchase("k", "1000000.00"))).points == 10**9


async def test_a_quote_tells_the_campaign_and_books_nothing(open_till: OpenTill) -> None:
    till = await open_till(three(campaign("spring", *JOINT, multiplier="2")))
    before = await contents(till.database)

    quoted = await till.queue.quote(till.purchase("k", "100.00"))
    assert isinstance(quoted, Posted)
    assert await contents(till.database) == before
    posted = await till.accept(till.purchase("k", "100.00"))
    assert quoted.awards == posted.awards


# ---------------------------------------------------------------- what comes back


async def test_a_return_splits_what_is_kept_again_and_credits_each_funder_at_its_own_terms(open_till: OpenTill) -> None:
    till = await open_till(three(campaign("spring", *JOINT, multiplier="1.1")))
    await till.accept(till.purchase("k", "10010.00"))

    posted = await till.accept(till.reversal("v", "k", amount="10.00"))
    # 10,000 stay, so 1,000 of the bonus: 600 and 400 of 601 and 400.
    assert posted.points == 11
    assert await till.movements("v", *ROW, *MONEY) == [
        (-10, 10, 1, 1, 1, 1, 100_000, 10_000, -100_000, -110_000),
        (-1, 1, 1, 1, 1, 1, 10_000, 1_000, -10_000, -11_000),
    ]
    rest = await till.accept(till.reversal("v2", "k"))
    assert (rest.points, rest.shortfall_points) == (11_000, 0)
    assert await till.movements("v2", *ROW, *MONEY) == [
        (-10_000, 10_000, 1, 1, 1, 1, 100_000_000, 10_000_000, -100_000_000, -110_000_000),
        (-600, 600, 1, 1, 1, 1, 6_000_000, 600_000, -6_000_000, -6_600_000),
        (-400, 400, 1, 3, 3, 3, 4_800_000, 600_000, -4_800_000, -5_400_000),
    ]
    assert (await till.budget("grocer"), await till.budget("restaurant")) == ((0, False), (0, False))
    assert await till.available() == 0


async def test_a_purchase_and_its_return_may_come_in_one_batch(open_till: OpenTill) -> None:
    till = await open_till(three(campaign("spring", *JOINT, bonus_points=10)))

    _, back = await till.accept_all([till.purchase("k", "5.00"), till.reversal("v", "k")])
    assert (back.points, await till.available()) == (15, 0)
    assert await till.budget("restaurant") == (0, False)


async def test_each_funder_s_plan_says_what_becomes_of_a_later_return(open_till: OpenTill) -> None:
    lapses = {"after_period": "USE_OR_LOSE"}
    till = await open_till(three(campaign("spring", *JOINT, bonus_points=10), restaurant=lapses))
    await till.accept(till.purchase("k", "5.00"))
    till.clock.to(2017, 4, 2)
    await till.accept(till.reversal("v", "k"))

    assert await till.movements("v", "points", "party_id", "budget_id IS NULL", "budget_micro") == [
        (-5, 1, False, -55_000),
        (-6, 1, False, -66_000),
        (-4, 3, True, 0),
    ]
    assert await till.budget("grocer", APRIL) == (-121_000, False)
    assert await till.budget("restaurant", MARCH) == (54_000, False)


async def test_points_that_are_spent_are_taken_from_other_lots_of_the_same_funder_alone(open_till: OpenTill) -> None:
    till = await open_till(three(campaign("spring", *JOINT, bonus_points=100, days=("2017-03-15", "2017-03-15"))))
    await till.accept(till.purchase("k", "10.00"))  # 10 + 60 of the grocer's, 40 of the restaurant's
    await till.accept(till.burn("b", 110))
    till.clock.to(2017, 3, 16)
    await till.accept(till.purchase("dinner", "25.00", partner="restaurant"))
    back = await till.accept(till.reversal("v", "k"))

    # The restaurant's dinner covers 25 of the 40 that it paid for; nothing of it goes to the grocer.
    assert (back.points, back.shortfall_points) == (25, 85)
    assert await till.movements("v", "points", "shortfall_points", "party_id", "issuer_id", "pool_value_micro") == [
        (0, 10, 1, 1, 0),
        (0, 60, 1, 1, 0),
        (0, 15, 3, 3, 0),
        (-25, 0, 3, 3, -300_000),
    ]


async def test_the_books_hold_when_a_month_with_campaigns_closes(open_till: OpenTill) -> None:
    own = {"limit": "0.60", "on_limit": "OPERATOR_FUNDED"}
    third = (("grocer", "0.333334"), ("fuel", "0.333333"), ("restaurant", "0.333333"))
    till = await open_till(
        three(
            campaign("spring", *third, multiplier="1.5"),
            campaign("all", ("operator", "0.1"), ("fuel", "0.9"), bonus_points=11, budget=own),
        )
    )
    for number in range(12):
        partner_code = ("grocer", "fuel", "restaurant")[number % 3]
        await till.accept(till.purchase(f"k{number}", f"{7 + number * 13}.{number:02}", partner=partner_code))
        if number % 2:
            await till.accept(till.reversal(f"v{number}", f"k{number}", partner=partner_code, amount=f"{number}.00"))
    await till.accept(till.burn("b", 300, partner="fuel"))
    await till.accept(till.reversal("late", "k2", partner="restaurant"))
    till.clock.to(2017, 5, 1)
    for label in ("2017-01", "2017-02", "2017-03", "2017-04"):
        closed = await close_period(till.database, till.clock, label, label)
        assert closed.period.certificate is not None
        assert [check for check in closed.period.certificate.checks if not check.holds] == []
    report = await verify(till.database, till.clock)
    assert [check for check in report.checks if not check.holds] == []


async def test_a_joint_bonus_waits_with_its_purchase_and_reserves_at_each_funder(open_till: OpenTill) -> None:
    own = {"limit": "5.00"}
    joint = campaign("spring", *JOINT, bonus_points=10)
    shared = campaign("gift", ("operator", "0.5"), ("restaurant", "0.5"), bonus_points=8, budget=own)
    text = three(joint, shared).replace('fixed_fee = "0"', 'fixed_fee = "0"\npending_days = 14', 1)
    till = await open_till(text)
    reserved = f"""
        SELECT partner_id, reserved_micro, consumed_micro FROM budget
         WHERE period_id IN (0, {MARCH}) ORDER BY partner_id
    """

    posted = await till.accept(till.purchase("k", "20.00"))
    assert [award.campaign_code for award in posted.awards] == [None, "spring", "spring", "gift", "gift"]
    assert all(award.pending_until is not None for award in posted.awards)
    assert await till.movements("k", "kind", "points", "party_id", "issuer_id", "issue_value_micro") == [
        ("EARN_PENDING", 20, 1, 1, 0),
        ("EARN_PENDING", 6, 1, 1, 0),
        ("EARN_PENDING", 4, 3, 3, 0),
        ("EARN_PENDING", 4, 0, 1, 0),
        ("EARN_PENDING", 4, 3, 3, 0),
    ]
    # The operator's four at 0.01, the restaurant's at 0.0135; the grocer's own 26 at 0.011.
    assert await till.rows(reserved) == [(0, 94_000, 0), (1, 286_000, 0), (3, 54_000, 0)]
    await till.accept(till.reversal("v", "k", amount="10.00"))
    assert await till.rows(reserved) == [(0, 94_000, 0), (1, 176_000, 0), (3, 54_000, 0)]
    till.clock.to(2017, 4, 3)
    await till.queue.post(Sweep(posted.balance.account_id))
    assert await till.rows(reserved) == [(0, 0, 94_000), (1, 0, 176_000), (3, 0, 54_000)]
    confirmed = """
        SELECT points, party_id, issue_value_micro, service_fee_micro FROM transaction
         WHERE kind = 'CONFIRM' ORDER BY id
    """
    assert await till.rows(confirmed) == [
        (10, 1, -100_000, -10_000),
        (6, 1, -60_000, -6_000),
        (4, 3, -48_000, -6_000),
        (4, 0, -40_000, 0),
        (4, 3, -48_000, -6_000),
    ]
    back = await till.accept(till.reversal("rest", "k"))
    assert (back.points, back.shortfall_points, await till.available()) == (28, 0, 0)
    report = await verify(till.database, till.clock)
    assert [check for check in report.checks if not check.holds] == []


# ---------------------------------------------------------------- locks


async def test_history_returned_in_another_month_finds_every_funder_s_window(open_till: OpenTill) -> None:
    till = await open_till(three(campaign("spring", *JOINT, bonus_points=10)), is_history=True)
    bought, back = datetime(2017, 1, 20, 12, tzinfo=UTC), datetime(2017, 2, 3, 12, tzinfo=UTC)

    first, second = await till.accept_all(
        [till.purchase("k", "5.00", at=bought), till.reversal("v", "k", amount="5.00", at=back)]
    )
    assert (first.points, second.points) == (15, 15)
    assert await till.budget("restaurant", MARCH - 2) == (54_000, False)
    assert await till.budget("restaurant", MARCH - 1) == (-54_000, False)
    await till.accept(till.purchase("k2", "5.00", at=bought))
    await till.accept(till.reversal("v2", "k2", at=back))
    assert await till.budget("restaurant", MARCH - 1) == (-108_000, False)


async def test_processes_that_pay_for_each_other_s_purchases_neither_overdraw_nor_block(open_till: OpenTill) -> None:
    tight: Table = {"limit": "1.10", "on_limit": "PARTIAL"}
    cross = (
        campaign("north", ("fuel", "1"), multiplier="2", partners=["grocer"]),
        campaign("south", ("grocer", "1"), multiplier="2", partners=["fuel"]),
    )
    till = await open_till(three(*cross, grocer=tight, fuel={"limit": "1.17", "on_limit": "PARTIAL"}))
    async with queue_on(till.database, till.configuration, at=till.clock.now) as other:
        sent = [
            one.accept_all([one.purchase(f"{code}-{n}", "7.00", card=card, partner=code) for n in range(number, 40, 4)])
            for number in range(4)
            for one, code, card in ((till, "grocer", "card-1"), (other, "fuel", "card-2"))
        ]
        answers = [posted for answered in await asyncio.gather(*sent) for posted in answered]
    paid: Counter[int] = Counter()
    for posted in answers:
        assert len(posted.awards) == 2
        for award in posted.awards:
            paid[award.funder_id] += award.granted_points
    # 1.10 buys 100 of the grocer's points and 1.17 a hundred of the fuel station's, whoever's till they were earned at.
    assert paid == {GROCER: 100, FUEL: 100}
    assert await till.budget("grocer") == (1_100_000, True)
    assert await till.budget("fuel") == (1_170_000, True)

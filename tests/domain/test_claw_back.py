"""A return after the points are spent: the same lot, then the issuer's other lots, then a shortfall."""

from datetime import timedelta

from domain.errors import RefusalCode
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import APRIL, MARCH, Till

ROW = ("points", "requested_points", "shortfall_points", "issue_value_micro", "service_fee_micro", "pool_value_micro")
MARCH_AND_APRIL: list[Table] = [{"to": Day("2017-03-31")}, {"from": Day("2017-04-01"), "issue_price": "0.010200"}]
LOTS = "SELECT issuer_id, granted, remaining, price_micro FROM lot ORDER BY id"


async def test_first_the_same_lot_then_the_issuer_s_others_in_burn_order(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", terms=MARCH_AND_APRIL), partner("fuel")))
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "30.00", partner="fuel"))
    till.clock.to(2017, 4, 2)
    await till.accept(till.purchase("k3", "20.00"))
    till.clock.forward(hours=1)
    await till.accept(till.purchase("k4", "15.00"))
    await till.accept(till.burn("b", 70))
    posted = await till.accept(till.reversal("v", "k1", amount="60.00"))

    # 60 go back: the 30 that are left of its own lot, then 20 and 10 of April's at 0.0102, credited at March's price.
    assert (posted.points, posted.shortfall_points, posted.balance.available) == (60, 0, 35)
    assert await till.movements("v", *ROW) == [
        (-30, 30, 0, 300_000, 30_000, -300_000),
        (-20, 20, 0, 200_000, 20_000, -204_000),
        (-10, 10, 0, 100_000, 10_000, -102_000),
    ]
    assert await till.rows(LOTS) == [(1, 100, 0, 10_000), (2, 30, 30, 10_000), (1, 20, 0, 10_200), (1, 15, 5, 10_200)]
    # The difference of the prices is the operator's, and April's budget gets March's price back.
    assert (
        await till.one("SELECT sum(amount) FROM ledger_entry WHERE book = 'SPREAD' AND kind = 'EARN_REVERSAL'") == 6_000
    )
    assert await till.budget(period_id=APRIL) == (35 * 11_200 - 60 * 11_000, False)
    assert await till.budget(period_id=MARCH) == (1_100_000, False)


async def test_what_is_nowhere_to_be_had_is_a_shortfall_that_stays_charged(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.purchase("other", "50.00", partner="fuel"))
    await till.accept(till.burn("b", 75))
    posted = await till.accept(till.reversal("v", "k", amount="80.00"))

    # 25 are left of the grocer's; the other partner's 50 are not touched.
    assert (posted.points, posted.shortfall_points, posted.balance.available) == (25, 55, 50)
    assert await till.movements("v", *ROW, "budget_micro") == [(-25, 80, 55, 250_000, 25_000, -250_000, -275_000)]
    assert await till.rows(LOTS) == [(1, 100, 0, 10_000), (2, 50, 50, 10_500)]
    assert await till.budget() == (75 * 11_000, False)

    # The next return starts from what should have been taken: 20 points were kept of the purchase.
    rest = await till.accept(till.reversal("v2", "k"))
    assert (rest.points, rest.shortfall_points) == (0, 20)
    assert await till.movements("v2", *ROW, "lot_id IS NULL") == [(0, 20, 20, 0, 0, 0, False)]
    await till.refuse(till.reversal("v3", "k"), RefusalCode.ALREADY_REVERSED)
    replay = await till.accept(till.reversal("v", "k", amount="80.00"))
    assert (replay.replayed, replay.points, replay.shortfall_points) == (True, 25, 55)


async def test_what_the_operator_funded_at_another_partner_is_not_touched(open_till: OpenTill) -> None:
    spent = {"limit": "0.00", "on_limit": "OPERATOR_FUNDED"}
    till = await open_till(coalition(partner("grocer", budgets=spent), partner("fuel", budgets=spent)))
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.purchase("other", "50.00", partner="fuel"))
    await till.accept(till.burn("b", 100))
    posted = await till.accept(till.reversal("v", "k", amount="30.00"))

    assert (posted.points, posted.shortfall_points, posted.balance.available) == (0, 30, 50)
    assert await till.rows("SELECT issuer_id, funder_id, remaining FROM lot ORDER BY id") == [(1, 0, 0), (2, 0, 50)]


async def test_own_lot_empty_and_others_take_the_lot_row_first(till: Till) -> None:
    await till.accept(till.purchase("k", "10.00"))
    await till.accept(till.burn("b", 10))
    await till.accept(till.purchase("k2", "4.00"))
    await till.accept(till.reversal("v", "k"))

    # A row for the award's own lot carries the shortfall, then one per lot that gave.
    assert await till.movements("v", *ROW) == [(0, 6, 6, 0, 0, 0), (-4, 4, 0, 40_000, 4_000, -40_000)]
    [[own]] = await till.movements("k", "lot_id")
    assert [row[0] == own for row in await till.movements("v", "lot_id")] == [True, False]


async def test_each_award_claws_back_in_its_turn(open_till: OpenTill) -> None:
    rules: list[Table] = [{"code": "base", "points_per_unit": "1"}, {"code": "more", "points_per_unit": "0.5"}]
    till = await open_till(coalition(partner("grocer", rules=rules)))
    await till.accept(till.purchase("k", "20.00"))
    await till.accept(till.burn("b", 12))
    posted = await till.accept(till.reversal("v", "k", amount="10.00"))

    # Base should give 10 and has 8, so it takes 2 of the bonus lot's 10; the bonus's own 5 come out of what is left.
    assert (posted.points, posted.shortfall_points) == (15, 0)
    assert await till.movements("v", "points", "shortfall_points") == [(-8, 0), (-2, 0), (-5, 0)]
    rest = await till.accept(till.reversal("v2", "k"))
    assert (rest.points, rest.shortfall_points, rest.balance.available) == (3, 12, 0)


async def test_past_points_are_not_clawed_back(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), partner("fuel"), expiry_months=1))
    await till.accept(till.purchase("k", "100.00"))
    till.clock.to(2017, 4, 16)
    posted = await till.accept(till.reversal("v", "k", at=till.clock.now - timedelta(days=1)))

    # They are lost to the member already, and their breakage is still to be booked.
    assert (posted.points, posted.shortfall_points, posted.balance.available) == (0, 100, 0)
    assert await till.rows(LOTS) == [(1, 100, 100, 10_000)]


async def test_the_operator_s_points_are_clawed_back_for_the_operator(open_till: OpenTill) -> None:
    rules: list[Table] = [{"code": "base", "points_per_unit": "1"}, {"code": "more", "points_per_unit": "1"}]
    budget: Table = {"limit": "0.66", "on_limit": "OPERATOR_FUNDED"}
    till = await open_till(coalition(partner("grocer", rules=rules, budgets=budget)))
    await till.accept(till.purchase("k", "60.00"))
    await till.accept(till.burn("b", 100))
    posted = await till.accept(till.reversal("v", "k"))

    # 20 are left, of the operator's lot; the grocer's award finds none of its own money and falls short whole.
    assert (posted.points, posted.shortfall_points) == (20, 100)
    assert await till.movements("v", "party_id", *ROW, "budget_micro") == [
        (1, 0, 60, 60, 0, 0, 0, 0),
        (0, -20, 60, 40, 200_000, 0, -200_000, 0),
    ]
    assert await till.rows("SELECT entries, points, amount_micro FROM position WHERE kind = 'SUBSIDY'") == [
        (2, 80, -400_000)
    ]
    assert await till.budget() == (660_000, True)


async def test_points_that_were_refunded_can_be_taken_back(till: Till) -> None:
    await till.accept(till.purchase("k", "10.00"))
    await till.accept(till.burn("b", 10))
    await till.accept(till.reversal("refund", "b"))
    posted = await till.accept(till.reversal("v", "k"))

    assert (posted.points, posted.shortfall_points, posted.balance.available) == (10, 0, 0)


async def test_a_burn_is_refunded_in_parts_never_more_than_it_took(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.burn("b", 50, partner="fuel"))
    for number, points in enumerate([1, 20, 29]):
        assert (await till.accept(till.reversal(f"v{number}", "b", points=points, partner="fuel"))).points == points
        await till.refuse(till.reversal("w", "b", points=50, partner="fuel"), *_refusal_after(points))
    assert await till.available() == 100
    assert await till.one("SELECT sum(reimbursement_micro) FROM transaction") == 0


def _refusal_after(points: int) -> tuple[RefusalCode, str | None]:
    return (RefusalCode.ALREADY_REVERSED, None) if points == 29 else (RefusalCode.EXCEEDS_ORIGINAL, "points")


async def test_a_burn_s_refund_is_reimbursed_at_the_burn_s_price(open_till: OpenTill) -> None:
    terms: list[Table] = [
        {"reimbursement": "0.009000", "to": Day("2017-03-31")},
        {"reimbursement": "0.005000", "from": Day("2017-04-01")},
    ]
    till = await open_till(coalition(partner("grocer", terms=terms)))
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.burn("b", 50))
    till.clock.to(2017, 4, 10)
    await till.accept(till.reversal("v", "b", points=20))

    columns = ("reimbursement_micro", "pool_value_micro", "reverses_period_id", "period_id")
    assert await till.movements("v", *columns) == [(-180_000, 200_000, MARCH, APRIL)]
    assert await till.rows("SELECT amount_micro, prior_amount_micro FROM position WHERE kind = 'BURN_REVERSAL'") == [
        (-180_000, -180_000)
    ]

"""Balances below zero: what a return could not take back is owed, and whatever points come later pay it back."""

from datetime import timedelta

import pytest

from domain.commands import Posted, Sweep, Swept
from domain.errors import RefusalCode
from domain.values import OPERATOR_ID
from tests.domain.books import contents
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.test_pool import household
from tests.domain.tills import MARCH, Till

ROW = ("kind", "points", "shortfall_points", "issue_value_micro", "service_fee_micro", "pool_value_micro")
FUEL_TERMS: Table = {"issue_price": "0.010500", "service_fee": "0.001200", "reimbursement": "0.009200"}
REPAID = """
    SELECT t.points, t.issue_value_micro, t.pool_value_micro, t.lot_id IS NOT NULL, c.partner_id, c.points
      FROM transaction AS t JOIN command AS c ON c.id = t.command_id WHERE t.kind = 'REPAY' ORDER BY t.id
"""
DEBTS = "SELECT points, open_points, price_micro FROM debt ORDER BY id"
RECEIVABLE = "SELECT coalesce(-sum(amount), 0) FROM ledger_entry WHERE book = 'MEMBER_RECEIVABLE'"
SPREAD = "SELECT coalesce(sum(amount), 0) FROM ledger_entry WHERE book = 'SPREAD' AND kind = 'REPAY'"


def street(**programme: str | int | bool) -> str:
    """The usual two partners, and members who may owe points."""
    programme = {"claw_back": "negative_balance", **programme}
    return coalition(partner("grocer"), partner("fuel", terms=FUEL_TERMS), **programme)


@pytest.fixture
async def till(open_till: OpenTill) -> Till:
    return await open_till(street())


async def owing(till: Till, points: int = 80) -> Posted:
    """The first member earned 100 points, burned them all and returned goods of ``points``."""
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.burn("b", 100))
    return await till.accept(till.reversal("v", "k", amount=f"{points}.00"))


async def test_the_issuer_is_credited_in_full_and_the_member_owes_the_rest(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.purchase("other", "10.00", partner="fuel"))
    await till.accept(till.burn("b", 75, partner="fuel"))
    posted = await till.accept(till.reversal("v", "k", amount="90.00"))

    # 25 are left of its own lot, 10 of the fuel station's, and 55 are nowhere: the pool pays for 35, the operator
    # advances the rest at the price that the grocer had paid.
    assert (posted.points, posted.shortfall_points, posted.balance.available) == (90, 0, -55)
    assert await till.movements("v", *ROW) == [
        ("EARN_REVERSAL", -25, 0, 250_000, 25_000, -250_000),
        ("EARN_REVERSAL", -10, 0, 100_000, 10_000, -105_000),
        ("OVERDRAW", -55, 0, 550_000, 55_000, 0),
    ]
    assert await till.rows(DEBTS) == [(55, 55, 10_000)]
    assert await till.one(RECEIVABLE) == 550_000
    assert await till.rows(
        "SELECT partner_id, points, amount_micro FROM position WHERE kind IN ('EARN_REVERSAL', 'MEMBER_RECEIVABLE')"
        " ORDER BY partner_id"
    ) == [(0, 55, 550_000), (1, 90, 900_000)]
    assert await till.budget() == (10 * 11_000, False)
    again = await till.accept(till.reversal("v", "k", amount="90.00"))
    assert (again.replayed, again.points, again.shortfall_points, again.balance.available) == (True, 90, 0, -55)
    await till.refuse(till.burn("more", 1), RefusalCode.INSUFFICIENT_POINTS, "points")
    await till.refuse(till.authorization("hold", 1), RefusalCode.INSUFFICIENT_POINTS, "points")
    await till.refuse(till.transfer("t", 1), RefusalCode.INSUFFICIENT_POINTS, "points")


async def test_later_earning_pays_back_first_at_the_prices_of_both(till: Till) -> None:
    await owing(till)
    earned = await till.accept(till.purchase("k2", "30.00", partner="fuel"))
    assert (earned.points, earned.balance.available) == (30, -50)
    # The fuel station is charged for what it issued; of that the pool gives 30 x 0.0105, the receivable falls by
    # 30 x 0.0100, and the operator keeps the difference. It is the operator's command, which no partner sees.
    assert await till.rows(REPAID) == [(-30, 300_000, -315_000, True, OPERATOR_ID, 30)]
    assert await till.movements("k2", *ROW) == [("EARN", 30, 0, -315_000, -36_000, 315_000)]
    assert await till.rows(DEBTS) == [(80, 50, 10_000)]
    assert (await till.one(RECEIVABLE), await till.one(SPREAD)) == (500_000, 15_000)

    earned = await till.accept(till.purchase("k3", "60.00"))
    assert (earned.points, earned.balance.available) == (60, 10)
    assert await till.rows(DEBTS) == [(80, 0, 10_000)]
    assert await till.one(RECEIVABLE) == 0
    assert await till.rows("SELECT id FROM account WHERE owed <> 0") == []
    assert (await till.accept(till.burn("b2", 10))).balance.available == 0
    assert (
        await till.one(
            "SELECT count(*) FROM command WHERE kind = 'REPAYMENT' AND reverses_id = "
            "(SELECT id FROM command WHERE idempotency_key = 'v')"
        )
        == 2
    )


async def test_the_oldest_debt_is_paid_first_and_each_at_its_own_price(open_till: OpenTill) -> None:
    terms: list[Table] = [{"to": Day("2017-03-31")}, {"from": Day("2017-04-01"), "issue_price": "0.010200"}]
    till = await open_till(
        coalition(partner("grocer", terms=terms), partner("fuel", terms=FUEL_TERMS), claw_back="negative_balance")
    )
    for key, by in (("k1", "grocer"), ("k2", "fuel")):
        await till.accept(till.purchase(key, "20.00", partner=by))
    await till.accept(till.burn("b", 40))
    await till.accept(till.reversal("v1", "k1"))
    await till.accept(till.reversal("v2", "k2", partner="fuel"))
    assert await till.rows(DEBTS) == [(20, 20, 10_000), (20, 20, 10_500)]
    till.clock.to(2017, 4, 3)
    assert (await till.accept(till.purchase("k3", "25.00"))).balance.available == -15
    assert await till.rows(REPAID) == [
        (-20, 200_000, -204_000, True, OPERATOR_ID, 20),
        (-5, 52_500, -51_000, True, OPERATOR_ID, 5),
    ]
    assert (await till.one(RECEIVABLE), await till.one(SPREAD)) == (15 * 10_500, 4_000 - 1_500)
    # It is April's: the debts are of March.
    assert await till.rows(
        "SELECT period_id - 24206, points, amount_micro FROM position WHERE kind = 'MEMBER_RECEIVABLE' ORDER BY 1"
    ) == [(0, 40, 410_000), (1, -25, -252_500)]


async def test_a_limit_leaves_the_rest_a_shortfall(open_till: OpenTill) -> None:
    till = await open_till(street(negative_limit_points=60))
    posted = await owing(till, points=50)
    assert (posted.points, posted.shortfall_points, posted.balance.available) == (50, 0, -50)
    posted = await till.accept(till.reversal("v2", "k", amount="30.00"))
    assert (posted.points, posted.shortfall_points, posted.balance.available) == (10, 20, -60)
    assert await till.movements("v2", *ROW) == [
        ("EARN_REVERSAL", 0, 20, 0, 0, 0),
        ("OVERDRAW", -10, 0, 100_000, 10_000, 0),
    ]
    posted = await till.accept(till.reversal("v3", "k"))
    assert (posted.points, posted.shortfall_points, posted.balance.available) == (0, 20, -60)
    replay = await till.accept(till.reversal("v2", "k", amount="30.00"))
    assert (replay.replayed, replay.points, replay.shortfall_points) == (True, 10, 20)


async def test_what_the_operator_funded_is_owed_too(open_till: OpenTill) -> None:
    spent: Table = {"limit": "0.00", "on_limit": "OPERATOR_FUNDED"}
    till = await open_till(coalition(partner("grocer", budgets=spent), claw_back="negative_balance"))
    posted = await owing(till)
    assert (posted.points, posted.balance.available) == (80, -80)
    assert await till.rows("SELECT kind, amount_micro FROM position WHERE partner_id = 0 ORDER BY kind") == [
        ("MEMBER_RECEIVABLE", 800_000),
        ("POOL", 0),
        ("SUBSIDY", -200_000),
    ]


async def test_pending_points_pay_back_once_they_are_usable(open_till: OpenTill) -> None:
    till = await open_till(
        coalition(
            partner("grocer"), partner("fuel", terms={**FUEL_TERMS, "pending_days": 3}), claw_back="negative_balance"
        )
    )
    await owing(till)
    earned = await till.accept(till.purchase("k2", "100.00", partner="fuel"))
    assert (earned.balance.available, earned.balance.pending) == (-80, 100)
    till.clock.forward(days=5)
    # Of those that are due 20 are left to spend: the debt has a claim on the others.
    await till.refuse(till.burn("b2", 21), RefusalCode.INSUFFICIENT_POINTS, "points")
    await till.refuse(till.transfer("t2", 21), RefusalCode.INSUFFICIENT_POINTS, "points")
    given = await till.accept(till.transfer("t3", 5))
    assert (given.balance.available, given.balance.pending) == (15, 0)
    burned = await till.accept(till.burn("b3", 15))
    assert (burned.balance.available, burned.balance.pending) == (0, 0)
    assert await till.rows(REPAID) == [(-80, 800_000, -840_000, True, OPERATOR_ID, 80)]


async def test_a_sweep_that_confirms_pays_back(open_till: OpenTill) -> None:
    till = await open_till(
        coalition(
            partner("grocer"), partner("fuel", terms={**FUEL_TERMS, "pending_days": 3}), claw_back="negative_balance"
        )
    )
    await owing(till)
    await till.accept(till.purchase("k2", "30.00", partner="fuel"))
    till.clock.forward(days=5)
    account_id = await till.one("SELECT id FROM account WHERE owed > 0")
    swept = await till.queue.post(Sweep(account_id))
    assert isinstance(swept, Swept)
    assert swept.confirmed_points == 30
    assert await till.rows(DEBTS) == [(80, 50, 10_000)]


async def test_points_that_come_back_from_a_burn_or_a_hold_pay_back(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.burn("b", 40))
    await till.accept(till.authorization("h1", 30, partner="fuel"))
    await till.accept(till.authorization("h2", 30, partner="fuel"))
    posted = await till.accept(till.reversal("v", "k", amount="90.00"))
    # What is held was promised to the fuel station: it is not taken back.
    assert (posted.points, posted.balance.available, posted.balance.held) == (90, -90, 60)
    captured = await till.accept(till.capture("c", "h1", 10, partner="fuel"))
    assert (captured.points, captured.balance.available, captured.balance.held) == (10, -70, 30)
    refunded = await till.accept(till.reversal("w", "b"))
    assert (refunded.points, refunded.balance.available) == (40, -30)
    till.clock.forward(days=8)
    # The hold's time is over: whoever comes by sets its points free, and they pay the rest, though the burn is refused.
    outcome = await till.queue.post(till.burn("b2", 1))
    assert outcome.code == RefusalCode.INSUFFICIENT_POINTS  # type: ignore[union-attr]
    assert await till.rows(DEBTS) == [(90, 0, 10_000)]
    assert await till.available() == 0


async def test_a_gift_pays_back_and_what_is_past_does_not(open_till: OpenTill) -> None:
    till = await open_till(street(expiry_months=1))
    await owing(till)
    await till.accept(till.purchase("theirs", "50.00", card="card-2"))
    given = await till.accept(till.transfer("t", 30, source="card-2", target="card-1"))
    assert given.balance.available == 20
    assert await till.rows(DEBTS) == [(80, 50, 10_000)]
    # Late by a month: what it earns is expired already when it is refunded, so nothing of it pays.
    till.clock.to(2017, 4, 20)
    assert (
        await till.accept(till.purchase("k2", "10.00", at=till.clock.now - timedelta(days=1)))
    ).balance.available == -40


async def test_an_owing_duplicate_is_not_merged_but_may_be_kept(till: Till) -> None:
    await owing(till)
    await till.accept(till.purchase("theirs", "50.00", card="card-2"))
    await till.refuse(till.merge("m", "card-2", "card-1"), RefusalCode.MERGE_NOT_POSSIBLE, "duplicate")
    await till.accept(till.merge("m", "card-1", "card-2"))
    assert await till.rows(DEBTS) == [(80, 30, 10_000)]
    await till.refuse(till.unmerge("u", "m"), RefusalCode.MERGE_NOT_POSSIBLE)


async def test_a_return_of_a_merged_member_s_purchase_is_owed_by_who_stands_for_it(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00", card="card-2"))
    await till.accept(till.burn("b", 100, card="card-2"))
    await till.accept(till.merge("m"))
    posted = await till.accept(till.reversal("v", "k", amount="40.00"))
    assert (posted.points, posted.balance.available) == (40, -40)
    # Nothing moved with the merge, yet it cannot be undone: the debt is of the duplicate's purchase.
    await till.refuse(till.unmerge("u", "m"), RefusalCode.MERGE_NOT_POSSIBLE)
    earned = await till.accept(till.purchase("k2", "45.00"))
    assert earned.balance.available == 5
    await till.accept(till.unmerge("u", "m"))


async def test_who_owes_joins_no_pool_and_an_owing_pool_is_not_left_last(till: Till) -> None:
    await owing(till, points=10)
    await till.refuse(till.founding("c", "card-1"), RefusalCode.POOL_NOT_POSSIBLE, "head")
    await till.accept(till.purchase("paid", "10.00"))
    await household(till)
    await till.accept(till.reversal("v2", "k", amount="20.00"))
    await till.accept(till.leaving("l"))
    await till.refuse(till.leaving("m", "card-1"), RefusalCode.POOL_NOT_POSSIBLE, "member")


async def test_nobody_owes_unless_the_programme_says_so(open_till: OpenTill) -> None:
    till = await open_till(street(claw_back="all_lots"))
    posted = await owing(till)
    assert (posted.points, posted.shortfall_points, posted.balance.available) == (0, 80, 0)
    assert await till.rows(DEBTS) == []


async def test_a_batch_owes_and_pays_back_in_order(till: Till) -> None:
    earned, burned, returned, again, late = await till.accept_all(
        [
            till.purchase("k", "100.00"),
            till.burn("b", 100),
            till.reversal("v", "k", amount="80.00"),
            till.purchase("k2", "100.00", partner="fuel"),
            till.reversal("v2", "k2", partner="fuel"),
        ]
    )
    assert (earned.balance.available, burned.balance.available, returned.balance.available) == (100, 0, -80)
    # 20 were left of the second purchase, 80 had paid for the first: so those are owed now.
    assert (again.balance.available, late.points, late.balance.available) == (20, 100, -80)
    assert await till.rows(DEBTS) == [(80, 0, 10_000), (80, 80, 10_500)]


async def test_the_database_keeps_debts(till: Till) -> None:
    await owing(till)
    for sql in (
        "UPDATE debt SET open_points = 81",
        "UPDATE debt SET points = 81",
        "DELETE FROM debt",
        "UPDATE account SET owed = -1",
    ):
        with pytest.raises(Exception, match=r"debt|denied|account_owed"):
            await till.rows(f"{sql} RETURNING 1")


async def test_history_pays_back_in_the_period_of_what_pays(open_till: OpenTill) -> None:
    till = await open_till(street(), is_history=True)
    days = [till.clock.now - timedelta(days=days) for days in (60, 50, 40, 5)]
    await till.accept(till.purchase("k", "100.00", at=days[0]))
    await till.accept(till.burn("b", 100, at=days[1]))
    await till.accept(till.reversal("v", "k", amount="80.00", at=days[2]))
    earned = await till.accept(till.purchase("k2", "30.00", partner="fuel", at=days[3]))
    assert earned.balance.available == -50
    booked = "SELECT kind, period_id, occurred_at FROM command WHERE kind IN ('REVERSAL', 'REPAYMENT') ORDER BY id"
    assert await till.rows(booked) == [("REVERSAL", MARCH - 1, days[2]), ("REPAYMENT", MARCH, days[3])]


async def test_a_quote_pays_nothing_back(till: Till) -> None:
    await owing(till)
    before = await contents(till.database)
    quoted = await till.queue.quote(till.purchase("q", "30.00", partner="fuel"))
    assert isinstance(quoted, Posted)
    assert (quoted.points, quoted.balance.available) == (30, -50)
    assert await contents(till.database) == before

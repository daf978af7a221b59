"""Returns that find their points held: what comes back of them makes the shortfall good first."""

from datetime import timedelta

import pytest

from domain.commands import Command, Sweep, Swept
from domain.database import Database
from settlement.verifying import verify
from tests.domain.books import contents
from tests.domain.coalitions import Day, Table, campaign, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.test_pool import household
from tests.domain.tills import APRIL, MARCH, Till

ROW = ("kind", "points", "requested_points", "shortfall_points", "issue_value_micro", "service_fee_micro",
       "pool_value_micro", "budget_micro")  # fmt: skip
RECALLED = """
    SELECT c.kind, c.partner_id, c.amount_minor, c.reference, c.period_id, t.party_id, t.points, t.shortfall_points,
           t.issue_value_micro, t.pool_value_micro, t.reverses_period_id
      FROM command AS c JOIN transaction AS t ON t.command_id = c.id
     WHERE c.idempotency_key LIKE 'system:recall:%' ORDER BY t.id
"""
LEFT_CHARGED = "SELECT sum(shortfall_points) FROM transaction"


async def returned_while_held(till: Till, points: int = 80) -> None:
    """100 points, so many of them held, and all goods returned: 20 are taken, 80 are missing."""
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.authorization("a", points, partner="fuel"))
    posted = await till.accept(till.reversal("v", "k"))
    assert (posted.points, posted.shortfall_points) == (100 - points, points)
    assert (posted.balance.available, posted.balance.held) == (0, points)


async def holds(database: Database, till: Till) -> None:
    report = await verify(database, till.clock)
    assert [(check.number, check.detail) for check in report.checks if not check.holds] == []


async def test_a_void_makes_the_shortfall_good(till: Till, database: Database) -> None:
    await returned_while_held(till)
    voided = await till.accept(till.void("v2", "a", partner="fuel"))
    assert (voided.points, voided.balance.available, voided.balance.held) == (80, 0, 0)
    # As the return would have taken them: at the award's prices, in the name of the purchase's partner.
    grocer = till.id_of("grocer")
    assert await till.rows(RECALLED) == [
        ("REVERSAL", grocer, 0, "k", MARCH, grocer, -80, -80, 800_000, -800_000, MARCH),
    ]
    assert await till.budget() == (0, False)
    assert await till.one(LEFT_CHARGED) == 0
    # Sent again all three say what they said; the return is still of 20.
    again = await till.accept(till.reversal("v", "k"))
    assert (again.replayed, again.points, again.shortfall_points) == (True, 20, 80)
    before = await contents(database)
    assert (await till.accept(till.void("v2", "a", partner="fuel"))).replayed
    assert await contents(database) == before
    await holds(database, till)


@pytest.mark.parametrize("passer_by", ["a sweep", "a burn", "the next return"])
async def test_a_time_out_does_whoever_finds_it(till: Till, database: Database, passer_by: str) -> None:
    await returned_while_held(till)
    await till.accept(till.purchase("later", "10.00"))
    till.clock.forward(days=7)
    commands: dict[str, Command] = {
        "a sweep": Sweep(till.members["card-1"].account_id),
        "a burn": till.burn("b", 10),
        "the next return": till.reversal("v2", "later"),
    }
    outcome = await till.queue.post(commands[passer_by])
    assert not isinstance(outcome, Swept) or outcome.timed_out_holds == 1
    assert [row[6:8] for row in await till.rows(RECALLED)] == [(-80, -80)]
    assert await till.available() == (10 if passer_by == "a sweep" else 0)
    await holds(database, till)


async def test_of_a_capture_in_part_the_rest(till: Till, database: Database) -> None:
    await returned_while_held(till)
    captured = await till.accept(till.capture("c", "a", 50, partner="fuel"))
    assert (captured.points, captured.balance.available) == (50, 0)
    assert [row[6:8] for row in await till.rows(RECALLED)] == [(-30, -30)]
    # What was spent stays charged, as without a hold.
    assert await till.one(LEFT_CHARGED) == 50
    assert await till.budget() == (50 * 11_000, False)
    await holds(database, till)


async def test_what_is_spent_whole_stays_charged(till: Till) -> None:
    await returned_while_held(till)
    await till.accept(till.capture("c", "a", partner="fuel"))
    assert await till.rows(RECALLED) == []
    assert await till.one(LEFT_CHARGED) == 80


async def test_more_comes_back_than_is_missing(till: Till) -> None:
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.authorization("a", 80, partner="fuel"))
    posted = await till.accept(till.reversal("v", "k", amount="50.00"))
    assert (posted.points, posted.shortfall_points) == (20, 30)
    await till.accept(till.void("v2", "a", partner="fuel"))
    assert await till.available() == 50
    # The rest of the goods finds what is the member's by now, and nothing is missing any more.
    rest = await till.accept(till.reversal("v3", "k"))
    assert (rest.points, rest.shortfall_points, rest.balance.available) == (50, 0, 0)


async def test_whichever_hold_lets_go_and_whichever_return_came_first(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.authorization("a", 50, partner="fuel"))
    await till.accept(till.authorization("b", 50, partner="fuel"))
    await till.accept(till.reversal("v1", "k", amount="30.00"))
    await till.accept(till.reversal("v2", "k", amount="40.00"))
    # The first is spent; of the second 50 come back: 30 for the first return, 20 of 40 for the second.
    await till.accept(till.capture("c", "a", partner="fuel"))
    await till.accept(till.void("v", "b", partner="fuel"))
    assert [row[6:8] for row in await till.rows(RECALLED)] == [(-30, -30), (-20, -20)]
    assert (await till.available(), await till.one(LEFT_CHARGED)) == (0, 20)
    # Points that are held later owe nothing to returns of before.
    await till.accept(till.purchase("later", "60.00"))
    await till.accept(till.authorization("c2", 60))
    await till.accept(till.void("v3", "c2"))
    assert await till.available() == 60
    await holds(database, till)


async def test_all_in_one_batch(till: Till) -> None:
    await till.accept_all(
        [
            till.purchase("k", "100.00"),
            till.authorization("a", 80, partner="fuel"),
            till.reversal("v", "k"),
            till.void("v2", "a", partner="fuel"),
        ]
    )
    assert [row[6:8] for row in await till.rows(RECALLED)] == [(-80, -80)]
    assert await till.available() == 0


async def test_other_lots_of_the_issuer_but_not_of_others(open_till: OpenTill, database: Database) -> None:
    prices: list[Table] = [{"to": Day("2017-03-31")}, {"from": Day("2017-04-01"), "issue_price": "0.010200"}]
    till = await open_till(coalition(partner("grocer", terms=prices), partner("fuel")))
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.burn("b", 100))
    till.clock.to(2017, 4, 2)
    await till.accept(till.purchase("k2", "30.00"))
    await till.accept(till.purchase("k3", "30.00", partner="fuel"))
    await till.accept(till.authorization("a", 60))
    await till.accept(till.reversal("v", "k", amount="50.00"))
    till.clock.to(2017, 4, 5)
    await till.accept(till.void("v2", "a"))
    # 30 of the grocer's lot of April: credited at March's price, out of the pool at April's, prior-period.
    grocer = till.id_of("grocer")
    assert await till.rows(RECALLED) == [
        ("REVERSAL", grocer, 0, "k", APRIL, grocer, -30, -30, 300_000, -306_000, MARCH),
    ]
    assert (await till.available(), await till.one(LEFT_CHARGED)) == (30, 20)
    assert await till.budget(period_id=APRIL) == (30 * 11_200 - 30 * 11_000, False)
    await holds(database, till)


async def test_where_all_lots_are_clawed_back(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), partner("fuel"), claw_back="all_lots"))
    await till.accept(till.purchase("k", "50.00"))
    await till.accept(till.burn("b", 50))
    await till.accept(till.purchase("k2", "30.00", partner="fuel"))
    await till.accept(till.authorization("a", 30))
    await till.accept(till.reversal("v", "k"))
    await till.accept(till.void("v2", "a"))
    assert (await till.available(), await till.one(LEFT_CHARGED)) == (0, 20)


async def test_debts_beside_it(open_till: OpenTill, database: Database) -> None:
    till = await open_till(
        coalition(partner("grocer"), partner("fuel"), claw_back="negative_balance", negative_limit_points=30)
    )
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.authorization("a", 80, partner="fuel"))
    posted = await till.accept(till.reversal("v", "k"))
    # 20 are there, 30 may be owed, 50 stay charged; of the 80 that come back 50 go to the grocer and 30 to the debt.
    assert (posted.points, posted.shortfall_points, posted.balance.available) == (50, 50, -30)
    voided = await till.accept(till.void("v2", "a", partner="fuel"))
    assert (voided.points, await till.available(), await till.one("SELECT sum(owed) FROM account")) == (80, 0, 0)
    assert await till.one(LEFT_CHARGED) == 0
    await holds(database, till)


async def test_points_that_expired_while_they_were_held(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", hold_minutes=60 * 24 * 60), expiry_months=1))
    await till.accept(till.purchase("k", "100.00"))
    await till.accept(till.authorization("a", 80))
    till.clock.to(2017, 4, 10)
    await till.accept(till.reversal("v", "k"))
    till.clock.to(2017, 4, 20)
    await till.accept(till.void("v2", "a"))
    # They came back with days of grace, and so they are there to be taken.
    assert await till.one(LEFT_CHARGED) == 0
    assert await till.available() == 0


async def test_the_purchase_was_on_another_account(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k", "100.00"))
    await household(till)
    await till.accept(till.authorization("a", 80, card="card-2", partner="fuel"))
    posted = await till.accept(till.reversal("v", "k"))
    assert (posted.points, posted.shortfall_points) == (20, 80)
    await till.accept(till.void("v2", "a", partner="fuel"))
    assert [row[6:8] for row in await till.rows(RECALLED)] == [(-80, -80)]
    assert await till.one("SELECT sum(available + held) FROM account") == 0
    await holds(database, till)


async def test_the_purchase_was_a_duplicate_s(till: Till, database: Database) -> None:
    await till.accept(till.purchase("k", "100.00", card="card-2"))
    await till.accept(till.merge("m"))
    await till.accept(till.authorization("a", 80, partner="fuel"))
    posted = await till.accept(till.reversal("v", "k", amount="90.00"))
    assert (posted.points, posted.shortfall_points) == (20, 70)
    # The void finds its own account only, and begins again with the duplicate's.
    await till.accept(till.void("v2", "a", partner="fuel"))
    assert (await till.available(), await till.one(LEFT_CHARGED)) == (10, 0)
    await holds(database, till)


async def test_the_window_and_the_float_that_paid_get_it_back(open_till: OpenTill, database: Database) -> None:
    prepaid: Table = {"limit": "5.00", "funding": "PREPAID", "to": Day("2017-12-31")}
    bonus = campaign("spring", ("grocer", "1"), bonus_points=50, budget={"limit": "9.00", "on_limit": "PARTIAL"})
    till = await open_till(
        coalition(partner("grocer", hold_minutes=60 * 24 * 60), partner("fuel", budgets=prepaid), bonus)
    )
    await till.accept(till.purchase("k", "50.00"))
    await till.accept(till.purchase("f", "40.00", partner="fuel"))
    await till.accept(till.authorization("a", 190))
    await till.accept(till.reversal("v", "k"))
    await till.accept(till.reversal("w", "f", partner="fuel"))
    used = "SELECT sum(consumed_micro) FROM budget"
    assert await till.one(used) == 190 * 11_000
    till.clock.to(2017, 4, 2)
    await till.accept(till.void("v2", "a"))
    # In April: March's own window is over, so April's is credited; campaign and float get back what they gave.
    assert await till.budget(period_id=APRIL) == (-50 * 11_000, False)
    assert await till.budget(period_id=MARCH) == (50 * 11_000, False)
    assert await till.one(used) == 0
    assert await till.one("SELECT sum(used_micro) FROM float_block") == 0
    await holds(database, till)


async def test_in_history_it_is_booked_where_it_happened(open_till: OpenTill, database: Database) -> None:
    till = await open_till(is_history=True)
    march, april = till.clock.now, till.clock.now + timedelta(days=20)
    till.clock.forward(days=90)
    await till.accept(till.purchase("k", "100.00", at=march))
    await till.accept(till.authorization("a", 80, at=march, partner="fuel"))
    await till.accept(till.reversal("v", "k", at=march + timedelta(days=1)))
    await till.accept(till.purchase("later", "5.00", at=april))
    await till.accept(till.burn("b", 5, at=april))
    assert [(row[4], *row[6:8], row[10]) for row in await till.rows(RECALLED)] == [(APRIL, -80, -80, MARCH)]
    await holds(database, till)

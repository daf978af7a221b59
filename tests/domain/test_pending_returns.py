"""Returns of purchases whose points are pending, were confirmed, or both in turn: the sums are exact."""

from datetime import UTC, datetime

from domain.errors import RefusalCode
from tests.domain.coalitions import Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.test_pending import FOURTEEN_DAYS, PRICE, balance, budget_of
from tests.domain.tills import APRIL, MARCH, Till

ROW = ("kind", "points", "requested_points", "issue_value_micro", "budget_micro", "reverses_period_id", "period_id")
TWO_RULES: list[Table] = [
    {"code": "base", "points_per_unit": "1"},
    {"code": "extra", "points_per_unit": "0.5", "max_points": 20},
]
TWO_AWARDS = coalition(partner("grocer", terms={"pending_days": 14}, rules=TWO_RULES), partner("fuel"))


async def confirmed(till: Till, card: str = "card-1") -> None:
    """The return window is over, and a burn of one point has confirmed what was due."""
    till.clock.to(2017, 3, 30)
    await till.accept(till.burn(f"confirms-{card}", 1, card=card, partner="fuel"))


async def test_a_return_while_pending_cancels_and_frees_the_budget(open_till: OpenTill) -> None:
    till = await open_till(TWO_AWARDS)
    await till.accept(till.purchase("k", "50.00"))  # 50 and 20
    assert await budget_of(till) == (0, 70 * PRICE)

    posted = await till.accept(till.reversal("r", "k", amount="15.00"))

    # 35.00 are kept: 35 of the base, and 17 of the extra points.
    assert (posted.points, posted.shortfall_points, posted.balance.pending) == (18, 0, 52)
    assert posted.budget is not None
    assert (posted.budget.consumed_micro, posted.budget.reserved_micro) == (0, 52 * PRICE)
    assert await till.movements("r", *ROW) == [
        ("CANCEL", -15, 15, 0, 0, None, MARCH),
        ("CANCEL", -3, 3, 0, 0, None, MARCH),
    ]
    replay = await till.accept(till.reversal("r", "k", amount="15.00", at=posted.command.occurred_at))
    assert (replay.replayed, replay.points, replay.balance) == (True, 18, posted.balance)

    await confirmed(till)
    assert await balance(till) == (51, 0)
    assert await budget_of(till) == (52 * PRICE, 0)


async def test_a_whole_return_while_pending_leaves_nothing_to_confirm(open_till: OpenTill) -> None:
    till = await open_till(TWO_AWARDS)
    await till.accept_all([till.purchase("k", "50.00"), till.purchase("other", "1.00", partner="fuel")])

    await till.accept(till.reversal("r", "k"))

    assert await balance(till) == (1, 0)
    assert await budget_of(till) == (0, 0)
    await till.refuse(till.reversal("r2", "k"), RefusalCode.ALREADY_REVERSED)
    await confirmed(till)
    assert await till.rows("SELECT * FROM command WHERE kind = 'CONFIRMATION'") == []


async def test_a_return_that_takes_no_points_is_a_row_before_and_after(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    await till.accept(till.purchase("k", "10.50"))
    await till.accept(till.reversal("r", "k", amount="0.20"))
    await confirmed(till)
    await till.accept(till.reversal("r2", "k", amount="0.20"))
    assert await till.movements("r", *ROW) == [("CANCEL", 0, 0, 0, 0, None, MARCH)]
    assert await till.movements("r2", *ROW) == [("EARN_REVERSAL", 0, 0, 0, 0, MARCH, MARCH)]
    await till.accept(till.reversal("r3", "k"))
    assert await balance(till) == (0, 0)


async def test_after_the_confirmation_a_return_reverses_what_carried_the_money(open_till: OpenTill) -> None:
    till = await open_till(TWO_AWARDS)
    await till.accept(till.purchase("k", "50.00"))
    await till.accept(till.reversal("r1", "k", amount="15.00"))  # 35 and 17 stay
    await confirmed(till)
    till.clock.to(2017, 4, 2)

    posted = await till.accept(till.reversal("r2", "k", amount="5.50"))  # 29 and 14 stay

    assert (posted.points, posted.shortfall_points) == (9, 0)
    assert await till.movements("r2", *ROW) == [
        ("EARN_REVERSAL", -6, 6, 60_000, -66_000, MARCH, APRIL),
        ("EARN_REVERSAL", -3, 3, 30_000, -33_000, MARCH, APRIL),
    ]
    assert await till.rows(
        "SELECT o.kind, o.points FROM transaction AS t JOIN transaction AS o ON o.id = t.reverses_id"
        " WHERE t.kind = 'EARN_REVERSAL' ORDER BY t.id"
    ) == [("CONFIRM", 35), ("CONFIRM", 17)]
    # March's window is over, so that April's is credited.
    assert await budget_of(till) == (52 * PRICE, 0)
    assert await budget_of(till, period_id=APRIL) == (-9 * PRICE, 0)
    await till.accept(till.reversal("r3", "k"))
    # One of the points was burned: it cannot be taken back.
    assert await till.rows(
        "SELECT sum(points), sum(shortfall_points) FROM transaction WHERE kind = 'EARN_REVERSAL'"
    ) == [(-51, 1)]
    assert await balance(till) == (0, 0)


async def test_an_award_that_was_cancelled_whole_stays_so_after_the_other_s_confirmation(open_till: OpenTill) -> None:
    rules: list[Table] = [
        {"code": "base", "points_per_unit": "1"},
        {"code": "wine", "points_per_unit": "1", "exclude_categories": ["food"]},
    ]
    till = await open_till(coalition(partner("grocer", terms={"pending_days": 14}, rules=rules), partner("fuel")))
    lines = [("bread", "food", "1", "10.00"), ("red", "wine", "2", "20.00")]
    await till.accept(till.purchase("k", "30.00", lines=lines))
    await till.accept(till.reversal("r1", "k", lines=[("red", "wine", "2", "20.00")]))
    assert await till.rows("SELECT granted, open_points FROM pending_award ORDER BY id") == [(30, 10), (20, 0)]
    await confirmed(till)
    assert await balance(till) == (9, 0)
    await till.accept(till.reversal("r2", "k"))
    assert await till.movements("r2", "kind", "points", "shortfall_points") == [("EARN_REVERSAL", -9, 1)]


async def test_a_return_in_a_later_period_while_still_pending_moves_no_money(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", terms={"pending_days": 60}), partner("fuel")))
    await till.accept(till.purchase("k", "50.00"))
    till.clock.to(2017, 4, 10)

    posted = await till.accept(till.reversal("r", "k", amount="20.00"))

    assert await till.movements("r", *ROW) == [("CANCEL", -20, 20, 0, 0, None, APRIL)]
    # What it reserved of March's window is free again; April's, which the receipt shows, was never touched.
    assert await budget_of(till) == (0, 30 * PRICE)
    assert posted.budget is not None
    assert (posted.budget.consumed_micro, posted.budget.reserved_micro) == (0, 0)


async def test_use_or_lose_frees_a_reservation_in_its_own_window(open_till: OpenTill) -> None:
    shop = partner("grocer", terms={"pending_days": 60}, budgets={"after_period": "USE_OR_LOSE"})
    till = await open_till(coalition(shop, partner("fuel")))
    await till.accept(till.purchase("k", "50.00"))
    till.clock.to(2017, 4, 10)
    await till.accept(till.reversal("r", "k"))
    assert await budget_of(till) == (0, 0)


async def test_a_return_takes_nothing_of_what_other_purchases_have_pending(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    await till.accept(till.purchase("old", "30.00", at=datetime(2017, 2, 20, 12, tzinfo=UTC)))  # usable at once
    await till.accept(till.purchase("new", "30.00"))
    await till.accept(till.burn("b", 30, partner="fuel"))
    posted = await till.accept(till.reversal("r", "old"))
    assert (posted.points, posted.shortfall_points, posted.balance.pending) == (0, 30, 30)


async def test_a_return_that_comes_after_the_window_cancels_what_no_one_confirmed(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    await till.accept(till.purchase("k", "30.00"))
    till.clock.to(2017, 4, 3)
    await till.accept(till.reversal("r", "k", amount="10.00"))
    assert await till.movements("r", "kind", "points") == [("CANCEL", -10)]
    await till.accept(till.burn("b", 20))
    assert await budget_of(till) == (20 * PRICE, 0)


async def test_returns_of_one_batch_in_turn(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    await till.accept(till.purchase("k", "30.00"))
    till.clock.to(2017, 4, 3)
    await till.accept_all(
        [
            till.reversal("r1", "k", amount="10.00"),
            till.burn("b", 5),
            till.reversal("r2", "k", amount="10.00"),
            till.reversal("r3", "k", amount="10.00"),
        ]
    )
    assert await till.rows("SELECT kind, points, shortfall_points FROM transaction ORDER BY id") == [
        ("EARN_PENDING", 30, 0),
        ("CANCEL", -10, 0),
        ("CONFIRM", 20, 0),
        ("BURN", -5, 0),
        ("EARN_REVERSAL", -10, 0),
        ("EARN_REVERSAL", -5, 5),
    ]
    assert await balance(till) == (0, 0)


async def test_more_than_is_kept_is_refused_and_changes_nothing(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    await till.accept(till.purchase("k", "30.00"))
    await till.accept(till.reversal("r", "k", amount="20.00"))
    await till.refuse(till.reversal("r2", "k", amount="12.00"), RefusalCode.EXCEEDS_ORIGINAL, "amount")

"""Pending points: what begins pending, what makes it usable, and what returns take of it before and after."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.commands import Enrolled, Posted, Swept
from domain.errors import RefusalCode
from domain.sweeping import Due
from tests.domain.books import contents
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.test_sweeping import account_of, due, swept
from tests.domain.tills import MARCH, Till

PRICE = 11_000
FOURTEEN_DAYS = coalition(partner("grocer", terms={"pending_days": 14}), partner("fuel"))
PAID_FIRST = coalition(partner("grocer", terms={"pending_days": 14}, risk="PAID_FIRST"))
MOVEMENT = ("kind", "points", "issue_value_micro", "service_fee_micro", "pool_value_micro", "budget_micro", "period_id")


async def balance(till: Till, card: str = "card-1") -> tuple[int, int]:
    """(available, pending) of a member's account."""
    [row] = await till.rows(
        "SELECT a.available, a.pending FROM account AS a WHERE a.id = :id", id=till.members[card].account_id
    )
    return row[0], row[1]


async def budget_of(till: Till, partner_code: str = "grocer", period_id: int = MARCH) -> tuple[int, int]:
    """(consumed, reserved) in micro-units of a partner's window."""
    [row] = await till.rows(
        "SELECT consumed_micro, reserved_micro FROM budget WHERE partner_id = :partner AND period_id = :period",
        partner=till.id_of(partner_code),
        period=period_id,
    )
    return row[0], row[1]


async def test_a_purchase_in_its_return_window_earns_pending_points(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)

    posted = await till.accept(till.purchase("k", "100.00"))

    assert (posted.points, posted.balance.available, posted.balance.pending) == (100, 0, 100)
    assert posted.budget is not None
    assert (posted.budget.consumed_micro, posted.budget.reserved_micro) == (0, 100 * PRICE)
    [award] = posted.awards
    # 15 March and fourteen days more: usable when 29 March is over in Berlin, where summer has begun by then.
    assert award.pending_until == datetime(2017, 3, 29, 22, tzinfo=UTC)
    assert not award.waits_for_payment
    assert await till.movements("k", *MOVEMENT) == [("EARN_PENDING", 100, 0, 0, 0, 0, MARCH)]
    assert await till.rows("SELECT granted, open_points, reserved_micro FROM pending_award") == [(100, 100, 1_100_000)]
    assert await till.rows("SELECT * FROM lot") == []
    assert await balance(till) == (0, 100)


async def test_pending_points_cannot_be_burned_before_and_can_be_on_the_instant(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    await till.accept(till.purchase("k", "100.00"))
    till.clock.to(2017, 3, 29, 21, 59)
    await till.refuse(till.burn("b", 1, partner="fuel"), RefusalCode.INSUFFICIENT_POINTS, "points")
    till.clock.to(2017, 3, 29, 22)

    posted = await till.accept(till.burn("b", 60, partner="fuel"))

    assert (posted.balance.available, posted.balance.pending) == (40, 0)
    [(key,)] = await till.rows("SELECT idempotency_key FROM command WHERE kind = 'CONFIRMATION'")
    assert key.startswith("system:confirm:")
    assert await till.movements(key, *MOVEMENT) == [("CONFIRM", 100, -1_000_000, -100_000, 1_000_000, 1_100_000, MARCH)]
    assert await budget_of(till) == (100 * PRICE, 0)
    assert await till.rows("SELECT granted, remaining, earned_at, expires_at FROM lot") == [
        (100, 40, datetime(2017, 3, 15, 12, tzinfo=UTC), datetime(2019, 3, 15, 23, tzinfo=UTC))
    ]


async def test_a_purchase_sent_after_its_window_earns_at_once(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    over = till.clock.now - timedelta(days=15)

    posted = await till.accept(till.purchase("k", "100.00", at=over))

    assert (posted.balance.available, posted.balance.pending, posted.awards[0].pending_until) == (100, 0, None)
    assert [kind for (kind,) in await till.movements("k", "kind")] == ["EARN"]
    assert await budget_of(till) == (100 * PRICE, 0)
    # The day before, the window lasts to the midnight that comes.
    posted = await till.accept(till.purchase("k2", "1.00", at=till.clock.now - timedelta(days=14)))
    assert posted.awards[0].pending_until == datetime(2017, 3, 15, 23, tzinfo=UTC)


async def test_terms_of_the_day_of_the_purchase_say_how_long_it_is_pending(open_till: OpenTill) -> None:
    versions: list[Table] = [
        {"pending_days": 3},
        {"from": Day("2017-03-10"), "pending_days": 0},
        {"from": Day("2017-03-20"), "pending_days": 30},
    ]
    till = await open_till(coalition(partner("grocer", terms=versions)))
    until = []
    for day in (9, 19, 20):
        till.clock.to(2017, 3, day)
        posted = await till.accept(till.purchase(f"k{day}", "1.00"))
        until.append(posted.awards[0].pending_until)
    assert until == [datetime(2017, 3, 12, 23, tzinfo=UTC), None, datetime(2017, 4, 19, 22, tzinfo=UTC)]


async def test_a_purchase_of_zero_points_has_nothing_to_wait_for(open_till: OpenTill) -> None:
    till = await open_till(PAID_FIRST)

    posted = await till.accept(till.purchase("k", "0.99"))

    assert (posted.points, posted.awards[0].pending_until, posted.awards[0].waits_for_payment) == (0, None, False)
    assert await till.movements("k", "kind", "points") == [("EARN", 0)]
    await till.accept(till.reversal("r", "k"))
    assert await till.movements("r", "kind", "points") == [("EARN_REVERSAL", 0)]


@pytest.mark.parametrize(
    ("on_limit", "granted"),
    [
        ("PARTIAL", [("EARN_PENDING", 20, 1, 20), ("EARN", 0, 1, 10)]),
        ("BASE_ONLY", [("EARN_PENDING", 20, 1, 20), ("EARN", 0, 1, 10)]),
        ("OPERATOR_FUNDED", [("EARN_PENDING", 20, 1, 20), ("EARN_PENDING", 10, 0, 10)]),
    ],
)
async def test_a_budget_counts_what_is_reserved(
    open_till: OpenTill, on_limit: str, granted: list[tuple[str, int, int, int]]
) -> None:
    rules = [{"code": "base", "points_per_unit": "1"}, {"code": "extra", "points_per_unit": "0.5"}]
    shop = partner("grocer", terms={"pending_days": 1}, budgets={"limit": "0.88", "on_limit": on_limit}, rules=rules)
    till = await open_till(coalition(shop))
    await till.accept(till.purchase("first", "40.00"))  # 40 + 20 of the 80 points that the budget carries

    await till.accept(till.purchase("k", "20.00"))

    assert await till.movements("k", "kind", "points", "party_id", "requested_points") == granted
    assert await budget_of(till) == (0, 80 * PRICE)
    assert await balance(till) == (0, 60 + sum(points for _, points, _, _ in granted))


async def test_decline_refuses_what_reservations_leave_no_room_for(open_till: OpenTill) -> None:
    shop = partner("grocer", terms={"pending_days": 1}, budgets={"limit": "1.10", "on_limit": "DECLINE"})
    till = await open_till(coalition(shop, partner("fuel")))
    await till.accept(till.purchase("first", "60.00"))
    await till.refuse(till.purchase("k", "41.00"), RefusalCode.BUDGET_EXHAUSTED)
    await till.accept(till.reversal("r", "first", amount="1.00"))
    await till.accept(till.purchase("k", "41.00"))
    # Confirmed or not, the window is full.
    till.clock.forward(days=2)
    await till.accept(till.burn("b", 1, partner="fuel"))
    assert await budget_of(till) == (100 * PRICE, 0)
    await till.refuse(till.purchase("k2", "1.00"), RefusalCode.BUDGET_EXHAUSTED)


async def test_the_alert_counts_what_is_reserved_and_a_confirmation_does_not_raise_it_again(
    open_till: OpenTill,
) -> None:
    till = await open_till(coalition(partner("grocer", terms={"pending_days": 1}, budgets={"limit": "1.10"})))
    await till.accept(till.purchase("k", "79.00"))
    assert await till.budget() == (0, False)
    crossed = till.clock.now
    await till.accept(till.purchase("k2", "1.00"))
    assert await till.one("SELECT alerted_at FROM budget") == crossed
    till.clock.forward(days=2)
    await till.accept(till.burn("b", 1))
    assert await till.one("SELECT alerted_at FROM budget") == crossed
    assert await budget_of(till) == (80 * PRICE, 0)


async def test_an_operator_funded_award_is_confirmed_at_the_operator_s_cost(open_till: OpenTill) -> None:
    shop = partner("grocer", terms={"pending_days": 1}, budgets={"limit": "0", "on_limit": "OPERATOR_FUNDED"})
    till = await open_till(coalition(shop))
    await till.accept(till.purchase("k", "50.00"))
    assert await till.rows("SELECT reserved_micro, budget_id, funder_id FROM pending_award") == [(0, None, 0)]
    till.clock.forward(days=2)
    await till.accept(till.burn("b", 50))
    [key] = [key for (key,) in await till.rows("SELECT idempotency_key FROM command WHERE kind = 'CONFIRMATION'")]
    assert await till.movements(key, "party_id", *MOVEMENT) == [(0, "CONFIRM", 50, -500_000, 0, 500_000, 0, MARCH)]


async def test_a_burn_confirms_every_purchase_that_is_due_and_nothing_else(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    await till.accept_all([till.purchase("k1", "10.00"), till.purchase("k2", "20.00")])
    till.clock.forward(days=5)
    await till.accept(till.purchase("k3", "40.00"))
    till.clock.forward(days=12)

    await till.accept(till.burn("b", 30, partner="fuel"))

    assert await balance(till) == (0, 40)
    assert await till.rows(
        "SELECT k.idempotency_key, c.points, c.reference, c.store_id FROM command AS c"
        " JOIN command AS k ON k.id = c.reverses_id WHERE c.kind = 'CONFIRMATION' ORDER BY c.id"
    ) == [("k1", 10, "k1", 0), ("k2", 20, "k2", 0)]


async def test_a_refused_burn_confirms_nothing(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    await till.accept(till.purchase("k", "10.00"))
    till.clock.forward(days=20)
    refusal = await till.refuse(till.burn("b", 11), RefusalCode.INSUFFICIENT_POINTS, "points")
    assert refusal.message == "the member has 10 points"


async def test_a_quote_shows_what_would_be_pending(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    quoted = await till.queue.quote(till.purchase("k", "10.00"))
    assert isinstance(quoted, Posted)
    assert (quoted.balance.available, quoted.balance.pending) == (0, 10)
    assert await till.rows("SELECT * FROM pending_award") == []


async def test_one_batch_may_enrol_earn_and_return(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    outcomes = await till.queue.post_many(
        [
            till.enrolment("card-9"),
            till.purchase("k", "10.00", card="card-9"),
            till.reversal("r", "k", amount="4.00"),
            till.purchase("k", "10.00", card="card-9"),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [Enrolled, Posted, Posted, Posted]
    replay = outcomes[-1]
    assert isinstance(replay, Posted)
    assert (replay.replayed, replay.points, replay.balance.pending) == (True, 10, 6)
    assert await till.rows("SELECT granted, open_points, reserved_micro FROM pending_award") == [(10, 6, 6 * PRICE)]


async def test_a_replay_of_a_pending_purchase_shows_what_is_pending_of_it_now(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    bought_at = till.clock.now
    purchase = till.purchase("k", "10.00", at=bought_at)
    first = await till.accept(purchase)
    again = await till.accept(purchase)
    assert (again.replayed, again.awards, again.points) == (True, first.awards, 10)
    till.clock.forward(days=20)
    await till.accept(till.burn("b", 1))
    again = await till.accept(purchase)
    assert (again.replayed, again.points, again.awards[0].pending_until) == (True, 10, None)


async def test_what_is_confirmed_after_its_own_expiry_expires_next(open_till: OpenTill) -> None:
    text = coalition(partner("grocer", terms={"pending_days": 60}), partner("fuel"), expiry_months=1)
    till = await open_till(text)
    await till.accept(till.purchase("k", "10.00"))
    till.clock.to(2017, 5, 20)
    await till.accept(till.purchase("k2", "5.00", partner="fuel"))
    await till.refuse(till.burn("b", 6), RefusalCode.INSUFFICIENT_POINTS, "points")

    await till.accept(till.burn("b", 5))

    assert await balance(till) == (0, 0)
    assert await till.rows("SELECT kind, points FROM transaction WHERE points <> 0 ORDER BY id") == [
        ("EARN_PENDING", 10), ("EARN", 5), ("CONFIRM", 10), ("EXPIRE", -10), ("BURN", -5),
    ]  # fmt: skip


async def test_a_sweep_confirms_what_is_due_and_nothing_twice(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    await till.accept_all(
        [till.purchase("k1", "10.00"), till.purchase("k2", "20.00"), till.purchase("k3", card="card-2")]
    )
    account_id = account_of(till)
    release_at = datetime(2017, 3, 29, 22, tzinfo=UTC)
    till.clock.now = release_at - timedelta(microseconds=1)
    assert await swept(till) == Swept(account_id)
    assert await due(till) == []
    till.clock.now = release_at
    assert await due(till) == [Due(release_at, account_id)] * 2 + [Due(release_at, account_of(till, "card-2"))]

    assert await swept(till) == Swept(account_id, confirmed_awards=2, confirmed_points=30)

    assert (await balance(till), await balance(till, "card-2")) == ((30, 0), (0, 100))
    assert await till.rows(
        "SELECT partner_id, points, occurred_at, recorded_at, period_id FROM command WHERE kind = 'CONFIRMATION'"
    ) == [(1, 10, release_at, release_at, MARCH), (1, 20, release_at, release_at, MARCH)]
    assert await budget_of(till) == (30 * PRICE, 100 * PRICE)
    before = await contents(till.database)
    assert await swept(till) == Swept(account_id)
    assert await contents(till.database) == before
    assert await due(till) == [Due(release_at, account_of(till, "card-2"))]


async def test_what_a_late_sweep_confirms_may_expire_with_it(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", terms={"pending_days": 60}), expiry_months=1))
    await till.accept(till.purchase("k", "10.00"))
    till.clock.to(2017, 5, 20)
    assert await swept(till) == Swept(
        account_of(till), expired_lots=1, expired_points=10, confirmed_awards=1, confirmed_points=10
    )
    assert await balance(till) == (0, 0)


async def test_a_quote_an_authorization_and_a_transfer_find_usable_what_is_due(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS)
    await till.accept_all([till.purchase("k1", "60.00"), till.purchase("k2", "40.00", card="card-2")])
    till.clock.to(2017, 4, 10)
    before = await contents(till.database)
    quoted = await till.queue.quote(till.burn("q", 60, partner="fuel"))
    assert isinstance(quoted, Posted)
    assert (quoted.balance.available, quoted.balance.pending) == (0, 0)
    assert await contents(till.database) == before

    await till.accept(till.authorization("a", 50, partner="fuel"))
    await till.accept(till.transfer("t", 40, source="card-2", target="card-1"))

    assert (await balance(till), await balance(till, "card-2")) == ((50, 0), (0, 0))
    assert await budget_of(till) == (100 * PRICE, 0)

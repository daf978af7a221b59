"""When points expire: so many months after they were earned, after the account was last used, or at a year's end."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.commands import Sweep, Swept
from domain.database import Database
from domain.errors import RefusalCode
from tests.domain.books import check_books
from tests.domain.coalitions import Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.test_expiry import EXPIRIES, INSTANT, MIDNIGHT
from tests.domain.tills import Till, till_on
from tests.factories import apply_toml

TWO: list[Table] = [{"code": "base", "points_per_unit": "1"}, {"code": "more", "points_per_unit": "1"}]
GROCER = partner("grocer")
FUEL = partner("fuel", terms={"issue_price": "0.010500", "service_fee": "0.001200", "breakage_share": "0.25"})
MONTHS = coalition(GROCER, FUEL, expiry_months=1, grace_days=10)
ROLLING = coalition(GROCER, FUEL, expiry="rolling", expiry_months=1, grace_days=10)
YEAR_END = coalition(GROCER, FUEL, expiry="year_end", expiry_years=0, grace_days=10)

NEW_YEAR = datetime(2017, 12, 31, 23, tzinfo=UTC)
"""When 2018 begins in Berlin."""

MINUTES_PER_DAY = 24 * 60

LOTS = "SELECT granted, remaining, expires_at, rolling_months FROM lot ORDER BY id"


def midnight_after(month: int, day: int, *, year: int = 2017) -> datetime:
    """When that day ends in Berlin: in winter at 23:00 of Greenwich, in summer at 22:00."""
    summer = (
        datetime(year, 3, 26, tzinfo=UTC) <= datetime(year, month, day, tzinfo=UTC) < datetime(year, 10, 29, tzinfo=UTC)
    )
    return datetime(year, month, day, 22 if summer else 23, tzinfo=UTC)


async def swept(till: Till) -> Swept:
    """What a sweep of the first card's account does now."""
    outcome = await till.queue.post(Sweep(till.members["card-1"].account_id))
    assert isinstance(outcome, Swept)
    return outcome


async def next_expiry(till: Till) -> datetime:
    """What the account knows of its next expiry."""
    found: datetime = await till.one(
        "SELECT next_expires_at FROM account WHERE id = :id", id=till.members["card-1"].account_id
    )
    return found


# ---------------------------------------------------------------- the same under each policy


@pytest.mark.parametrize(
    ("toml", "past"), [(MONTHS, MIDNIGHT), (ROLLING, MIDNIGHT), (YEAR_END, NEW_YEAR)], ids=["months", "rolling", "year"]
)
async def test_points_expire_on_the_instant_at_the_lot_s_share_and_refunds_get_grace(
    open_till: OpenTill, toml: str, past: datetime
) -> None:
    till = await open_till(toml)
    grocer, fuel = till.id_of("grocer"), till.id_of("fuel")
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "33.00", partner="fuel"))
    await till.accept(till.burn("b", 40, partner="fuel"))
    till.clock.now = past - INSTANT
    assert await next_expiry(till) == past
    assert await swept(till) == Swept(till.members["card-1"].account_id)

    till.clock.now = past
    assert (await swept(till)).expired_points == 93
    # 60 x 0.0100 x 50 %; 33 x 0.0105 x 25 %.
    assert await till.rows(EXPIRIES) == [
        (grocer, grocer, grocer, -60, 300_000, -600_000),
        (fuel, fuel, fuel, -33, 86_625, -346_500),
    ]
    # The refund of a burn finds its lot past: what comes back lives for ten days, whatever happens meanwhile.
    posted = await till.accept(till.reversal("v", "b", partner="fuel"))
    assert posted.balance.available == 40
    await till.accept(till.purchase("k3", "5.00"))
    till.clock.now = past + timedelta(days=10) - INSTANT
    assert (await swept(till)).expired_points == 0
    till.clock.now = past + timedelta(days=10)
    assert await swept(till) == Swept(till.members["card-1"].account_id, expired_lots=1, expired_points=40)
    assert (await till.rows(EXPIRIES))[2:] == [(grocer, grocer, grocer, -40, 200_000, -400_000)]
    assert await till.available() == 5


@pytest.mark.parametrize(
    ("policy", "past"),
    [
        ({"expiry_months": 1}, MIDNIGHT),
        ({"expiry": "rolling", "expiry_months": 1}, MIDNIGHT),
        ({"expiry": "year_end", "expiry_years": 0}, NEW_YEAR),
    ],
    ids=["months", "rolling", "year"],
)
async def test_what_the_operator_funded_returns_to_the_operator(
    open_till: OpenTill, policy: dict[str, str | int], past: datetime
) -> None:
    budget = {"limit": "1.10", "on_limit": "OPERATOR_FUNDED"}
    till = await open_till(coalition(partner("grocer", rules=TWO, budgets=budget), **policy))
    await till.accept(till.purchase("k", "60.00"))
    till.clock.now = past
    assert (await swept(till)).expired_lots == 2

    grocer = till.id_of("grocer")
    assert await till.rows(EXPIRIES) == [
        (grocer, grocer, grocer, -60, 300_000, -600_000),
        (0, 0, grocer, -60, 600_000, -600_000),
    ]


@pytest.mark.parametrize(
    ("policy", "past"),
    [
        ({"expiry_months": 1}, MIDNIGHT),
        ({"expiry": "rolling", "expiry_months": 1}, MIDNIGHT),
        ({"expiry": "year_end", "expiry_years": 0}, NEW_YEAR),
    ],
    ids=["months", "rolling", "year"],
)
async def test_held_points_do_not_expire_and_come_back_with_grace(
    open_till: OpenTill, policy: dict[str, str | int], past: datetime
) -> None:
    till = await open_till(coalition(GROCER, hold_minutes=3 * MINUTES_PER_DAY, grace_days=10, **policy))
    await till.accept(till.purchase("k", "100.00"))
    till.clock.now = past - timedelta(days=1)
    await till.accept(till.authorization("h", 60))
    till.clock.now = past + timedelta(days=1)
    assert (await swept(till)).expired_points == 40
    assert await swept(till) == Swept(till.members["card-1"].account_id)

    # The hold runs out: what it held lives for ten days from then.
    till.clock.now = past + timedelta(days=2)
    assert (await swept(till)).timed_out_holds == 1
    assert await till.available() == 60
    till.clock.now = past + timedelta(days=12) - INSTANT
    assert (await swept(till)).expired_points == 0
    till.clock.now = past + timedelta(days=12)
    assert (await swept(till)).expired_points == 60
    grocer = till.id_of("grocer")
    assert await till.rows(EXPIRIES) == [
        (grocer, grocer, grocer, -40, 200_000, -400_000),
        (grocer, grocer, grocer, -60, 300_000, -600_000),
    ]


# ---------------------------------------------------------------- a year's end


async def test_points_of_one_year_end_together_and_the_next_year_s_a_year_later(open_till: OpenTill) -> None:
    till = await open_till(coalition(GROCER, expiry="year_end", expiry_years=1))
    await till.accept(till.purchase("spring", "10.00"))
    till.clock.now = NEW_YEAR - INSTANT
    await till.accept(till.purchase("last", "20.00"))
    till.clock.now = NEW_YEAR
    await till.accept(till.purchase("first", "40.00"))
    # A purchase of the old year that arrives in the new one belongs to the old.
    await till.accept(till.purchase("late", "80.00", at=NEW_YEAR - timedelta(days=2)))
    ends, later = midnight_after(12, 31, year=2018), midnight_after(12, 31, year=2019)
    assert await till.rows(LOTS) == [
        (10, 10, ends, None), (20, 20, ends, None), (40, 40, later, None), (80, 80, ends, None),
    ]  # fmt: skip

    till.clock.now = ends
    assert (await swept(till)).expired_points == 110
    assert await next_expiry(till) == later


# ---------------------------------------------------------------- rolling


async def test_a_purchase_moves_the_expiry_of_what_is_open(open_till: OpenTill) -> None:
    till = await open_till(ROLLING)
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("other", "7.00", card="card-2"))
    assert await next_expiry(till) == MIDNIGHT
    # Through the change to summer time, and on the last day.
    till.clock.now = MIDNIGHT - INSTANT
    await till.accept(till.purchase("k2", "1.00", partner="fuel"))
    moved = midnight_after(5, 15)
    assert await till.rows(LOTS) == [(100, 100, moved, 1), (7, 7, MIDNIGHT, 1), (1, 1, moved, 1)]
    assert await next_expiry(till) == moved

    till.clock.now = moved - INSTANT
    assert (await swept(till)).expired_points == 0
    till.clock.now = moved
    assert (await swept(till)).expired_points == 101
    assert await till.rows("SELECT DISTINCT occurred_at FROM command WHERE kind = 'EXPIRY'") == [(moved,)]


async def test_a_burn_moves_the_expiry_too_also_of_what_it_takes(open_till: OpenTill) -> None:
    till = await open_till(ROLLING)
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "50.00"))
    till.clock.to(2017, 4, 10)
    await till.accept(till.burn("b", 120, partner="fuel"))
    moved = midnight_after(5, 10)
    assert await till.rows(LOTS) == [(100, 0, moved, 1), (50, 30, moved, 1)]
    assert await next_expiry(till) == moved

    # So the refund of a burn finds its lots alive as long as the burn kept the rest alive; it is no use itself.
    till.clock.to(2017, 5, 9)
    assert (await till.accept(till.reversal("v", "b", partner="fuel"))).balance.available == 150
    assert await till.rows(LOTS) == [(100, 100, moved, 1), (50, 50, moved, 1)]
    assert await till.rows(EXPIRIES) == []


async def test_a_return_is_no_use_and_neither_is_a_replay_or_a_refusal(open_till: OpenTill) -> None:
    till = await open_till(ROLLING)
    purchase, burn = till.purchase("k1", "100.00"), till.burn("b1", 10)
    await till.accept_all([purchase, burn])
    till.clock.to(2017, 4, 10)
    await till.accept(till.reversal("v", "k1", amount="10.00"))
    await till.accept_all([purchase, burn])
    await till.refuse(till.burn("b2", 81), RefusalCode.INSUFFICIENT_POINTS, "points")
    await till.queue.quote(till.purchase("q", "5.00"))
    await till.queue.quote(till.burn("q", 5))
    assert await till.rows(LOTS) == [(100, 80, MIDNIGHT, 1)]


async def test_a_purchase_of_no_points_is_a_use(open_till: OpenTill) -> None:
    till = await open_till(ROLLING)
    await till.accept(till.purchase("k1", "100.00"))
    till.clock.to(2017, 4, 10)
    await till.accept(till.purchase("k2", "0.50"))
    assert await till.rows(LOTS) == [(100, 100, midnight_after(5, 10), 1)]


async def test_what_is_past_stays_past(open_till: OpenTill) -> None:
    till = await open_till(ROLLING)
    await till.accept(till.purchase("k1", "100.00"))
    till.clock.now = MIDNIGHT
    await till.accept(till.purchase("k2", "5.00"))
    # Nor does a purchase of the day before save it, that arrives when it is past.
    await till.accept(till.purchase("k3", "3.00", at=MIDNIGHT - timedelta(hours=3)))
    assert await till.rows(LOTS) == [
        (100, 100, MIDNIGHT, 1), (5, 5, midnight_after(5, 16), 1), (3, 3, midnight_after(5, 15), 1),
    ]  # fmt: skip
    assert await next_expiry(till) == MIDNIGHT
    assert (await swept(till)).expired_points == 100
    assert await till.available() == 8


async def test_a_late_arrival_moves_nothing_back(open_till: OpenTill) -> None:
    till = await open_till(ROLLING)
    till.clock.to(2017, 4, 10)
    await till.accept(till.purchase("k1", "100.00"))
    before, at = midnight_after(5, 10), datetime(2017, 4, 2, 12, tzinfo=UTC)
    await till.accept(till.purchase("k2", "5.00", at=at))
    assert await till.rows(LOTS) == [(100, 100, before, 1), (5, 5, midnight_after(5, 2), 1)]
    # A later use takes both along.
    till.clock.to(2017, 4, 20)
    await till.accept(till.burn("b", 1, at=datetime(2017, 4, 18, 12, tzinfo=UTC)))
    moved = midnight_after(5, 18)
    # (the burn takes what was earned first)
    assert await till.rows(LOTS) == [(100, 100, moved, 1), (5, 4, moved, 1)]


async def test_points_in_their_days_of_grace_do_not_roll(open_till: OpenTill) -> None:
    till = await open_till(ROLLING)
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.burn("b", 40))
    till.clock.now = MIDNIGHT
    await till.accept(till.reversal("v", "b"))
    till.clock.forward(days=5)
    await till.accept(till.purchase("k2", "5.00"))
    grace = MIDNIGHT + timedelta(days=10)
    assert await till.rows("SELECT expires_at, grace_until FROM lot ORDER BY id") == [
        (MIDNIGHT, grace),
        (midnight_after(5, 21), None),
    ]
    assert await next_expiry(till) == grace


async def test_held_points_roll_with_their_account_and_a_capture_is_a_use(open_till: OpenTill) -> None:
    till = await open_till(coalition(GROCER, hold_minutes=90 * MINUTES_PER_DAY, expiry="rolling", expiry_months=1))
    await till.accept(till.purchase("k1", "100.00"))
    till.clock.to(2017, 3, 20)
    await till.accept(till.authorization("h", 100))
    assert await till.rows(LOTS) == [(100, 0, MIDNIGHT, 1)]

    till.clock.to(2017, 4, 10)
    await till.accept(till.purchase("k2", "5.00"))
    moved = midnight_after(5, 10)
    assert await till.rows(LOTS) == [(100, 0, moved, 1), (5, 5, moved, 1)]
    till.clock.to(2017, 5, 2)
    await till.accept(till.capture("c", "h", 70))
    moved = midnight_after(6, 2)
    assert await till.rows(LOTS) == [(100, 30, moved, 1), (5, 5, moved, 1)]
    assert await till.rows("SELECT grace_until FROM lot WHERE grace_until IS NOT NULL") == []
    assert await next_expiry(till) == moved


async def test_a_capture_moves_the_expiry_of_what_another_hold_keeps(open_till: OpenTill) -> None:
    till = await open_till(ROLLING)
    await till.accept(till.purchase("k1", "60.00"))
    await till.accept(till.authorization("h1", 60))
    await till.accept(till.purchase("k2", "10.00"))
    await till.accept(till.authorization("h2", 10))
    till.clock.now += timedelta(days=2)
    await till.accept(till.capture("c2", "h2", 4))
    moved = till.clock.now.astimezone(UTC)
    expires_at = midnight_after(moved.month + 1, moved.day)
    # Nothing remains of the first lot: all of it is held by the hold that nobody named.
    assert await till.rows(LOTS) == [(60, 0, expires_at, 1), (10, 6, expires_at, 1)]


async def test_purchases_of_one_batch_move_each_other(open_till: OpenTill) -> None:
    till = await open_till(ROLLING)
    days = [till.clock.now - timedelta(days=day) for day in (20, 0)]
    # Enough of them that the first rows are written while the others are decided.
    await till.accept_all([till.purchase(f"k-{n}", "1.00", at=days[n // 75]) for n in range(150)])
    assert await till.rows("SELECT expires_at, count(*) FROM lot GROUP BY 1") == [(MIDNIGHT, 150)]


async def test_history_rolls_by_when_it_happened(database: Database) -> None:
    old = coalition(partner("grocer", starts="2015-01-01"), expiry="rolling", expiry_months=1)
    async with till_on(database, old, is_history=True) as till:
        await till.enrolled("card-1")
        days = [datetime(2016, 12, 3, 12, tzinfo=UTC), datetime(2017, 1, 3, 12, tzinfo=UTC)]
        await till.accept_all([till.purchase(f"k-{day.month}", "10.00", at=day) for day in days])
        await till.accept(till.burn("b", 5, at=datetime(2017, 2, 3, 22, tzinfo=UTC)))
        await till.refuse(
            till.burn("late", 1, at=datetime(2017, 3, 3, 23, tzinfo=UTC)), RefusalCode.INSUFFICIENT_POINTS, "points"
        )
        moved = midnight_after(3, 3)
        assert await till.rows(LOTS) == [(10, 5, moved, 1), (10, 10, moved, 1)]
    await check_books(database)


# ---------------------------------------------------------------- another policy


async def test_another_policy_concerns_only_what_is_earned_from_then_on(open_till: OpenTill) -> None:
    till = await open_till(MONTHS)
    await till.accept(till.purchase("fixed", "1.00"))
    await apply_toml(till.database, ROLLING.replace("expiry_months = 1", "expiry_months = 2"))
    await till.accept(till.purchase("two", "2.00"))
    await apply_toml(till.database, YEAR_END)
    till.clock.to(2017, 3, 20)
    await till.accept(till.purchase("year", "4.00"))
    two = midnight_after(5, 20)
    assert await till.rows(LOTS) == [(1, 1, MIDNIGHT, None), (2, 2, two, 2), (4, 4, NEW_YEAR, None)]

    # What rolls goes on rolling, by its own number of months, with every purchase and burn.
    await apply_toml(till.database, ROLLING)
    till.clock.to(2017, 4, 1)
    await till.accept(till.purchase("one", "8.00"))
    await apply_toml(till.database, MONTHS)
    till.clock.to(2017, 4, 3)
    await till.accept(till.purchase("fixed again", "16.00"))
    assert await till.rows(LOTS) == [
        (1, 1, MIDNIGHT, None), (2, 2, midnight_after(6, 3), 2), (4, 4, NEW_YEAR, None),
        (8, 8, midnight_after(5, 3), 1), (16, 16, midnight_after(5, 3), None),
    ]  # fmt: skip

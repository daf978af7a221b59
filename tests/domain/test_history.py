"""History: rows booked into the periods in which they happened, as far as those are open."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from domain.commands import Posted
from domain.database import Database
from domain.errors import RefusalCode
from tests.domain.books import check_books, contents
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.tills import MARCH, Till, codes, queue_on, till_on
from tests.factories import MID_MARCH

SINCE_1990: Table = {"from": Day("1990-01-01")}
OLD_SHOP = coalition(
    partner("grocer", starts="1990-01-01", budgets={"limit": "1.10"}),
    expiry_months=2,
    grace_days=5,
    max_backdate_days=1,
)
JANUARY = MARCH - 2


@pytest.fixture
async def history(database: Database) -> AsyncIterator[Till]:
    """A queue that books where things happened, on 15 March 2017."""
    async with till_on(database, OLD_SHOP, is_history=True) as till:
        await till.enroll(till.enrolment("card-1", at=utc(2016, 12, 24)))
        yield till
    await check_books(database)


def utc(*parts: int) -> datetime:
    year, month, day, *clock = parts
    hour, minute = [*clock, 12, 0][:2]
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


async def test_each_row_goes_into_its_own_period_in_any_order(history: Till) -> None:
    days = {"feb": utc(2017, 2, 10), "jan": utc(2017, 1, 31, 22, 59), "feb1": utc(2017, 1, 31, 23, 0), "mar": MID_MARCH}
    posted = await history.accept_all([history.purchase(key, "10.00", at=at) for key, at in days.items()])

    assert [receipt.command.period_id for receipt in posted] == [JANUARY + 1, JANUARY, JANUARY + 1, JANUARY + 2]
    assert {receipt.command.recorded_at for receipt in posted} == {MID_MARCH}
    assert await history.rows("SELECT period_id, consumed_micro FROM budget ORDER BY 1") == [
        (JANUARY, 110_000),
        (JANUARY + 1, 220_000),
        (JANUARY + 2, 110_000),
    ]
    assert await history.rows("SELECT period_id, points FROM position WHERE kind = 'ISSUE' ORDER BY 1") == [
        (JANUARY, 10),
        (JANUARY + 1, 20),
        (JANUARY + 2, 10),
    ]
    assert await history.rows("SELECT id, imported FROM period ORDER BY 1") == [
        (JANUARY + n, True) for n in (-1, 0, 1, 2)
    ]
    assert await history.rows("SELECT earned_at FROM lot ORDER BY id") == [(at,) for at in days.values()]


async def test_a_member_was_enrolled_when_it_happened(history: Till) -> None:
    assert await history.rows("SELECT enrolled_at FROM member") == [(utc(2016, 12, 24),)]
    assert await history.rows("SELECT occurred_at, period_id FROM command") == [(utc(2016, 12, 24), JANUARY - 1)]


async def test_each_period_s_budget_is_its_own(history: Till) -> None:
    posted = await history.accept_all(
        [history.purchase(f"k{month}", "120.00", at=utc(2017, month, 5)) for month in (1, 2, 3)]
    )
    assert [(receipt.points, receipt.declined_points) for receipt in posted] == [(100, 20)] * 3


async def test_points_are_past_as_of_the_day_it_happened(history: Till) -> None:
    await history.accept(history.purchase("k", "100.00", at=utc(2016, 12, 28)))
    # Two months: past from Berlin's midnight after 28 February on.
    last_moment = utc(2017, 2, 28, 22, 59)
    assert (await history.accept(history.burn("b", 30, at=last_moment))).balance.available == 70
    first_moment = last_moment + timedelta(minutes=1)
    await history.refuse(history.burn("b2", 1, at=first_moment), RefusalCode.INSUFFICIENT_POINTS, "points")
    # Told in any order: what happened before still finds them.
    assert (await history.accept(history.burn("b3", 20, at=utc(2017, 2, 1)))).balance.available == 50
    await history.accept(history.purchase("k2", "5.00", at=utc(2017, 3, 1)))
    assert (await history.accept(history.burn("b4", 1, at=utc(2017, 3, 2)))).balance.available == 4
    assert await history.rows("SELECT period_id, points, occurred_at FROM transaction WHERE kind = 'EXPIRE'") == [
        (MARCH, -50, first_moment)
    ]
    # A refund of a day before the lot was past is no grace.
    assert (await history.accept(history.reversal("v", "b", at=utc(2017, 2, 20)))).points == 30
    assert await history.rows("SELECT remaining, grace_until FROM lot ORDER BY id") == [(30, None), (4, None)]


async def test_a_return_is_booked_when_it_happened_and_prior_to_its_period(history: Till) -> None:
    await history.accept(history.purchase("k", "100.00", at=utc(2017, 1, 5)))
    same = await history.accept(history.reversal("v", "k", amount="30.00", at=utc(2017, 1, 9)))
    later = await history.accept(history.reversal("w", "k", amount="30.00", at=utc(2017, 2, 9)))

    assert (same.command.period_id, later.command.period_id) == (JANUARY, JANUARY + 1)
    assert await history.rows(
        "SELECT period_id, amount_micro, prior_amount_micro FROM position WHERE kind = 'EARN_REVERSAL' ORDER BY 1"
    ) == [(JANUARY, 300_000, 0), (JANUARY + 1, 300_000, 300_000)]
    assert await history.budget(period_id=JANUARY) == (770_000, False)
    assert await history.budget(period_id=JANUARY + 1) == (-330_000, False)


async def test_the_future_is_no_history(history: Till) -> None:
    soon = MID_MARCH + timedelta(minutes=5)
    posted = await history.accept(history.purchase("soon", at=soon))

    # Its clock runs ahead: booked now.
    assert (posted.command.occurred_at, posted.command.recorded_at, posted.command.period_id) == (
        soon,
        MID_MARCH,
        MARCH,
    )
    for at in (soon + timedelta(microseconds=1), utc(2017, 4, 1), utc(2050, 1, 1), datetime.max.replace(tzinfo=UTC)):
        await history.refuse(history.purchase("k", at=at), RefusalCode.OCCURRED_IN_FUTURE, "occurredAt")
    assert await history.rows("SELECT max(id) FROM period") == [(MARCH,)]


async def test_the_border_between_the_future_and_the_next_period(open_till: OpenTill) -> None:
    border = datetime(2017, 3, 31, 22, tzinfo=UTC)
    till = await open_till(OLD_SHOP, at=border - timedelta(minutes=1), is_history=True)

    assert (await till.accept(till.purchase("k", at=border + timedelta(minutes=1)))).command.period_id == MARCH


async def test_very_old_rows(history: Till) -> None:
    posted = await history.accept(history.purchase("old", "10.00", at=utc(1990, 1, 1)))

    assert posted.command.period_id == 1990 * 12
    assert posted.balance.available == 10  # as of that day
    await history.refuse(history.purchase("k", at=utc(1989, 12, 31)), RefusalCode.TERMS_MISSING, "occurredAt")
    for at in (datetime.min.replace(tzinfo=UTC), utc(1899, 12, 31, 23, 59)):
        await history.refuse(history.purchase("k", at=at), RefusalCode.OCCURRED_TOO_LONG_AGO, "occurredAt")
        await history.refuse(history.enrolment("new", at=at), RefusalCode.OCCURRED_TOO_LONG_AGO, "occurredAt")


async def test_a_refused_row_makes_no_history(history: Till) -> None:
    before = await contents(history.database)
    refused = await history.queue.post_many(
        [
            history.purchase("k1", card="nobody", at=utc(2016, 5, 5)),
            history.burn("k2", 1, at=utc(2016, 6, 5)),
            history.reversal("k3", "k1", at=utc(2016, 7, 5)),
        ]
    )
    assert codes(refused) == {"MEMBER_NOT_FOUND": 1, "INSUFFICIENT_POINTS": 1, "TRANSACTION_NOT_FOUND": 1}
    assert await contents(history.database) == before
    assert await history.rows("SELECT min(id) FROM period WHERE imported") == [(JANUARY - 1,)]


async def test_what_lies_before_the_open_periods_goes_into_the_earliest_of_them(history: Till) -> None:
    await history.accept(history.purchase("jan", "10.00", at=utc(2017, 1, 5)))
    await history.accept(history.purchase("feb", "10.00", at=utc(2017, 2, 5)))
    async with history.database.posting() as connection:
        await connection.execute(text("UPDATE period SET state = 'CLOSING' WHERE id <= :id"), {"id": JANUARY})

    for key, at, period_id in [
        ("too late", utc(2017, 1, 6), JANUARY + 1),
        ("much too late", utc(2016, 7, 6), JANUARY + 1),
        ("in time", utc(2017, 2, 6), JANUARY + 1),
        ("now", MID_MARCH, MARCH),
    ]:
        posted = await history.accept(history.purchase(key, "10.00", at=at))
        assert (posted.command.period_id, posted.command.occurred_at) == (period_id, at)
    returned = await history.accept(history.reversal("v", "jan", at=utc(2017, 1, 7)))
    assert returned.command.period_id == JANUARY + 1
    assert await history.rows("SELECT period_id, consumed_micro FROM budget ORDER BY 1") == [
        (JANUARY, 110_000),
        (JANUARY + 1, 4 * 110_000 - 110_000),
        (MARCH, 110_000),
    ]


async def test_one_batch_over_two_years_of_periods(history: Till) -> None:
    days = [utc(2015, 1, 3) + timedelta(days=2 * number) for number in range(390)]
    posted = await history.accept_all([history.purchase(f"k{number}", "1.00", at=at) for number, at in enumerate(days)])

    assert len({receipt.command.period_id for receipt in posted}) == 26
    assert await history.one("SELECT sum(entries) FROM position WHERE kind = 'POOL'") == 390


async def test_two_imports_into_the_same_periods_at_once(history: Till, database: Database) -> None:
    async with queue_on(database, history.configuration, is_history=True) as other:
        days = [utc(2016, 1 + number % 12, 5) for number in range(120)]
        outcomes = await asyncio.gather(
            *[
                queue.post(history.purchase(f"k{turn}-{number}", "1.00", at=at))
                for number, at in enumerate(days)
                for turn, queue in enumerate((history.queue, other.queue))
            ]
        )
        same_again = await other.queue.post_many(
            [history.purchase(f"k0-{number}", "1.00", at=at) for number, at in enumerate(days)]
        )
    assert codes(outcomes) == {"posted": 240}
    assert codes(same_again) == {"replayed": 120}
    assert await history.rows("SELECT DISTINCT consumed_micro, count(*) FROM budget GROUP BY 1") == [(220_000, 12)]


async def test_live_tills_beside_an_import_book_now(history: Till, database: Database) -> None:
    async with queue_on(database, history.configuration) as live:
        command = live.purchase("live", "10.00", at=MID_MARCH - timedelta(hours=20))
        old, new = await asyncio.gather(
            history.queue.post(history.purchase("old", "10.00", at=utc(2017, 2, 5))), live.queue.post(command)
        )
        assert isinstance(old, Posted)
        assert isinstance(new, Posted)
        assert (old.command.period_id, new.command.period_id) == (JANUARY + 1, MARCH)
        late = live.purchase("late", at=MID_MARCH - timedelta(days=1, microseconds=1))
        await live.refuse(late, RefusalCode.OCCURRED_TOO_LONG_AGO, "occurredAt")

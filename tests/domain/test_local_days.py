"""Limits of one local day: days of 23 and of 25 hours, and what counts towards them."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.errors import RefusalCode
from tests.domain.coalitions import coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.test_pool import household
from tests.domain.tills import Till, codes

LIMITED = RefusalCode.LIMIT_EXCEEDED
SECOND = timedelta(seconds=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# When a local day begins and the next one does, in UTC: clocks go forward and back at night, or at midnight itself.
DAYS = {
    "23 hours": ("Europe/Berlin", at("2017-03-25T23:00"), at("2017-03-26T22:00")),
    "25 hours": ("Europe/Berlin", at("2017-10-28T22:00"), at("2017-10-29T23:00")),
    "23 hours, without a midnight": ("America/Sao_Paulo", at("2017-10-15T03:00"), at("2017-10-16T02:00")),
    "25 hours, an hour before midnight twice": ("America/Sao_Paulo", at("2018-02-17T02:00"), at("2018-02-18T03:00")),
    "25 hours, midnight twice": ("America/Havana", at("2017-11-05T04:00"), at("2017-11-06T05:00")),
}


@pytest.mark.parametrize("day", DAYS)
async def test_a_limit_lasts_from_local_midnight_to_local_midnight(open_till: OpenTill, day: str) -> None:
    zone, begins, ends = DAYS[day]
    limits = {"transfer_max_points_per_day": 30, "member_transfers": True}
    toml = coalition(partner("grocer"), partner("fuel"), timezone=zone, region="DE", **limits)
    till = await open_till(toml, at=begins - timedelta(hours=12))
    await till.enrolled("card-3")
    await till.accept_all([till.purchase(f"k-{card}", "500.00", card=card) for card in ("card-1", "card-2", "card-3")])
    await household(till, burn_limit=20)
    for number, first in enumerate((begins - timedelta(hours=1), begins, ends)):
        till.clock.now = first
        await till.accept(till.burn(f"b{number}", 20, card="card-2"))
        await till.accept(till.transfer(f"t{number}", 30, source="card-3", target="card-1", partner="grocer"))
        # The rest of that day: its last second, however long it is.
        till.clock.now = (begins, ends, ends + timedelta(hours=23))[number] - SECOND
        await till.refuse(till.burn("more", 1, card="card-2"), LIMITED, "points")
        more = till.transfer("more", 1, source="card-3", target="card-1", partner="grocer")
        await till.refuse(more, LIMITED, "points")


@pytest.fixture
async def pooled(open_till: OpenTill) -> Till:
    """A household whose second member may burn 50 points a day, and holds of an hour."""
    till = await open_till(coalition(partner("grocer", hold_minutes=60), partner("fuel")))
    await till.accept(till.purchase("k", "500.00"))
    await household(till, burn_limit=50)
    return till


async def test_a_hold_that_is_found_past_its_time_counts_no_more(pooled: Till) -> None:
    await pooled.accept(pooled.authorization("a", 50, card="card-2"))
    pooled.clock.forward(hours=1)
    assert (await pooled.accept(pooled.burn("b", 50, card="card-2"))).points == 50
    await pooled.refuse(pooled.burn("c", 1, card="card-2"), LIMITED, "points")


async def test_what_is_given_back_in_the_same_batch_counts_no_more(pooled: Till) -> None:
    await pooled.accept(pooled.authorization("a", 30, card="card-2"))
    posted = await pooled.accept_all(
        [
            pooled.capture("c", "a", 10),
            pooled.authorization("a2", 40, card="card-2"),
            pooled.void("v", "a2"),
            pooled.burn("b", 40, card="card-2"),
        ]
    )
    assert [one.points for one in posted] == [10, 40, 40, 40]
    await pooled.refuse(pooled.burn("more", 1, card="card-2"), LIMITED, "points")


async def test_what_was_held_yesterday_gives_nothing_back_today(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), partner("fuel")))
    await till.accept(till.purchase("k", "500.00"))
    await household(till, burn_limit=50)
    await till.accept(till.authorization("a", 50, card="card-2"))
    till.clock.forward(days=1)
    await till.accept(till.burn("first", 20, card="card-2"))
    outcomes = await till.queue.post_many([till.void("v", "a"), till.burn("b", 31, card="card-2")])
    assert codes(outcomes) == {"posted": 1, "LIMIT_EXCEEDED": 1}
    await till.accept(till.burn("b", 30, card="card-2"))
    await till.refuse(till.burn("more", 1, card="card-2"), LIMITED, "points")

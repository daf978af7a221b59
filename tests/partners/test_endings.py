"""Dates with which something ends, in the coalition file: what may be set, and what may no longer change."""

from typing import Any

import pytest

from domain.database import Database
from domain.errors import ConfigurationError
from partners.apply import apply_coalition, plan_coalition
from partners.coalition_file import parse_coalition
from settlement.closing import close_period
from tests.domain.coalitions import Day, coalition, partner
from tests.domain.tills import Till, till_on


def file(leaves_on: str | None = None, run_off_until: str | None = None) -> str:
    """A grocer, and a fuel station that leaves on those days."""
    dates: dict[str, Any] = {}
    if leaves_on is not None and run_off_until is not None:
        dates = {"leaves_on": Day(leaves_on), "run_off_until": Day(run_off_until)}
    return coalition(partner("grocer"), partner("fuel", **dates))


async def applied(till: Till, text: str) -> list[str]:
    """The plan's lines, which apply then does."""
    planned = await plan_coalition(till.database, parse_coalition(text), clock=till.clock)
    made = await apply_coalition(till.database, parse_coalition(text), clock=till.clock)
    assert made.plan == planned
    return planned.lines()


async def refused(till: Till, text: str) -> str:
    """Why neither plan nor apply takes the file; nothing changes."""
    before = await till.rows("SELECT * FROM partner ORDER BY id")
    with pytest.raises(ConfigurationError) as planned:
        await plan_coalition(till.database, parse_coalition(text), clock=till.clock)
    with pytest.raises(ConfigurationError) as made:
        await apply_coalition(till.database, parse_coalition(text), clock=till.clock)
    assert str(planned.value) == str(made.value)
    assert await till.rows("SELECT * FROM partner ORDER BY id") == before
    return str(made.value)


async def test_leaving_is_planned_changed_and_called_off(database: Database) -> None:
    async with till_on(database, file()) as till:
        assert await applied(till, file("2017-05-31", "2017-08-31")) == [
            "change partner fuel: leaves_on none → 2017-05-31, run_off_until none → 2017-08-31",
            "12 unchanged",
        ]
        assert (await applied(till, file("2017-06-30", "2017-08-31")))[0] == (
            "change partner fuel: leaves_on 2017-05-31 → 2017-06-30"
        )
        assert (await applied(till, file()))[0] == (
            "change partner fuel: leaves_on 2017-06-30 → none, run_off_until 2017-08-31 → none"
        )


async def test_what_has_ended_stays_ended(database: Database) -> None:
    async with till_on(database, file("2017-03-20", "2017-04-30")) as till:
        till.clock.to(2017, 3, 21)
        again = "partner fuel: it left on 2017-03-20: to take part again it needs a code of its own"
        assert await refused(till, file()) == again
        assert await refused(till, file("2017-03-25", "2017-04-30")) == again
        await applied(till, file("2017-03-20", "2017-05-15"))
        till.clock.to(2017, 5, 16)
        over = "partner fuel: its run-off ended on 2017-05-15, which stays so"
        assert await refused(till, file("2017-03-20", "2017-05-31")) == over
        for month in range(1, 6):
            till.clock.to(2017, 6, 1)
            await close_period(till.database, till.clock, f"2017-0{month}", f"{month}")
        final = "partner fuel: its final statement is that of 2017-05: leaves_on and run_off_until stay as they are"
        assert await refused(till, file("2017-03-19", "2017-05-15")) == final
        assert await refused(till, file()) == final


async def test_no_date_lies_in_a_closed_period_or_before_what_was_done(database: Database) -> None:
    async with till_on(database, file()) as till:
        till.clock.to(2017, 4, 2)
        for month in (1, 2):
            await close_period(till.database, till.clock, f"2017-0{month}", f"{month}")
        assert await refused(till, file("2017-02-28", "2017-04-30")) == (
            "partner fuel: leaves_on = 2017-02-28 lies in 2017-02, which is closed: take a later day"
        )
        assert (await refused(till, file("2017-01-31", "2017-02-28"))).splitlines() == [
            "partner fuel: leaves_on = 2017-01-31 lies in 2017-01, which is closed: take a later day",
            "partner fuel: run_off_until = 2017-02-28 lies in 2017-02, which is closed: take a later day",
        ]
        await till.enrolled("card-1")
        await till.accept(till.purchase("k", "10.00", partner="fuel"))
        await till.accept(till.purchase("before", "10.00", partner="fuel", at=till.clock.to(2017, 4, 1)))
        till.clock.to(2017, 4, 2)
        assert await refused(till, file("2017-03-31", "2017-04-30")) == (
            "partner fuel: 2 purchases or burns happened after leaves_on = 2017-03-31: take a later day"
        )
        assert await refused(till, file("2017-04-01", "2017-04-30")) == (
            "partner fuel: 1 purchase or burn happened after leaves_on = 2017-04-01: take a later day"
        )
        await applied(till, file("2017-04-02", "2017-04-30"))


async def test_only_what_a_date_would_forbid_is_in_its_way(database: Database) -> None:
    async with till_on(database, file()) as till:
        till.clock.to(2017, 4, 1)
        await till.enrolled("card-1")
        await till.accept(till.purchase("sold", "10.00", partner="fuel"))
        till.clock.to(2017, 4, 2)
        await till.accept(till.purchase("elsewhere", "10.00"))
        till.clock.to(2017, 4, 3)
        await till.accept(till.burn("spent", 5))
        # What others sold and took since is no business of who leaves, nor burns of the last day of issuing.
        await applied(till, file("2017-04-01", "2017-04-30"))
        both = partner("grocer"), partner("fuel", leaves_on=Day("2017-04-01"), run_off_until=Day("2017-04-30"))
        assert await refused(till, coalition(*both, issue_ends=Day("2017-04-01"))) == (
            "programme: 1 purchase or burn happened after issue_ends = 2017-04-01: take a later day"
        )
        await applied(till, coalition(*both, issue_ends=Day("2017-04-02")))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ('suspended_burns = "SOME"', 'suspended_burns = "SOME" must be one of REFUSE, CAPTURE, ALLOW'),
        ("leaves_on = 2017-05-31", "leaves_on needs run_off_until: give both"),
        ("run_off_until = 2017-05-31", "run_off_until needs leaves_on: give both"),
        (
            "leaves_on = 2017-05-31\nrun_off_until = 2017-05-30",
            "run_off_until = 2017-05-30 lies before leaves_on = 2017-05-31",
        ),
    ],
)
def test_dates_of_the_file_are_checked(given: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_coalition(file().replace('name = "Fuel"', f'name = "Fuel"\n{given}'))
    assert str(caught.value) == f'partner "fuel": {problem}'


def ending(issue_ends: str | None = None, burn_ends: str | None = None) -> str:
    """A programme that ends on those days."""
    given = {"issue_ends": issue_ends, "burn_ends": burn_ends}
    days: dict[str, Any] = {key: Day(day) for key, day in given.items() if day is not None}
    return coalition(partner("grocer"), **days)


async def test_the_end_of_the_programme_is_planned_and_called_off(database: Database) -> None:
    async with till_on(database, ending()) as till:
        assert await applied(till, ending("2017-03-31", "2017-06-30")) == [
            "change programme: issue_ends none → 2017-03-31, burn_ends none → 2017-06-30",
            "6 unchanged",
        ]
        till.clock.to(2017, 4, 1)
        over = "programme: issue_ends = 2017-03-31 is over, and stays so"
        assert await refused(till, ending("2017-04-30", "2017-06-30")) == over
        assert await refused(till, ending()) == over
        assert (await applied(till, ending("2017-03-31", "2017-05-31")))[0] == (
            "change programme: burn_ends 2017-06-30 → 2017-05-31"
        )
        assert await refused(till, ending("2017-03-31", "2017-03-31")) == (
            "programme: burn_ends = 2017-03-31 is over: members must be able to burn what they have"
        )
        till.clock.to(2017, 6, 1)
        assert await refused(till, ending("2017-03-31", "2017-06-30")) == (
            "programme: burn_ends = 2017-05-31 is over, and stays so"
        )
        till.clock.to(2017, 7, 1)
        for month in range(1, 7):
            await close_period(till.database, till.clock, f"2017-0{month}", f"{month}")
        # What is left on 31 May is past with June, so that June is the last one.
        assert await refused(till, ending("2017-03-31")) == (
            "programme: its last statements are those of 2017-06: issue_ends and burn_ends stay as they are"
        )


async def test_the_programme_ends_neither_in_a_closed_period_nor_before_what_was_done(database: Database) -> None:
    async with till_on(database, ending()) as till:
        await till.enrolled("card-1")
        till.clock.to(2017, 4, 2)
        for month in (1, 2):
            await close_period(till.database, till.clock, f"2017-0{month}", f"{month}")
        assert await refused(till, ending("2017-02-28", "2017-06-30")) == (
            "programme: issue_ends = 2017-02-28 lies in 2017-02, which is closed: take a later day"
        )
        await till.accept(till.purchase("k", "10.00"))
        assert await refused(till, ending("2017-04-01")) == (
            "programme: 1 purchase or burn happened after issue_ends = 2017-04-01: take a later day"
        )
        await applied(till, ending("2017-04-02"))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"burn_ends": "2017-05-31"}, "burn_ends needs issue_ends: give both"),
        (
            {"issue_ends": "2017-05-31", "burn_ends": "2017-05-30"},
            "burn_ends = 2017-05-30 lies before issue_ends = 2017-05-31",
        ),
    ],
)
def test_dates_of_the_programme_are_checked(given: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_coalition(ending(**given))
    assert str(caught.value) == f"programme: {problem}"

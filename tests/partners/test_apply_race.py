"""Applying a file beside tills, a close, and another apply."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from domain import database as domain_database
from domain.commands import Posted
from domain.database import CONFIGURATION_LOCK_CLASS, PERIOD_LOCK_CLASS, Database, DatabaseUrls
from domain.errors import ConfigurationError
from partners.apply import apply_coalition, plan_coalition
from partners.coalition_file import parse_coalition
from tests.factories import COALITION_TOML, a_purchase, an_enrolment, apply_toml, fixed_clock, open_till
from tests.partners.helpers import changed, everything, sold

SHARED = text(f"SELECT pg_advisory_xact_lock_shared({CONFIGURATION_LOCK_CLASS}, 0)")
WAITING_SQL = text(
    "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database"
    " WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted"
)
MARCH = 2017 * 12 + 2
SOON_SECONDS = 10


async def until_somebody_waits(database: Database) -> None:
    """Returns when somebody stands before an advisory lock."""
    async with asyncio.timeout(SOON_SECONDS), database.posting() as connection:
        while not (await connection.execute(WAITING_SQL)).scalar_one():  # noqa: ASYNC110 (no event tells of a wait)
            await asyncio.sleep(0.01)


async def test_apply_waits_for_a_batch_that_prices(database: Database) -> None:
    await apply_toml(database)
    before = await everything(database)
    file = parse_coalition(changed(('limit = "1500.00"', 'limit = "1800.00"')))

    async with database.posting() as batch:
        await batch.execute(SHARED)
        applying = asyncio.create_task(apply_coalition(database, file, clock=fixed_clock()))
        await until_somebody_waits(database)
        assert not applying.done()
        assert await everything(database) == before

    assert (await applying).version == 2


async def test_apply_decides_on_what_was_booked_while_it_waited(database: Database) -> None:
    """The statement that waits keeps the snapshot from before: nothing may be decided on that one."""
    await sold(database)
    before = await everything(database)
    file = parse_coalition(changed(('limit = "1500.00"', 'limit = "1.50"')))

    async with database.posting() as batch:
        await batch.execute(SHARED)
        applying = asyncio.create_task(apply_coalition(database, file, clock=fixed_clock()))
        await until_somebody_waits(database)
        await batch.execute(text("UPDATE budget SET consumed_micro = 1500001"))

    with pytest.raises(ConfigurationError, match=r"below the 1\.500001 consumed and reserved"):
        await applying
    async with database.posting() as connection:
        await connection.execute(text("UPDATE budget SET consumed_micro = 1100000"))
    assert await everything(database) == before


async def test_two_applies_come_one_after_the_other(database: Database) -> None:
    await apply_toml(database)
    files = [parse_coalition(changed(('limit = "1500.00"', f'limit = "{limit}"'))) for limit in ("1800", "1900")]

    applied = await asyncio.gather(*[apply_coalition(database, file, clock=fixed_clock()) for file in files])

    first, last = sorted(applied, key=lambda one: one.version)
    assert (first.version, last.version) == (2, 3)
    # The second planned on what the first had left, not on what both had found.
    assert first.plan.budgets[0].values["limit"][0] == "1500"
    assert last.plan.budgets[0].values["limit"][0] == first.plan.budgets[0].values["limit"][1]
    wanted = last.plan.budgets[0].new
    async with database.posting() as connection:
        stored = (
            await connection.execute(text("SELECT limit_micro FROM budget_plan WHERE partner_id = 1"))
        ).scalar_one()
    assert wanted is not None
    assert stored == wanted.limit_micro


async def test_two_first_applies_create_the_coalition_once(database: Database) -> None:
    file = parse_coalition(COALITION_TOML)

    applied = await asyncio.gather(*[apply_coalition(database, file, clock=fixed_clock()) for _ in range(4)])

    assert [one.version for one in applied] == [1, 1, 1, 1]
    assert sorted(one.plan.changes for one in applied) == [False, False, False, True]


async def test_a_till_at_work_posts_before_or_after_and_never_over_the_limit(database: Database) -> None:
    configuration = await apply_toml(database)
    async with open_till(database) as till:
        await till.post(an_enrolment(configuration))
        tight = parse_coalition(changed(('limit = "1500.00"', 'limit = "50.00"')))
        posting = [asyncio.create_task(till.post(a_purchase(configuration, f"sale-{number}"))) for number in range(200)]
        results = await asyncio.gather(apply_coalition(database, tight, clock=fixed_clock()), return_exceptions=True)
        posted = await asyncio.gather(*posting)

    assert all(isinstance(one, Posted) for one in posted)
    points = sum(one.points for one in posted if isinstance(one, Posted))
    async with database.posting() as connection:
        limit, consumed = (
            await connection.execute(text("SELECT limit_micro, consumed_micro FROM budget WHERE partner_id = 1"))
        ).one()
    assert consumed == points * 11_000
    if isinstance(results[0], ConfigurationError):
        assert "is below the" in str(results[0])
        assert (limit, points) == (1_500_000_000, 20_000)
    else:
        assert (limit, points) == (50_000_000, 4_545)


async def test_apply_waits_for_a_close_of_the_period_whose_window_it_changes(database: Database) -> None:
    await sold(database)
    file = parse_coalition(changed(('limit = "1500.00"', 'limit = "1800.00"')))

    async with database.posting() as close:
        await close.execute(text(f"SELECT pg_advisory_xact_lock({PERIOD_LOCK_CLASS}, {MARCH})"))
        applying = asyncio.create_task(apply_coalition(database, file, clock=fixed_clock()))
        await until_somebody_waits(database)
        await close.execute(text("UPDATE period SET state = 'CLOSING' WHERE label = '2017-03'"))

    assert (await applying).plan.changes
    async with database.posting() as connection:
        limits = (await connection.execute(text("SELECT limit_micro FROM budget"))).scalars().all()
        planned = (await connection.execute(text("SELECT limit_micro FROM budget_plan WHERE id = 1"))).scalar_one()
    assert (limits, planned) == ([1_500_000_000], 1_800_000_000)


@pytest.mark.parametrize("entry", [plan_coalition, apply_coalition])
async def test_a_lock_that_never_comes_is_told_in_words(
    database: Database, monkeypatch: pytest.MonkeyPatch, entry: Callable[..., Awaitable[object]]
) -> None:
    await apply_toml(database)
    monkeypatch.setattr(domain_database, "LOCK_TIMEOUT_MS", 50)
    hasty = Database(DatabaseUrls(database.urls.owner, database.urls.posting, database.urls.reading))

    async with database.posting() as other:
        await other.execute(text(f"SELECT pg_advisory_xact_lock({CONFIGURATION_LOCK_CLASS}, 0)"))
        with pytest.raises(ConfigurationError, match="the configuration is in use"):
            await entry(hasty, parse_coalition(COALITION_TOML), clock=fixed_clock())
    await hasty.dispose()

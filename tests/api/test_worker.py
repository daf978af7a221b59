"""The worker: its jobs run on their day, once, and survive whatever ends it or its database."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pgqueuer import AsyncpgDriver
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from api import embedded, worker
from api.runtime import Runtime
from api.sweeping import PAGE_ACCOUNTS, SweepSummary, a_queue, sweep_all
from api.worker import Desk, ScheduledJob, keep_running, queries_on
from domain.commands import Swept
from domain.database import POSTING_ROLE, Database
from domain.terms import ConfigurationCache
from tests.api.processes import Coalition, Process, a_coalition
from tests.domain.books import check_books
from tests.domain.coalitions import coalition, partner
from tests.domain.test_expiry import MIDNIGHT, MONTH
from tests.domain.tills import Till, till_on
from tests.factories import COALITION_TOML

EXPIRED_SQL = text("SELECT count(*), sum(points)::bigint FROM command WHERE kind = 'EXPIRY'")
WAIT_TURNS = 500
TURN_SECONDS = 0.02


async def until(holds: Callable[[], bool]) -> None:
    """Waits for something that must come soon."""
    for _ in range(WAIT_TURNS):
        if holds():
            return
        await asyncio.sleep(TURN_SECONDS)
    raise AssertionError("waited for nothing")


def driver_url(url: URL) -> str:
    """As asyncpg alone takes it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


async def test_the_tables_are_those_that_pgqueuer_declares(database_url: URL) -> None:
    connection = await asyncpg.connect(driver_url(database_url))
    try:
        plan = await queries_on(AsyncpgDriver(connection)).plan_upgrade()
    finally:
        await connection.close()
    assert plan.statements == ()


@asynccontextmanager
async def past_points(database: Database, cards: int) -> AsyncIterator[Till]:
    """Members with ten points each, all of which are past by now."""
    async with till_on(database, MONTH) as till:
        names = [f"c-{number}" for number in range(cards)]
        await till.enrolled(*names)
        await till.accept_all([till.purchase(f"k-{name}", "10.00", card=name) for name in names])
        till.clock.now = MIDNIGHT
        yield till
    await check_books(database)


def runtime_of(till: Till) -> Runtime:
    """What a process of its own would open."""
    return Runtime(till.database, ConfigurationCache(till.database), till.clock)


async def test_a_pass_sweeps_every_page(database: Database) -> None:
    async with past_points(database, 2 * PAGE_ACCOUNTS + 1) as till:
        runtime = runtime_of(till)
        seen: list[int] = []
        async with a_queue(runtime) as queue:
            done = await sweep_all(runtime, queue, progress=lambda summary: seen.append(summary.accounts))
            again = await sweep_all(runtime, queue)
        assert done == SweepSummary(accounts=201, expired_lots=201, expired_points=2_010)
        assert seen == [100, 200, 201]
        assert again == SweepSummary()


async def test_a_pass_confirms_what_is_due_of_every_account(database: Database) -> None:
    async with till_on(database, coalition(partner("grocer", terms={"pending_days": 3}))) as till:
        names = [f"c-{number}" for number in range(PAGE_ACCOUNTS + 20)]
        await till.enrolled(*names)
        await till.accept_all([till.purchase(f"k-{name}", "10.00", card=name) for name in names])
        await till.accept_all([till.purchase(f"l-{name}", "1.00", card=name) for name in names])
        runtime = runtime_of(till)
        async with a_queue(runtime) as queue:
            assert await sweep_all(runtime, queue) == SweepSummary()
            till.clock.forward(days=4)
            done = await sweep_all(runtime, queue)
            assert (done.confirmed_awards, done.confirmed_points, done.failed) == (240, 1_320, 0)
            assert await sweep_all(runtime, queue) == SweepSummary()
    await check_books(database)


async def test_a_pass_that_is_stopped_ends_with_its_page(database: Database) -> None:
    async with past_points(database, 2 * PAGE_ACCOUNTS) as till:
        runtime = runtime_of(till)
        stops = iter([False, True])
        async with a_queue(runtime) as queue:
            first = await sweep_all(runtime, queue, is_stopped=lambda: next(stops))
            rest = await sweep_all(runtime, queue)
        assert (first.accounts, rest.accounts) == (PAGE_ACCOUNTS, PAGE_ACCOUNTS)


async def test_two_passes_at_once_book_each_lot_once(database: Database) -> None:
    async with past_points(database, 3 * PAGE_ACCOUNTS) as till:
        runtimes = [runtime_of(till), runtime_of(till)]
        async with a_queue(runtimes[0]) as first, a_queue(runtimes[1]) as second:
            passes = await asyncio.gather(*map(sweep_all, runtimes, [first, second]))
        assert sum(done.expired_points for done in passes) == 3_000
        assert await till.rows(EXPIRED_SQL.text) == [(300, 3_000)]


async def test_an_account_that_cannot_be_swept_is_counted_and_holds_up_nobody(
    database: Database, tamper: Callable[[str], Any]
) -> None:
    async with past_points(database, 3) as till:
        broken = till.members["c-1"].account_id
        await tamper(f"UPDATE account SET available = 5 WHERE id = {broken}")
        runtime = runtime_of(till)
        async with a_queue(runtime) as queue:
            assert await sweep_all(runtime, queue) == SweepSummary(3, expired_lots=2, expired_points=20, failed=1)
            assert await sweep_all(runtime, queue) == SweepSummary(1, failed=1)
            await tamper(f"UPDATE account SET available = 10 WHERE id = {broken}")
            assert await sweep_all(runtime, queue) == SweepSummary(1, expired_lots=1, expired_points=10)


# ---------------------------------------------------------------- the worker in this process

EACH_SECOND = "* * * * * *"


async def test_jobs_run_again_and_again_and_a_failing_one_stops_nobody(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[str] = []

    async def good(_: Desk) -> dict[str, int]:
        runs.append("good")
        return {"done": len(runs)}

    async def bad(_: Desk) -> dict[str, int]:
        runs.append("bad")
        raise ValueError("card-4711")

    monkeypatch.setattr(
        worker, "JOBS", (ScheduledJob("good", EACH_SECOND, good), ScheduledJob("bad", EACH_SECOND, bad))
    )
    async with till_on(database, COALITION_TOML) as till:
        desk = Desk(runtime_of(till), till.queue, asyncio.Event())
        working = asyncio.create_task(keep_running(desk))
        await until(lambda: runs.count("good") > 1 and runs.count("bad") > 1)
        desk.stopping.set()
        await working
    written = capsys.readouterr()
    assert "card-4711" not in written.err + written.out


async def test_the_worker_finds_the_database_again(
    database: Database, monkeypatch: pytest.MonkeyPatch, tamper: Callable[[str], Any]
) -> None:
    runs: list[int] = []

    async def count(_: Desk) -> dict[str, int]:
        runs.append(1)
        return {}

    monkeypatch.setattr(worker, "JOBS", (ScheduledJob("count", EACH_SECOND, count),))
    async with till_on(database, COALITION_TOML) as till:
        desk = Desk(runtime_of(till), till.queue, asyncio.Event())
        working = asyncio.create_task(keep_running(desk))
        await until(lambda: bool(runs))
        await tamper(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'coalition_worker' AND datname = current_database()"
        )
        before = len(runs)
        await until(lambda: len(runs) > before + 1)
        desk.stopping.set()
        await working


# ---------------------------------------------------------------- processes

MEMBERS = 250
HISTORY = coalition(partner("grocer"), expiry_months=1)


def history_of(members: int) -> str:
    """A bulk file: members who bought once, years ago."""
    header = "kind,idempotency_key,partner,store,member_kind,member,occurred_at,amount,currency,points,reference"
    at = datetime(2017, 3, 15, 12, tzinfo=UTC).isoformat()
    rows = [header]
    for number in range(members):
        rows.append(f"enroll,n-{number},grocer,,card,c-{number},{at},,,,")
        rows.append(f"earn,k-{number},grocer,,card,c-{number},{at},10.00,EUR,,k-{number}")
    return "\n".join(rows)


class Ledger:
    """A look into a running coalition's database."""

    def __init__(self, data_dir: Path) -> None:
        self._server = embedded.start(data_dir)
        self.url = make_url(self._server.dsn(POSTING_ROLE))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Runs one statement."""

        async def run() -> list[tuple[Any, ...]]:
            engine = create_async_engine(self.url)
            async with engine.begin() as connection:
                result = await connection.execute(text(statement))
                rows = [tuple(row) for row in result] if result.returns_rows else []
            await engine.dispose()
            return rows

        return asyncio.run(run())

    def close(self) -> None:
        """Gives its share of the server back."""
        self._server.close()


def opened(coalition: Coalition) -> Ledger:
    """A coalition whose members' points are all past."""
    coalition.apply(HISTORY)
    coalition.run("import", "-", "--booking", "occurred", given=history_of(MEMBERS))
    return Ledger(coalition.data_dir)


def expired(ledger: Ledger) -> tuple[int, int]:
    """How many lots, and points, are booked as expired."""
    [(lots, points)] = ledger.query(EXPIRED_SQL.text)
    return lots, points or 0


HOLD_SQL = text(
    "SELECT FROM account WHERE id = (SELECT id FROM account ORDER BY next_expires_at, id OFFSET :skipped LIMIT 1)"
    " FOR UPDATE"
)
WAITING_SQL = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


async def kill_half_way(ledger: Ledger, process: Process) -> None:
    """Kills a process that has booked its first page and waits for an account of the second."""
    engine = create_async_engine(ledger.url)
    async with engine.begin() as holder, engine.connect() as watching:
        await holder.execute(HOLD_SQL, {"skipped": PAGE_ACCOUNTS + 1})
        for _ in range(WAIT_TURNS * 10):
            if (await watching.execute(WAITING_SQL)).scalar():
                break
            assert process.is_running
            await asyncio.sleep(TURN_SECONDS)
        process.kill()
    await engine.dispose()


@pytest.mark.slow
def test_a_sweep_that_is_killed_is_ended_by_the_next() -> None:
    with a_coalition() as coalition:
        ledger = opened(coalition)
        try:
            asyncio.run(kill_half_way(ledger, coalition.begin("sweep")))
            assert expired(ledger) == (PAGE_ACCOUNTS, PAGE_ACCOUNTS * 10)
            # Two at once, as two operators would start them.
            both = [coalition.begin("sweep", "--json") for _ in range(2)]
            done = [json.loads(process.output()) for process in both]
            assert expired(ledger) == (MEMBERS, MEMBERS * 10)
            assert all(summary["failed"] == 0 for summary in done)
            assert json.loads(coalition.run("sweep", "--json"))["accounts"] == 0
            assert json.loads(coalition.run("verify", "--json"))["holds"]
        finally:
            ledger.close()


@pytest.mark.slow
def test_a_worker_that_is_killed_is_followed_by_another_that_drains_when_told_to_stop() -> None:
    with a_coalition() as coalition:
        ledger = opened(coalition)
        try:
            # As if a worker had been at work before: the job's minute has passed.
            ledger.query("INSERT INTO pgqueuer_schedules (expression, entrypoint) VALUES ('* * * * *', 'sweep')")
            asyncio.run(kill_half_way(ledger, coalition.begin("worker")))
            assert expired(ledger) == (PAGE_ACCOUNTS, PAGE_ACCOUNTS * 10)
            assert ledger.query("SELECT status::text FROM pgqueuer_schedules") == [("picked",)]
            # What the killed one holds is free after half a minute without a sign of life.
            ledger.query("UPDATE pgqueuer_schedules SET heartbeat = heartbeat - interval '1 minute'")
            second = coalition.begin("worker")
            while expired(ledger)[0] < MEMBERS:
                assert second.is_running
            second.signal(signal.SIGTERM)
            second.output()
            assert expired(ledger) == (MEMBERS, MEMBERS * 10)
            assert ledger.query("SELECT status::text FROM pgqueuer_schedules") == [("queued",)]
            assert json.loads(coalition.run("verify", "--json"))["holds"]
        finally:
            ledger.close()


def test_a_pass_adds_up_whatever_sweeps_did() -> None:
    summary = SweepSummary(accounts=2)
    for factor in (1, 10):
        summary.add(Swept(7, *(factor * number for number in range(1, 8))))
    assert summary.as_json() == {
        "accounts": 2,
        "expiredLots": 11,
        "expiredPoints": 22,
        "confirmedAwards": 33,
        "confirmedPoints": 44,
        "timedOutHolds": 55,
        "lapsedAwards": 66,
        "lapsedPoints": 77,
        "expiredReversals": 0,
        "failed": 0,
    }

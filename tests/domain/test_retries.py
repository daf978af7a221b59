"""A batch that fails: again when others were in the way or the server is away, halved when one command is at fault."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from domain import database as database_module
from domain import queue as queue_module
from domain.batch import Batch
from domain.commands import Command, Earn, Enrolled, Posted, Refusal
from domain.database import BatchConnection, Database, DatabaseUrls
from domain.errors import RefusalCode
from domain.loading import lock_shared
from domain.queue import TRIES_MAX, _Trouble
from domain.writing import write_batch
from tests.domain.books import check_books, contents
from tests.domain.conftest import TWO_PARTNERS
from tests.domain.gates import gate_before
from tests.domain.tills import Till, codes, till_on

Disturb = Callable[[BatchConnection, Batch], Awaitable[object]]


def disturb_writing(
    monkeypatch: pytest.MonkeyPatch, before: Disturb | None = None, after: Disturb | None = None, times: int = 1
) -> list[int]:
    """Does something before or after the writing of the next batches; answers a list with the size of every attempt."""
    attempts: list[int] = []

    async def disturbed(connection: BatchConnection, batch: Batch) -> None:
        attempts.append(len(batch.accepted))
        is_disturbed = len(attempts) <= times
        if is_disturbed and before is not None:
            await before(connection, batch)
        await write_batch(connection, batch)
        if is_disturbed and after is not None:
            await after(connection, batch)

    monkeypatch.setattr(queue_module, "write_batch", disturbed)
    return attempts


def fail_with(state: str) -> Disturb:
    """A real error of PostgreSQL with that SQLSTATE."""

    async def fail(connection: BatchConnection, batch: Batch) -> None:
        await connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{state}'; END $$"))

    return fail


def cutting_off(database: Database) -> Disturb:
    """Ends the server's side of the connection; whoever executes or commits next finds it gone."""

    async def cut_off(connection: BatchConnection, batch: Batch) -> None:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        engine = create_async_engine(database.urls.owner, poolclass=NullPool)
        async with engine.connect() as administrator:
            await administrator.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        await engine.dispose()

    return cut_off


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "state", ["40P01", "40001", "55P03", "23505", "0A000", "57P01", "57P03", "53300", "08006", "58030"]
)
async def test_what_is_nobody_s_fault_is_tried_again(
    till: Till, monkeypatch: pytest.MonkeyPatch, state: str, moment: str
) -> None:
    attempts = disturb_writing(monkeypatch, times=2, **{moment: fail_with(state)})
    posted = await till.accept(till.purchase("k", "100.00"))

    assert (posted.replayed, posted.points, posted.balance.available) == (False, 100, 100)
    assert attempts == [1, 1, 1]
    assert await till.one("SELECT count(*) FROM command WHERE kind = 'EARN'") == 1


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_connection_lost_before_the_commit_is_no_loss(
    till: Till, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    attempts = disturb_writing(monkeypatch, times=2, **{moment: cutting_off(till.database)})
    outcomes = await till.queue.post_many([till.enrolment("new"), till.purchase("k", "100.00", card="new")])

    assert codes(outcomes) == {"posted": 2}
    assert attempts == [2, 2, 2]
    assert await till.available("new") == 100


def lose_the_answer(monkeypatch: pytest.MonkeyPatch, database: Database, times: int) -> None:
    """The next ``times`` batches are committed, but the connection is lost before that is known."""
    transaction = BatchConnection.transaction
    written: list[object] = []
    lost: list[object] = []

    async def noted(connection: BatchConnection, batch: Batch) -> None:
        written.append(connection)

    disturb_writing(monkeypatch, after=noted, times=10**6)

    @asynccontextmanager
    async def losing(self: BatchConnection) -> AsyncIterator[None]:
        async with transaction(self):
            yield
        if self in written and len(lost) < times:
            lost.append(self)
            await cutting_off(database)(self, cast("Batch", None))
            await self.execute(text("SELECT"))

    monkeypatch.setattr(BatchConnection, "transaction", losing)


@pytest.mark.parametrize("times", [1, 3])
async def test_what_was_committed_when_its_answer_was_lost_is_a_first_posting_once(
    till: Till, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    await till.accept(till.purchase("old", "10.00"))
    lose_the_answer(monkeypatch, till.database, times)
    batch: list[Command] = [
        till.enrolment("new"),
        till.enrolment("new"),
        till.purchase("k", "100.00", card="new"),
        till.purchase("k", "100.00", card="new"),
        till.purchase("k", "100.01", card="new"),
        till.burn("b", 30, card="new", partner="fuel"),
        till.reversal("v", "k", amount="10.00"),
        till.reversal("v", "k", amount="10.00"),
        till.burn("b", 30, card="new", partner="fuel"),
        till.burn("b2", 61, card="new"),
        till.purchase("old", "10.00"),
    ]
    outcomes = await till.queue.post_many(batch)

    assert [outcome.code if isinstance(outcome, Refusal) else outcome.replayed for outcome in outcomes] == [
        False,
        True,
        False,
        True,
        RefusalCode.IDEMPOTENCY_CONFLICT,
        False,
        False,
        True,
        True,
        RefusalCode.INSUFFICIENT_POINTS,
        True,
    ]
    enrolled, receipt = outcomes[0], outcomes[6]
    assert isinstance(enrolled, Enrolled)
    assert enrolled.created
    assert isinstance(receipt, Posted)
    assert (receipt.points, receipt.balance.available) == (10, 60)
    assert await till.available("new") == 60


# ---------------------------------------------------------------- real locks


@pytest.fixture
async def impatient(database_url: URL, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Till]:
    """A till whose database waits 60 ms for a lock and looks for deadlocks after 30."""
    admin = create_async_engine(database_url, poolclass=NullPool)
    async with admin.begin() as connection:
        await connection.execute(text(f"ALTER DATABASE {database_url.database} SET deadlock_timeout = '30ms'"))
    monkeypatch.setattr(database_module, "LOCK_TIMEOUT_MS", 60)
    database = Database(DatabaseUrls(database_url, database_url, database_url))
    async with till_on(database, TWO_PARTNERS) as till:
        await till.enrolled("card-1", "card-2")
        yield till
    await check_books(database)
    await database.dispose()
    await admin.dispose()


@pytest.fixture
async def somebody(database_url: URL) -> AsyncIterator[AsyncEngine]:
    """Somebody else at the database, with patience."""
    engine = create_async_engine(database_url, poolclass=NullPool)
    yield engine
    await engine.dispose()


LOCKS = {
    "the account": "SELECT FROM account FOR UPDATE",
    "the budget": "SELECT FROM budget FOR UPDATE",
    "the lots": "SELECT FROM lot FOR UPDATE",
    "a position": "SELECT FROM position FOR UPDATE",
    "the configuration": "SELECT pg_advisory_xact_lock(1, 0)",
    "the period": f"SELECT pg_advisory_xact_lock(2, {2017 * 12 + 2})",
}


@pytest.mark.parametrize("what", LOCKS)
async def test_a_lock_that_is_held_too_long_is_waited_for_again(
    impatient: Till, somebody: AsyncEngine, what: str
) -> None:
    await impatient.accept(impatient.purchase("before", "50.00"))
    async with somebody.begin() as holder:
        await holder.execute(text(LOCKS[what]))
        waiting = asyncio.ensure_future(
            impatient.accept_all([impatient.purchase("k", "100.00"), impatient.burn("b", 10)])
        )
        await asyncio.sleep(0.2)
        assert not waiting.done()
    first, second = await waiting
    assert (first.replayed, second.replayed, second.balance.available) == (False, False, 140)


async def test_a_lock_that_is_never_released_refuses_and_changes_nothing(
    impatient: Till, somebody: AsyncEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(TRIES_MAX, _Trouble.CONTENTION, 3)
    await impatient.accept(impatient.purchase("before", "50.00"))
    async with somebody.begin() as holder:
        await holder.execute(text("SELECT FROM account WHERE available = 50 FOR UPDATE"))
        before = await contents(impatient.database)
        with caplog.at_level(logging.ERROR, "domain.queue"):
            held, free = await impatient.queue.post_many(
                [impatient.purchase("k", "1.00"), impatient.purchase("l", "1.00", card="card-2")]
            )
        # Whom the lock does not concern is posted.
        assert isinstance(free, Posted)
        assert isinstance(held, Refusal)
        assert (held.code, held.retryable, held.key) == (RefusalCode.INTERNAL_ERROR, True, "k")
        [record] = caplog.records
        assert record.args is not None
        assert str(record.args[1]) in held.message  # type: ignore[index]  # (how many, request id)
        after = await contents(impatient.database)
        assert after["command"][0] == before["command"][0] + 1
    assert (await impatient.accept(impatient.purchase("k", "1.00"))).replayed is False


async def test_a_deadlock_is_survived(impatient: Till, somebody: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    await impatient.accept(impatient.purchase("before", "50.00"))
    async with somebody.begin() as holder:
        # The other way round: account first, then budget; and it is not the one to give way.
        await holder.execute(text("SET LOCAL deadlock_timeout = '10s'"))
        await holder.execute(text("SELECT FROM account FOR UPDATE"))
        with gate_before(monkeypatch, "lock_accounts", impatient.queue) as gate:
            waiting = asyncio.ensure_future(impatient.queue.post(impatient.purchase("k", "100.00")))
            await gate.reached.wait()
        # The batch holds the budget by now, and asks for the account.
        await asyncio.wait_for(holder.execute(text("SELECT FROM budget FOR UPDATE")), timeout=5)
        assert not waiting.done()
    posted = await waiting
    assert isinstance(posted, Posted)
    assert (posted.replayed, posted.balance.available) == (False, 150)


# ---------------------------------------------------------------- one command's fault


async def test_of_a_hundred_only_the_guilty_one_is_refused(
    till: Till, somebody: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with somebody.begin() as connection:
        await connection.execute(text("ALTER TABLE command ADD CONSTRAINT poison CHECK (reference NOT LIKE 'poison%')"))
    commands: list[Command] = [till.purchase(f"k{number}", "1.00") for number in range(100)]
    commands[37] = till.purchase("k37", "1.00", reference="poison 1")
    commands[38] = till.burn("k38", 1, reference="poison 2")
    # A partner that does not exist: its commands fail in Python, before any statement.
    commands[73] = Earn(99, "k73", till.purchase("k").member, till.money("1.00"), till.clock.now, "r")
    with caplog.at_level(logging.CRITICAL, "domain.queue"):
        outcomes = await till.queue.post_many(commands)

    assert codes(outcomes) == {"posted": 97, "INTERNAL_ERROR": 3}
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    assert [refusal.key for refusal in refused] == ["k37", "k38", "k73"]
    assert len({refusal.message for refusal in refused}) == 3
    assert all("request " in refusal.message and "poison" not in refusal.message for refusal in refused)
    balances = [outcome.balance.available for outcome in outcomes if isinstance(outcome, Posted)]
    assert balances == list(range(1, 98))
    # Alone in its batch it is refused as well, and changes nothing.
    with caplog.at_level(logging.CRITICAL, "domain.queue"):
        await till.refuse(commands[37], RefusalCode.INTERNAL_ERROR)


async def test_a_batch_that_takes_too_long_is_halved(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow_when_large(connection: BatchConnection, batch: Batch) -> None:
        if len(batch.accepted) > 30:
            await fail_with("57014")(connection, batch)

    attempts = disturb_writing(monkeypatch, before=slow_when_large, times=10**6)
    posted = await till.accept_all([till.purchase(f"k{number}", "1.00") for number in range(100)])

    assert [receipt.balance.available for receipt in posted] == list(range(1, 101))
    assert attempts == [100, 50, 25, 25, 50, 25, 25]


@pytest.mark.parametrize("error", [ConnectionRefusedError("nobody listens"), PoolTimeoutError("no connection is free")])
async def test_a_server_that_stays_away_is_no_command_s_fault(
    till: Till, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    monkeypatch.setitem(TRIES_MAX, _Trouble.SERVER, 4)
    tries: list[int] = []
    before = await contents(till.database)
    with monkeypatch.context() as patch, caplog.at_level(logging.CRITICAL, "domain.queue"):

        async def nobody(*arguments: Any) -> None:
            tries.append(1)
            raise error

        patch.setattr(queue_module, "lock_shared", nobody)
        outcomes = await till.queue.post_many([till.purchase(f"k{number}", "1.00") for number in range(8)])
    assert codes(outcomes) == {"INTERNAL_ERROR": 8}
    assert len(tries) == 4
    assert await contents(till.database) == before
    # When it is back, the same commands go through.
    again = await till.queue.post_many([till.purchase(f"k{number}", "1.00") for number in range(8)])
    assert codes(again) == {"posted": 8}


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), PoolTimeoutError("no connection is free")])
async def test_a_server_that_comes_back_is_waited_for(
    till: Till, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tries = iter(range(10**6))

    async def away(*arguments: Any) -> None:
        if next(tries) < 3:
            raise error
        await lock_shared(*arguments)

    monkeypatch.setattr(queue_module, "lock_shared", away)
    posted = await till.accept_all([till.purchase("k", "100.00"), till.purchase("l", "100.00", card="card-2")])
    assert [receipt.replayed for receipt in posted] == [False, False]


async def test_a_batch_that_runs_out_of_ids_fetches_more(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "IDS_PER_COMMAND", 1)
    monkeypatch.setattr(till.queue._ids, "wanted", 0)
    till.queue._ids._left.clear()

    async def a_few(connection: BatchConnection) -> range:
        last: int = (await connection.execute(text("SELECT nextval('ledger_id')"))).scalar_one()
        return range(last, last + 10)

    monkeypatch.setattr(queue_module, "next_id_block", a_few)
    written = disturb_writing(monkeypatch)
    posted = await till.accept_all([till.purchase(f"k{number}", "1.00") for number in range(60)])
    assert posted[-1].balance.available == 60
    assert written == [60]

"""Stopping one queue at a chosen step of its batch, while others go on: races in a fixed order."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from domain import queue as queue_module
from domain.queue import PostingQueue

STEPS = (
    "resolve_members",
    "reserved_budgets",
    "ensure_periods",
    "lock_shared",
    "load_state",
    "claim_identifiers",
    "create_budgets",
    "lock_budgets",
    "lock_accounts",
    "load_members",
    "load_commands",
    "load_details",
    "load_holds",
    "load_lots",
    "load_pending",
    "write_batch",
)
"""What a batch calls, in about the order of DESIGN.md, "Group commit"; a gate stands before each."""

SOMEBODY_WAITS_SQL = text(
    """
    SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
                    WHERE NOT l.granted AND a.datname = current_database())
    """
)
LOOKS_MAX = 1_000
LOOK_EVERY_SECONDS = 0.01

Step = Callable[..., Awaitable[Any]]


class Gate:
    """Shut until opened; ``reached`` says that the stopped queue stands before it."""

    def __init__(self, queue: PostingQueue) -> None:
        self._queue = queue
        self._open = asyncio.Event()
        self.reached = asyncio.Event()

    def open(self) -> None:
        """Lets the stopped queue go on, now and ever after."""
        self._open.set()

    async def pass_through(self) -> None:
        """Waits at the gate, if the caller is the queue that it is for."""
        if asyncio.current_task() is self._queue._worker and not self._open.is_set():
            self.reached.set()
            await self._open.wait()


@contextmanager
def gate_before(monkeypatch: pytest.MonkeyPatch, step: str, queue: PostingQueue) -> Iterator[Gate]:
    """Puts a gate before that step of the queue's next batch."""
    gate = Gate(queue)
    original: Step = getattr(queue_module, step)

    async def guarded(*arguments: Any, **keywords: Any) -> Any:
        await gate.pass_through()
        return await original(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(queue_module, step, guarded)
        yield gate
        gate.open()


class Meeting(NamedTuple):
    """What came of two that met; ``was_stopped`` says whether the held one came by its gate at all."""

    held: Any
    meanwhile: Any
    was_stopped: bool


async def until_done_or_waiting(queue: PostingQueue, task: asyncio.Future[Any]) -> None:
    """Returns when the task is done, or when it waits for a lock (of whom the gate stops, who else would hold one)."""
    for _ in range(LOOKS_MAX):
        done, _ = await asyncio.wait([task], timeout=LOOK_EVERY_SECONDS)
        if done:
            return
        async with queue._database.posting() as connection:
            if (await connection.execute(SOMEBODY_WAITS_SQL)).scalar_one():
                return
    raise AssertionError("neither done nor waiting")


async def one_inside_the_other(
    monkeypatch: pytest.MonkeyPatch, step: str, queue: PostingQueue, held: Awaitable[Any], meanwhile: Awaitable[Any]
) -> Meeting:
    """Stops ``held`` before the step until ``meanwhile`` is done or waits for locks."""
    with gate_before(monkeypatch, step, queue) as gate:
        first = asyncio.ensure_future(held)
        reached = asyncio.ensure_future(gate.reached.wait())
        # A batch need not come by every step.
        await asyncio.wait([first, reached], return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        second = asyncio.ensure_future(meanwhile)
        await until_done_or_waiting(queue, second)
        gate.open()
        return Meeting(await first, await second, gate.reached.is_set())

"""Stopping one queue at a chosen step of its batch, while others go on: races in a fixed order."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from domain import queue as queue_module
from domain.queue import PostingQueue

STEPS = (
    "resolve_members",
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
    "load_lots",
    "write_batch",
)
"""What a batch calls, in about the order of DESIGN.md, "Group commit"; a gate stands before each."""

PATIENCE_SECONDS = 0.08
"""How long a gate stays shut for others who may be waiting for the very locks of whom it stops."""

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
        await asyncio.wait([second], timeout=PATIENCE_SECONDS)
        gate.open()
        return Meeting(await first, await second, gate.reached.is_set())

"""A flood: requests that arrive at a fixed rate whatever the answers, over as many connections as that takes.

``python -m tests.bench.flood`` reads a ``Flood`` as JSON from standard input, says when it begins, and prints a
``Flooded`` as JSON. A request's time runs from when it was due, so that its wait for a connection is part of it.
"""

import asyncio
import json
import sys
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, cast

from api.server import allow_many_connections
from api.terminal import run_loop
from tests.bench.documents import MARKS, Load, http_requests
from tests.bench.load import HEAD_END, LENGTH, OK

COMMAND = [sys.executable, "-m", "tests.bench.flood"]
REFUSED = b'"code":"OVERLOADED"'
EXAMPLE_CHARACTERS = 500
LAST_ANSWERS_SECONDS = 60
LATE_MAX = 20
"""Requests sent in a row when the generator is late, before it looks for answers."""

BEGAN = "began\n"


@dataclass(frozen=True)
class Flood:
    """So many requests a second; ``load`` says what and how many, its connections are the most there may be."""

    load: Load
    per_second: float


@dataclass(frozen=True)
class Latencies:
    """Of one kind of answer; 0 when there was none."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True)
class Flooded:
    """What came of a flood, from the first request to the last answer. ``errors`` counts by what went wrong."""

    seconds: float
    connections: int
    accepted: Latencies
    refused: Latencies
    errors: dict[str, int]
    examples: dict[str, str]


class Till(asyncio.Protocol):
    """One connection with at most one request on its way."""

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._received = b""
        self._due_at: float | None = None
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes what waits for a connection."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are not of asyncio's classes
        self._run.free(self)

    def send(self, request: bytes, due_at: float) -> None:
        """Sends a request."""
        assert self._transport is not None
        self._due_at = due_at
        self._transport.write(request)

    def close(self) -> None:
        """Hangs up."""
        assert self._transport is not None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Takes part of an answer, or the whole."""
        self._received += data
        head, separator, body = self._received.partition(HEAD_END)
        length = LENGTH.search(head)
        if not separator or (length is not None and len(body) < int(length[1])):
            return
        assert self._due_at is not None
        answer, due_at = self._received, self._due_at
        self._received, self._due_at = b"", None
        self._run.answered(answer, due_at)
        self._run.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that was waited for will not come."""
        self._run.lost(self, exc, waits=self._due_at is not None)


class Run:
    """The requests, the connections, and what was answered."""

    def __init__(self, flood: Flood) -> None:
        self._flood = flood
        self._mark = MARKS[flood.load.operation]
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._idle: list[Till] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._connections_most = 0
        self._accepted: list[float] = []
        self._refused: list[float] = []
        self._errors: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._unanswered = flood.load.requests
        self._all_answered = asyncio.Event()

    async def send_all(self) -> Flooded:
        """Sends every request when it is due, and waits for the answers."""
        requests = http_requests(self._flood.load)
        print(BEGAN, end="", flush=True)
        began = perf_counter()
        for number, request in enumerate(requests):
            due_at = began + number / self._flood.per_second
            early = due_at - perf_counter()
            if early > 0:
                await asyncio.sleep(early)
            elif number % LATE_MAX == 0:
                await asyncio.sleep(0)
            self._arrive(request, due_at)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_answered.wait(), LAST_ANSWERS_SECONDS)
        if self._unanswered:
            self._fail(f"no answer for {LAST_ANSWERS_SECONDS} s", "", self._unanswered)
        seconds = perf_counter() - began
        for till in self._idle:
            till.close()
        return Flooded(
            round(seconds, 2),
            self._connections_most,
            latencies(self._accepted),
            latencies(self._refused),
            dict(self._errors),
            self._examples,
        )

    def _arrive(self, request: bytes, due_at: float) -> None:
        if self._idle:
            self._idle.pop().send(request, due_at)
            return
        self._waiting.append((request, due_at))
        self._connect()

    def _connect(self) -> None:
        if self._waiting and self._connections < self._flood.load.connections:
            self._connections += 1
            self._connections_most = max(self._connections_most, self._connections)
            opening = asyncio.create_task(self._open())
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: Till(self), "127.0.0.1", self._flood.load.port)
        except OSError as error:
            self._connections -= 1
            if self._waiting:
                self._waiting.popleft()
                self._fail("not connected", repr(error))
                self._settle()
                self._connect()

    def free(self, till: Till) -> None:
        """Gives a connection its next request."""
        if self._waiting:
            till.send(*self._waiting.popleft())
        else:
            self._idle.append(till)

    def answered(self, answer: bytes, due_at: float) -> None:
        """Notes an answer."""
        seconds = perf_counter() - due_at
        if answer.startswith(OK) and self._mark in answer:
            self._accepted.append(seconds)
        elif answer.startswith(OK) and REFUSED in answer:
            self._refused.append(seconds)
        else:
            self._fail(answer.partition(b"\r\n")[0].decode(errors="replace"), answer.decode(errors="replace"))
        self._settle()

    def lost(self, till: Till, error: Exception | None, *, waits: bool) -> None:
        """Notes that a connection is gone."""
        self._connections -= 1
        if till in self._idle:
            self._idle.remove(till)
        if waits:
            self._fail("connection lost", repr(error))
            self._settle()
        self._connect()

    def _settle(self) -> None:
        self._unanswered -= 1
        if not self._unanswered:
            self._all_answered.set()

    def _fail(self, what: str, example: str, count: int = 1) -> None:
        self._errors[what] += count
        self._examples.setdefault(what, example[:EXAMPLE_CHARACTERS])


def latencies(seconds: Sequence[float]) -> Latencies:
    """Figures of a list of times."""
    if not seconds:
        return Latencies(0, 0, 0, 0)
    ordered = sorted(seconds)
    p50, p99, longest = (round(ordered[at] * 1000, 1) for at in (len(ordered) // 2, len(ordered) * 99 // 100, -1))
    return Latencies(len(ordered), p50, p99, longest)


def as_flooded(given: dict[str, Any]) -> Flooded:
    """A ``Flooded`` out of its JSON."""
    return Flooded(**{**given, "accepted": Latencies(**given["accepted"]), "refused": Latencies(**given["refused"])})


async def send_all(flood: Flood) -> Flooded:
    """Runs a flood in this process's loop."""
    return await Run(flood).send_all()


if __name__ == "__main__":
    given = json.load(sys.stdin)
    allow_many_connections()
    print(json.dumps(asdict(run_loop(send_all(Flood(Load(**given["load"]), given["per_second"]))))))

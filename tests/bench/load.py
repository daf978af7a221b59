"""The load generator: a process of its own with raw HTTP/1.1 connections, so that the server is what is measured.

``python -m tests.bench.load`` reads a ``Load`` as JSON from standard input and prints a ``Measured`` as JSON.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, cast

from api.terminal import run_loop
from tests.bench.documents import MARKS, Load, http_requests
from tests.tidy import ROOT

HEAD_END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
OK = b"HTTP/1.1 200 "
COMMAND = [sys.executable, "-m", "tests.bench.load"]


@dataclass(frozen=True)
class Measured:
    """What came of a load; the warm-up is in none of the figures."""

    per_second: float
    p50_ms: float
    p99_ms: float


class Connection(asyncio.Protocol):
    """One till: sends a request, waits for the whole answer, sends the next."""

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._received = b""
        self._sent_at = 0.0
        self._waits = False
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are not of asyncio's classes
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        request = next(self._run.requests, None)
        if request is None:
            self._transport.close()
            return
        self._waits = True
        self._sent_at = perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Takes part of an answer, or the whole."""
        self._received += data
        head, separator, body = self._received.partition(HEAD_END)
        length = LENGTH.search(head)
        if not separator or (length is not None and len(body) < int(length[1])):
            return
        if length is None or not head.startswith(OK) or self._run.mark not in body:
            self._run.fail(self._received)
            return
        self._received, self._waits = b"", False
        self._run.answered(perf_counter(), self._sent_at)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails the run when the server hung up on us."""
        if self._waits:
            self._run.fail(f"the connection was lost: {exc}".encode())


class Run:
    """The requests that the connections share, and when each was answered."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.requests: Iterator[bytes] = iter(http_requests(load))
        self.mark = MARKS[load.operation]
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answered = 0
        self._began = 0.0
        self._seconds: list[float] = []

    @property
    def is_over(self) -> bool:
        """Whether every request was answered, or one was not as it should be."""
        return self.done.done()

    def answered(self, at: float, sent_at: float) -> None:
        """Notes an answer."""
        self._answered += 1
        if self._answered > self._load.warm_up:
            self._seconds.append(at - sent_at)
        elif self._answered == self._load.warm_up:
            self._began = at
        if self._answered == self._load.requests and not self.is_over:
            self.done.set_result(None)

    def fail(self, answer: bytes) -> None:
        """Ends the run: an answer that is none would be counted as speed."""
        if not self.is_over:
            self.done.set_exception(RuntimeError(f"not the expected answer: {answer.decode(errors='replace')}"))

    def fault(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Ends the run for a fault of our own, which would otherwise leave it waiting for ever."""
        self.fail(repr(context).encode())

    def measured(self, ended: float) -> Measured:
        """The figures of a run that is over."""
        ordered = sorted(self._seconds)
        return Measured(
            round(len(ordered) / (ended - self._began), 1),
            round(ordered[len(ordered) // 2] * 1000, 2),
            round(ordered[len(ordered) * 99 // 100] * 1000, 2),
        )


async def drive(load: Load) -> Measured:
    """Sends every request over the connections. Raises RuntimeError for an answer that is not the expected one."""
    run = Run(load)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(run.fault)
    for _ in range(load.connections):
        await loop.create_connection(lambda: Connection(run), "127.0.0.1", load.port)
    await run.done
    return run.measured(perf_counter())


def generate(load: Load) -> Measured:
    """Runs the generator in its own process. Raises RuntimeError with what it said when it failed."""
    done = subprocess.run(
        COMMAND, cwd=ROOT, input=json.dumps(asdict(load)), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr}")
    return Measured(**json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(asdict(run_loop(drive(Load(**json.load(sys.stdin)))))))

"""HTTP connections as uvicorn serves them, and the short way on which requests are refused when there are too many."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.logs import AccessLog, RequestRecord, new_record

LAST_LOOK_SECONDS = 0.001

SHORT_BODY_BYTES_MAX = 32 * 1024
"""Longer bodies go the long way, which holds them back while a client sends faster than they are read."""

Headers = Sequence[tuple[bytes, bytes]]


class Refusing(Protocol):
    """Who knows what to answer when there is no room."""

    @property
    def is_full(self) -> bool:
        """Whether some requests find no room now."""

    def refusal(self, headers: Headers, body: bytes, record: RequestRecord) -> tuple[Headers, bytes] | None:
        """Headers and body of the answer to a POST that finds no room; None where that takes more to tell."""


class ShortWay:
    """From the bytes of a POST to the bytes of its refusal, without a task and all that stands around one.

    It takes a third of the time. What a server cannot even refuse piles up before it, and what it accepts with it.
    """

    def __init__(self, path: str, endpoint: Refusing, log: AccessLog) -> None:
        self._path = path
        self._endpoint = endpoint
        self._log = log
        self.url = path.encode()

    @property
    def is_open(self) -> bool:
        """Whether there is something to refuse."""
        return self._endpoint.is_full

    def answer(self, headers: Headers, body: bytes, date: Headers) -> bytes | None:
        """The whole answer, noted in the log; None where the request must go the long way. ``date``: headers to add."""
        started_ns = time.monotonic_ns()
        record = new_record(headers)
        found = self._endpoint.refusal(headers, body, record)
        if found is None:
            return None
        answered, content = found
        lines = b"".join([b"%b: %b\r\n" % header for header in (*date, *answered)])
        self._log.note("POST", self._path, record, 200, time.monotonic_ns() - started_ns)
        return b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (lines, content)


class Connection(HttpToolsProtocol):
    """uvicorn's connection with two differences.

    A request that may go the short way is held back until it is complete, and then answered, or handed on as it came.

    An idle connection ends only after what has arrived on it was looked at. Under load a turn of the event loop is
    long, and a timer that fell due in it comes before what arrived in it: a till's request would meet a closed door.
    """

    def __init__(self, short_way: ShortWay | None, **options: Any) -> None:
        super().__init__(**options)
        self._short_way = short_way
        self._held: list[bytes] | None = None

    def on_headers_complete(self) -> None:
        """Holds a request back, or begins it."""
        if self._short_way is not None and self._short_way.is_open and self._may_be_short(self._short_way):
            self._held = []
        else:
            super().on_headers_complete()

    def _may_be_short(self, short_way: ShortWay) -> bool:
        before: RequestResponseCycle | None = self.cycle
        length = next((value for name, value in self.headers if name == b"content-length"), b"")
        return (
            (before is None or before.response_complete)
            and self.url == short_way.url
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
            and length.isdigit()
            and int(length) <= SHORT_BODY_BYTES_MAX
        )

    def on_body(self, body: bytes) -> None:
        """Takes a part of the body."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        """Answers a request that was held back, or begins it now."""
        if self._held is None:
            super().on_message_complete()
            return
        body, self._held = b"".join(self._held), None
        assert self._short_way is not None
        answer = self._short_way.answer(self.headers, body, self.server_state.default_headers)
        if answer is None:
            super().on_headers_complete()
            super().on_body(body)
            super().on_message_complete()
        else:
            self.transport.write(answer)
            self.on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Closes the connection on the next turn, unless a request is read before."""
        self.timeout_keep_alive_task = self.loop.call_later(LAST_LOOK_SECONDS, super().timeout_keep_alive_handler)

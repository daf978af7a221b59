"""Logs as JSON lines on standard error: one a request, ours and the libraries' alike, and nobody's data in any.

Bodies, variables, query strings, tokens and SQL parameters are never handed to a logger; of an exception only
``domain.observing.fault_facts`` are logged.
"""

import asyncio
import logging
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
import structlog
from structlog.typing import EventDict

from domain.observing import REQUEST_ID, fault_facts

REQUEST_ID_FORM = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")
OPERATION_CHARACTERS_MAX = 100
UNKNOWN_PATH = "(unknown)"
"""Logged instead of a path that is not ours: people paste anything into an address."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNKNOWN_METHOD = "(other)"
STATUS_FAILED = 500
STATUS_CLIENT_GONE = 499
"""What proxies write where nobody waited for the answer."""

LIBRARY_LEVELS = {
    "authlib": logging.INFO,  # below it, Authlib would log tokens
    "sqlalchemy": logging.WARNING,  # below it, statements with their parameters
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
}

RECORD_KEY = "coalition.request"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(slots=True)
class RequestRecord:
    """What is logged of a request; its endpoint fills in who asked, and the name of the operation."""

    request_id: str
    client_id: str | None = None
    operation: str | None = None


class RequestObserver(Protocol):
    """Somebody who counts requests; must not raise."""

    def request_answered(self, path: str, status: int, duration_ns: int) -> None:
        """A request was answered, or was given up by its client (status 499)."""


def request_record(scope: Scope) -> RequestRecord:
    """The record of a request, made when it is first asked for: with the caller's request id where that is one."""
    record: RequestRecord | None = scope.get(RECORD_KEY)
    if record is None:
        record = scope[RECORD_KEY] = new_record(scope["headers"])
        # The server runs each request in a task of its own, so this ends with the request.
        REQUEST_ID.set(record.request_id)
    return record


def new_record(headers: Iterable[tuple[bytes, bytes]]) -> RequestRecord:
    """A record with the caller's request id where that is one, else with an id of its own."""
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    return RequestRecord(given.decode() if REQUEST_ID_FORM.match(given) else secrets.token_hex(16))


class AccessLog:
    """ASGI wrapper: one line per request, its id in the answer, and an observer told of it."""

    def __init__(self, app: App, paths: Collection[str], observer: RequestObserver | None = None) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._observer = observer
        self._log = structlog.get_logger(__name__).bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and says how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = request_record(scope)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if all(name != b"x-request-id" for name, _ in message["headers"]):
                    headers = [*message["headers"], (b"x-request-id", record.request_id.encode())]
                    message = {**message, "headers": headers}
            await send(message)

        started_ns = time.monotonic_ns()
        try:
            await self._app(scope, receive, answer)
        except BaseException:
            status = status or STATUS_FAILED
            raise
        finally:
            duration_ns = time.monotonic_ns() - started_ns
            self.note(scope["method"], scope["path"], record, status or STATUS_CLIENT_GONE, duration_ns)

    def note(self, method: str, path: str, record: RequestRecord, status: int, duration_ns: int) -> None:
        """Writes a request's line and tells the observer."""
        path = path if path in self._paths else UNKNOWN_PATH
        if self._observer is not None:
            self._observer.request_answered(path, status, duration_ns)
        self._log.info(
            "request",
            request_id=record.request_id,
            method=method if method in METHODS else UNKNOWN_METHOD,
            path=path,
            status=status,
            duration_ms=round(duration_ns / 1_000_000, 3),
            client_id=record.client_id,
            operation=None if record.operation is None else record.operation[:OPERATION_CHARACTERS_MAX],
        )


def configure_logging(level: str) -> None:
    """Every log of this process as one JSON line on standard error, from ``level`` upwards."""
    number = logging.getLevelNamesMapping()[level]
    shared: list[structlog.typing.Processor] = [
        _add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _describe_exception,
    ]
    structlog.configure(
        processors=[*shared, _as_json],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # Bytes, at once: an access line costs a fifth of what it would through the standard library's handlers.
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(allow=["fault"]),
                *shared,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda logger, name, event: _as_json(logger, name, event).decode(),
            ],
        )
    )
    root = logging.getLogger()
    for other in root.handlers[:]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(number)
    logging.captureWarnings(capture=True)
    for name, lowest in LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(max(number, lowest))


def log_fault(event: str, error: BaseException) -> None:
    """Logs an error that nobody foresaw, even one that came before the settings were read."""
    if not structlog.is_configured():
        configure_logging("INFO")
    structlog.get_logger(__name__).error(event, **fault_facts(error))


def watch_loop() -> None:
    """Errors that the running loop finds in nobody's hands are logged like all others.

    asyncio's own handler writes representations of tasks and callbacks, and with them texts and arguments.
    """

    def handle(_loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        logging.getLogger("asyncio").error("an error that nobody handled", exc_info=context.get("exception"))

    asyncio.get_running_loop().set_exception_handler(handle)


def _add_request_id(_logger: object, _method: str, event: EventDict) -> EventDict:
    if "request_id" not in event and (request_id := REQUEST_ID.get()) is not None:
        event["request_id"] = request_id
    return event


def _describe_exception(_logger: object, _method: str, event: EventDict) -> EventDict:
    given = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event["fault"] = fault_facts(error)
    return event


def _as_json(_logger: object, _method: str, event: EventDict) -> bytes:
    return orjson.dumps(event, default=lambda value: type(value).__qualname__, option=orjson.OPT_NON_STR_KEYS)

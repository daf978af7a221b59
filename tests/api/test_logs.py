"""Logs: JSON lines with the request's id, and nobody's data in any of them."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
import structlog
from sqlalchemy import text
from starlette.routing import Route

from api.app import create_app
from api.logs import AccessLog, configure_logging, log_fault, watch_loop
from api.security import REALM
from domain import queue as queue_module
from domain.batch import Batch
from domain.database import BatchConnection, Database
from domain.errors import LedgerFault
from domain.observing import REQUEST_ID, fault_facts
from domain.writing import write_batch
from tests.api.graphql_shop import BURN, EARN, ENROLL, Caller, Shop, open_shop, purchase

Lines = Callable[[], list[dict[str, Any]]]
MARKED = {"card": "4929MARKED0001", "email": "marked.person@example.org", "phone": "+4930901820"}
MARKS = ("MARKED", "marked", "4930901820", "901820", "SECRETREF")
REVERSE = """
mutation ($input: ReverseInput!) { reverse(input: $input) { __typename ... on Refusal { code message } } }
"""


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Logging as the command line sets it up, at its most talkative; the lines logged since the last call."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding="utf-8", line_buffering=True))
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("authlib", "sqlalchemy", "alembic", "asyncio")}
    configure_logging("DEBUG")
    monkeypatch.setattr(logging.getLogger("httpx2"), "level", logging.ERROR)  # the tests' client, not the server's

    def read() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in written.getvalue().splitlines()]
        written.seek(0)
        written.truncate()
        return found

    yield read
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


class Requests:
    """Notes what an observer of requests is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def request_answered(self, path: str, status: int, duration_ns: int) -> None:
        """Notes a request."""
        assert duration_ns > 0
        self.told.append((path, status))


async def served(shop: Shop, observer: Requests | None = None) -> httpx2.AsyncClient:
    """The shop as the server serves it: behind the access log."""
    app = create_app(shop.services, "https://test")
    paths = [route.path for route in app.routes if isinstance(route, Route)]
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(AccessLog(app, paths, observer)), base_url="https://test")


async def logged_caller(shop: Shop) -> Caller:
    """A client of the grocer whose requests are logged."""
    return Caller(await served(shop), (await shop.caller()).token)


async def test_a_request_is_one_line_that_says_who_and_what(database: Database, lines: Lines) -> None:
    async with open_shop(database) as shop:
        caller = await logged_caller(shop)
        lines()
        await caller.send("query Who { viewer { kind } }", None, **{"x-request-id": "till-7"})
        [line] = lines()
    assert {name: value for name, value in line.items() if name not in {"timestamp", "duration_ms", "client_id"}} == {
        "event": "request",
        "level": "info",
        "request_id": "till-7",
        "method": "POST",
        "path": "/graphql",
        "status": 200,
        "operation": "Who",
    }
    assert line["client_id"].startswith("coa_client_")
    assert line["duration_ms"] > 0
    assert line["timestamp"].endswith("Z")


async def test_paths_methods_and_names_are_not_a_way_into_the_log(database: Database, lines: Lines) -> None:
    observer = Requests()
    async with open_shop(database) as shop:
        token = (await shop.caller()).token
        http = await served(shop, observer)
        lines()
        await http.get(f"/members/{MARKED['email']}?card={MARKED['card']}")
        await http.request("MARKED", "/healthz")
        await http.get("/graphql", params={"query": "{ viewer { kind } }", "card": MARKED["card"]})
        answer = await http.get("/healthz", headers={"x-request-id": "marked person's id"})
        await http.post(
            "/graphql",
            json={"query": f"query {'a' * 5000} {{ viewer {{ kind }} }}"},
            headers={"authorization": f"Bearer {token}"},
        )
        seen = lines()
    assert [(line["method"], line["path"], line["status"]) for line in seen] == [
        ("GET", "(unknown)", 404),
        ("(other)", "/healthz", 405),
        ("GET", "/graphql", 401),
        ("GET", "/healthz", 200),
        ("POST", "/graphql", 200),
    ]
    assert observer.told == [(line["path"], line["status"]) for line in seen]
    assert seen[4]["operation"] == "a" * 100
    # Every answer carries an id, made where none was given that is one.
    assert answer.headers["x-request-id"] == seen[3]["request_id"]
    assert all(len(line["request_id"]) == 32 for line in seen)
    assert not any(mark in json.dumps(seen) for mark in (*MARKS, token, REALM))


COMPLAINTS = {
    "SECRETREF-unique": "INSERT INTO member_identifier SELECT * FROM member_identifier",
    "SECRETREF-syntax": "SELECT value::integer FROM member_identifier WHERE kind = 'email'",
}


async def complaining(connection: BatchConnection, batch: Batch) -> None:
    """Writes what is new, then lets the database complain about a member's row in its own words."""
    await write_batch(connection, batch)
    for row, _ in batch.accepted:
        if row.reference in COMPLAINTS:
            await connection.execute(text(COMPLAINTS[row.reference]))


async def test_no_line_holds_anybody_s_data_whatever_fails(
    database: Database, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_shop(database) as shop:
        caller = await logged_caller(shop)
        shop_log = [*lines()]
        await caller.run(ENROLL, {"input": {"idempotencyKey": "marked-e", **MARKED}})
        by_phone = {"member": {"phone": MARKED["phone"]}}
        await caller.run(EARN, {"input": purchase("k", member={"card": MARKED["card"]})})
        # Refused, twice: too little, and an original that is not there.
        burn = {key: value for key, value in purchase("b", **by_phone).items() if key != "amount"}
        refused = await caller.run(BURN, {"input": {**burn, "points": 10**6}})
        assert refused["burn"]["code"] == "INSUFFICIENT_POINTS"
        reverse = {"idempotencyKey": "v", "originalKey": "SECRETREF", "occurredAt": burn["occurredAt"]}
        await caller.run(REVERSE, {"input": reverse})
        # Input that is none, in variables and in the document.
        await caller.send(EARN, {"input": {"member": {"email": MARKED["email"]}, "amount": MARKED["phone"]}})
        await caller.send(f'{{ member(by: {{email: "{MARKED["email"]}"}}) {{ nothing }} }}')
        # Faults: in the batch, whose complaint quotes the row, and in a resolver.
        monkeypatch.setattr(queue_module, "write_batch", complaining)
        posting = lines()
        for reference in COMPLAINTS:
            sent = {"input": purchase(reference, **by_phone)}
            answer = (await caller.send(EARN, sent, **{"x-request-id": "faulty-till"})).json()["data"]["earn"]
            assert answer["code"] == "INTERNAL_ERROR"
            assert "request faulty-till:" in answer["message"]
        unique, request, syntax, _ = faults = lines()
        wrong = text(
            "SELECT (CAST(:values AS text[]))[1]::integer"
            " WHERE CAST(:kinds AS text[]) IS NOT NULL AND CAST(:now AS timestamptz) IS NOT NULL"
        )
        monkeypatch.setattr("domain.reading.MEMBERS_BY_IDENTIFIER_SQL", wrong)
        await caller.send(f'{{ member(by: {{card: "{MARKED["card"]}"}}) {{ id }} }}')
        resolver = lines()

    assert [line["event"] for line in posting] == ["request"] * 6
    # What the queue could not do is told once, by fact, under the request's id.
    assert unique["event"] == syntax["event"] == "1 commands refused by a fault, request faulty-till"
    assert (unique["logger"], unique["level"]) == ("domain.queue", "error")
    assert (unique["fault"]["error"], unique["fault"]["sqlstate"]) == ("UniqueViolationError", "23505")
    assert unique["fault"]["constraint"] == "member_identifier_pkey"
    assert any(frame.endswith(" complaining") for frame in unique["fault"]["frames"])
    assert syntax["fault"]["sqlstate"] == "22P02"
    assert request["request_id"] == "faulty-till"
    assert [line["event"] for line in resolver] == ["graphql_resolver_failed", "request"]
    assert resolver[0]["sqlstate"] == "22P02"
    assert resolver[0]["request_id"] == resolver[1]["request_id"]
    everything = json.dumps([shop_log, posting, faults, resolver])
    assert not any(mark in everything for mark in (*MARKS, caller.token))


async def test_libraries_log_the_same_way(lines: Lines) -> None:
    def fail() -> None:
        raise ValueError(f"bad value {MARKED['email']}")

    REQUEST_ID.set("till-8")
    try:
        fail()
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
    logging.getLogger("sqlalchemy.engine").info("SELECT %s", MARKED["card"])
    logging.getLogger("authlib.oauth2").debug("token %s", MARKED["card"])
    logging.getLogger("api.anything").info("for %d", 7)
    first, second = lines()
    assert (first["event"], first["logger"], first["request_id"]) == (
        "Exception in ASGI application\n",
        "uvicorn.error",
        "till-8",
    )
    assert first["fault"]["error"] == "ValueError"
    assert first["fault"]["frames"][-1].endswith(" fail")
    assert "marked" not in json.dumps(first)
    assert (second["event"], second["level"]) == ("for 7", "info")


async def test_what_the_loop_finds_is_logged_by_fact(lines: Lines) -> None:
    watch_loop()

    async def fail() -> None:
        raise ValueError(MARKED["email"])

    task = asyncio.create_task(fail(), name=MARKED["card"])
    await asyncio.wait([task])
    del task
    asyncio.get_running_loop().call_soon(int, MARKED["phone"] + "x")
    await asyncio.sleep(0)
    seen = lines()
    assert [(line["event"], line["fault"]["error"]) for line in seen] == [
        ("an error that nobody handled", "ValueError")
    ] * 2
    assert not any(mark in json.dumps(seen) for mark in MARKS)


def test_facts_quote_the_ledger_and_the_system_only(lines: Lines) -> None:
    assert fault_facts(LedgerFault("5 rows expected")) == {
        "error": "LedgerFault",
        "text": "5 rows expected",
        "frames": [],
    }
    assert fault_facts(ConnectionRefusedError(111, "Connection refused"))["text"] == "Connection refused"
    assert "text" not in fault_facts(ValueError("anything"))
    log_fault("command_failed", LedgerFault("5 rows expected"))
    assert lines()[0]["text"] == "5 rows expected"


CRASH = """
import sys
from api import cli, terminal

def broken(*_):
    raise ValueError("marked.person@example.org")

terminal.load_settings = broken
sys.argv = ["coalition", "verify"]
cli.main()
"""


def test_a_crash_of_the_command_line_shows_no_text_of_the_error() -> None:
    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    line, said = done.stderr.strip().split("\n")
    assert (json.loads(line)["event"], json.loads(line)["error"]) == ("command_failed", "ValueError")
    assert said == "coalition: internal error, ValueError: the line above says where"
    assert "marked" not in done.stdout + done.stderr

"""The short way of a refusal answers what the long way would, and hands on whatever it does not know."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from api.app import GRAPHQL_PATH, create_app
from api.connections import SHORT_BODY_BYTES_MAX, ShortWay
from api.graphql import view
from api.graphql.view import GraphQLEndpoint
from api.logs import AccessLog
from api.server import _config, _Server
from api.settings import load_settings
from domain.database import Database
from tests.api.graphql_shop import EARN, Caller, Shop, open_shop, purchase

LENGTH = re.compile(rb"content-length: (\d+)")
DATE = re.compile(rb"date: [^\r]+")
SECONDS = 30
QUERY = "{ viewer { kind } }"


class Counted:
    """Notes the requests that were answered, and how many took the short way."""

    server: _Server

    def __init__(self) -> None:
        self.answered: list[tuple[str, int]] = []
        self.short = 0

    def request_answered(self, path: str, status: int, duration_ns: int) -> None:
        assert duration_ns > 0
        self.answered.append((path, status))


class CountedWay(ShortWay):
    """The short way, counted."""

    counted: Counted

    def answer(self, headers: Any, body: bytes, date: Any) -> bytes | None:
        answer = super().answer(headers, body, date)
        self.counted.short += answer is not None
        return answer


@asynccontextmanager
async def served(shop: Shop, *, has_short_way: bool, idle_seconds: float = 60) -> AsyncIterator[tuple[int, Counted]]:
    """The shop behind uvicorn: port and counts."""
    counted = Counted()
    graphql = GraphQLEndpoint(shop.services)
    log = AccessLog(create_app(shop.services, "https://test", graphql), [GRAPHQL_PATH], counted)
    short_way = CountedWay(GRAPHQL_PATH, graphql, log)
    short_way.counted = counted
    settings = load_settings({"COALITION_LOG_LEVEL": "ERROR"})
    started = asyncio.Event()
    config = _config(log, settings, "127.0.0.1", 0, short_way if has_short_way else None)
    config.timeout_keep_alive = idle_seconds  # type: ignore[assignment]  # any number of seconds will do
    server = _Server(config, started.set)
    task = asyncio.create_task(server.serve())
    await started.wait()
    try:
        counted.server = server
        yield server.servers[0].sockets[0].getsockname()[1], counted
    finally:
        server.should_exit = True
        await task


async def answers(port: int, packets: Sequence[bytes], count: int = 1) -> list[bytes]:
    """What a server says to these packets, a turn or more apart; whatever the date."""
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for packet in packets:
            writer.write(packet)
            await writer.drain()
            await asyncio.sleep(0.02)
        found = []
        for _ in range(count):
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length is not None else b""
            found.append(DATE.sub(b"date: now", head) + body)
        writer.close()
        await writer.wait_closed()
        return found


def request(
    token: str, body: bytes, *headers: str, start: str = "POST /graphql HTTP/1.1", length: int | None = None
) -> bytes:
    """A request with a request id of its own."""
    lines = [
        start,
        "Host: test",
        f"Authorization: Bearer {token}",
        "X-Request-Id: till-7",
        "Content-Type: application/json",
        *([] if length == 0 else [f"Content-Length: {len(body)}"]),
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def earn(key: str, **changes: Any) -> bytes:
    """The body of a purchase."""
    return json.dumps({"query": EARN, "variables": {"input": purchase(key, **changes)}}).encode()


def exchanges(token: str, reader: str) -> dict[str, tuple[list[bytes], int, int]]:
    """Packets, how many answers they get, and how many of those the short way gives."""
    whole, other = request(token, earn("k1")), request(token, earn("k2"))
    long = earn("k", lines=[{"sku": "x" * SHORT_BODY_BYTES_MAX, "amount": {"amount": "1.00", "currency": "EUR"}}])
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(earn("k")), earn("k"))
    return {
        "a refusal": ([whole], 1, 1),
        "in pieces": ([whole[:100], whole[100:400], whole[400:-5], whole[-5:]], 1, 1),
        "two on one connection": ([whole, other], 2, 2),
        "two in one packet": ([whole + other], 2, 2),
        "the other media type": ([request(token, earn("k"), "Accept: application/graphql-response+json")], 1, 1),
        "unknown token": ([request("coa_at_" + "x" * 43, earn("k"))], 1, 0),
        "no scope": ([request(reader, earn("k"), "Accept: application/graphql-response+json")], 1, 0),
        "no media type that there is": ([request(token, earn("k"), "Accept: text/html")], 1, 0),
        "no JSON": ([request(token, b"{")], 1, 0),
        "not said to be JSON": ([whole.replace(b"application/json", b"text/plain")], 1, 0),
        "no such field": ([request(token, b'{"query": "mutation { burnt { id } }"}')], 1, 0),
        "a query": ([request(token, json.dumps({"query": QUERY}).encode())], 1, 0),
        "a query, then a refusal": ([request(token, json.dumps({"query": QUERY}).encode()) + whole], 2, 0),
        "another path": ([whole.replace(b"/graphql", b"/elsewhere")], 1, 0),
        "another method": ([request(token, earn("k"), start="PUT /graphql HTTP/1.1")], 1, 0),
        "the last of its connection": ([request(token, earn("k"), "Connection: close")], 1, 0),
        "an old protocol": ([request(token, earn("k"), start="POST /graphql HTTP/1.0")], 1, 0),
        "an old protocol's connection kept": (
            [request(token, earn("k"), "Connection: keep-alive", start="POST /graphql HTTP/1.0")],
            1,
            0,
        ),
        "a long body": ([request(token, long)], 1, 0),
        "no length": ([request(token, chunked, "Transfer-Encoding: chunked", length=0)], 1, 0),
        "one that asks first": ([request(token, earn("k"), "Expect: 100-continue")], 2, 0),
    }


def without_time(line: Mapping[str, Any]) -> dict[str, Any]:
    """What a line of the log says but for how long it took."""
    return {name: value for name, value in line.items() if name != "duration_ms"}


@pytest.fixture
async def shop(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        # Whoever hears of revocations forgets all tokens when it begins to listen, which is some time from now.
        monkeypatch.setattr(opened.services.authenticator, "forget_all", lambda: None)
        yield opened


async def test_both_ways_answer_the_same_to_the_byte(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    till, reader = await shop.caller(), await shop.caller(scopes=["members:read"])
    monkeypatch.setattr(shop.services.queue, "_queue_max", 0)
    async with served(shop, has_short_way=True) as (short, counted), served(shop, has_short_way=False) as (long, other):
        for name, (packets, count, short_count) in exchanges(till.token, reader.token).items():
            await till.run(QUERY)  # the token is known
            await reader.run(QUERY)
            counted.short = 0
            counted.answered.clear()
            other.answered.clear()
            with structlog.testing.capture_logs() as lines:
                found = await answers(short, packets, count)
            with structlog.testing.capture_logs() as other_lines:
                assert found == await answers(long, packets, count), name
            assert [without_time(line) for line in lines] == [without_time(line) for line in other_lines], name
            assert len(lines) == len(counted.answered)
            assert counted.short == short_count, name
            assert counted.answered == other.answered, name
            assert sum(b"OVERLOADED" in answer for answer in found) >= short_count, name
        assert other.short == 0


async def test_a_token_that_is_not_known_yet_takes_the_long_way(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    till = await shop.caller()
    monkeypatch.setattr(shop.services.queue, "_queue_max", 0)
    async with served(shop, has_short_way=True) as (port, counted):
        shop.services.authenticator._cache.clear()
        packet = request(till.token, earn("k"))
        assert await answers(port, [packet]) == await answers(port, [packet])
        assert counted.short == 1


async def test_what_finds_room_after_all_is_posted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    till = await shop.caller()
    await till.enroll()
    monkeypatch.setattr(shop.services.queue, "_queue_max", 0)
    async with served(shop, has_short_way=True) as (port, counted):
        packet = request(till.token, earn("k"))
        (refused,) = await answers(port, [packet])
        assert b'"OVERLOADED"' in refused
        # Room appears while the request is on its way: held back first, it is handed on.
        opening = asyncio.create_task(answers(port, [packet[:-1], packet[-1:]]))
        await asyncio.sleep(0.01)
        monkeypatch.setattr(shop.services.queue, "_queue_max", 5)
        (posted,) = await opening
        assert b'"replayed":false' in posted
        assert counted.short == 1
        assert (await till.earn("k"))["replayed"] is True


async def test_queries_beyond_the_limit_take_the_short_way_too(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    till: Caller = await shop.caller()
    await till.run(QUERY)
    async with served(shop, has_short_way=True) as (port, counted):
        packet = request(till.token, json.dumps({"query": QUERY}).encode())
        (answered,) = await answers(port, [packet])
        assert b'"kind":"PARTNER"' in answered
        assert counted.short == 0
        monkeypatch.setattr(view, "QUERIES_MAX", 0)
        (refused,) = await answers(port, [packet])
        assert refused.endswith(b'"extensions":{"code":"OVERLOADED","retryable":true}}],"data":null}')
        assert counted.short == 1


async def test_a_connection_whose_last_request_was_refused_ends_when_idle(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = await shop.caller()
    await till.run(QUERY)
    monkeypatch.setattr(shop.services.queue, "_queue_max", 0)
    async with served(shop, has_short_way=True, idle_seconds=0.05) as (port, counted), asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(till.token, earn("k")))
        assert (await reader.read()).endswith(b"}}}"), "the answer, then the end"
        writer.close()
        assert counted.short == 1


async def test_who_does_not_read_answers_cannot_make_them_pile_up(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    till = await shop.caller()
    await till.run(QUERY)
    monkeypatch.setattr(shop.services.queue, "_queue_max", 0)
    async with served(shop, has_short_way=True) as (port, counted):
        mute = socket.socket()
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mute.connect(("127.0.0.1", port))
        mute.setblocking(False)
        packets, sent, idle = memoryview(request(till.token, earn("k")) * 20_000), 0, 0
        while sent < len(packets) and idle < 20:
            try:
                sent += mute.send(packets[sent : sent + 100_000])
                idle = 0
            except BlockingIOError:
                idle += 1
            await asyncio.sleep(0.005)
        (connection,) = counted.server.server_state.connections
        assert counted.short > 0
        assert connection.transport.get_write_buffer_size() < 2**20
        mute.close()

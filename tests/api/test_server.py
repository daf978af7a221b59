"""What stands between a till and the application: connections taken and ended, and the settings of the server."""

import asyncio
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from api import server
from api.logs import Receive, Send
from api.runtime import Runtime
from api.server import _config, _Server, allow_many_connections, check_can_listen
from api.settings import load_settings
from api.terminal import run_loop
from domain.errors import ConfigurationError

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def app(_scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Answers everything."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def served(idle_seconds: float) -> AsyncIterator[tuple[_Server, tuple[str, int]]]:
    """A server on some port, and its address."""
    settings = load_settings({"COALITION_LOG_LEVEL": "ERROR"})
    config = _config(app, settings, "127.0.0.1", 0)
    config.timeout_keep_alive = idle_seconds  # type: ignore[assignment]  # any number of seconds will do
    started = asyncio.Event()
    serving = _Server(config, started.set)
    task = asyncio.create_task(serving.serve())
    await started.wait()
    try:
        yield serving, serving.servers[0].sockets[0].getsockname()
    finally:
        serving.should_exit = True
        await task


def on_uvloop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs on the loop of production: what it looks at, asyncio's own loop does otherwise."""

    def run() -> None:
        run_loop(test())

    run.__doc__ = test.__doc__
    return run


@on_uvloop
async def test_one_turn_takes_many_connections() -> None:
    async with served(idle_seconds=60) as (serving, address):
        tills = [socket.create_connection(address) for _ in range(100)]
        for _ in range(6):
            await asyncio.sleep(0)
        taken = len(serving.server_state.connections)
        for till in tills:
            till.close()
        assert taken == 100


@on_uvloop
async def test_a_request_that_comes_as_its_idle_connection_ends_is_answered() -> None:
    async with served(idle_seconds=0.1) as (_, address):
        loop = asyncio.get_running_loop()
        bell, ringer = socket.socketpair()
        with socket.create_connection(address) as till, bell, ringer:
            till.setblocking(False)
            till.send(REQUEST)
            assert (await loop.sock_recv(till, 1000)).startswith(b"HTTP/1.1 200 OK\r\n")

            def busy() -> None:
                # The loop has looked for what can be read, and works on it until the connection's time is over.
                bell.recv(1)
                threading.Event().wait(0.2)
                till.send(REQUEST)

            loop.add_reader(bell, busy)
            ringer.send(b"!")
            assert (await loop.sock_recv(till, 1000)).startswith(b"HTTP/1.1 200 OK\r\n")
            loop.remove_reader(bell)


@on_uvloop
async def test_an_idle_connection_ends() -> None:
    async with served(idle_seconds=0.05) as (_, address):
        with socket.create_connection(address) as till:
            till.setblocking(False)
            loop = asyncio.get_running_loop()
            till.send(REQUEST)
            assert (await loop.sock_recv(till, 1000)).endswith(b"ok")
            assert await asyncio.wait_for(loop.sock_recv(till, 1000), 10) == b""


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        allow_many_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, server.OPEN_FILES), hard)
        allow_many_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, server.OPEN_FILES), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_queue_s_length_is_a_setting() -> None:
    assert load_settings({}).queue_max == 1_000
    assert load_settings({"COALITION_QUEUE_MAX": "7"}).queue_max == 7
    for wrong in ("0", "-1", "many", "100001", "1" * 30):
        with pytest.raises(ConfigurationError, match=r"COALITION_QUEUE_MAX is .*: give a number from 1 to 100000"):
            load_settings({"COALITION_QUEUE_MAX": wrong})


async def test_an_address_that_cannot_be_served_is_one_clear_line_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host, why in (("127.0.0.1", "Address already in use"), ("256.1.1.1", ".+")):
            message = rf"^{host} port {port} cannot be served: {why}; change COALITION_HOST or COALITION_PORT$"
            settings = load_settings({"COALITION_HOST": host, "COALITION_PORT": str(port)})
            with pytest.raises(ConfigurationError, match=message):
                # Nothing else may have begun: there is no runtime to begin it with.
                await server.serve(cast("Runtime", None), settings, lambda: None)
    check_can_listen("127.0.0.1", port)

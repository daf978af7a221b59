"""kill -9 under load: of the server, of the database, of one of three processes that share the embedded database."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from api import embedded
from domain.database import POSTING_ROLE
from tests.api.processes import Coalition, Load, Server, a_coalition, purchase

pytestmark = pytest.mark.slow

TILLS = 8
LOAD_SECONDS = 2
POINTS = 'query { member(by: { card: "card-1" }) { balance { available } } }'
ENROLL = """
mutation { enrollMember(input: { idempotencyKey: "enroll-card-1", card: "card-1" }) { __typename } }
"""
SCOPES = ("members:read", "members:write", "points:earn", "partner:read")


def check_ledger(coalition: Coalition, server: Server, token: str, loads: list[Load]) -> None:
    """Every purchase is in the ledger exactly once, and every invariant holds."""
    expected = sum(len(load.sent) for load in loads)
    assert server.ask(token, POINTS)["member"]["balance"]["available"] == expected
    report = json.loads(coalition.run("verify", "--json"))
    assert report["holds"], report


def opened(coalition: Coalition) -> tuple[tuple[str, str], Server, str]:
    """A coalition with one member and a server; answers client, server and token."""
    coalition.apply()
    client = coalition.client(*SCOPES)
    server = coalition.serve()
    token = server.token(client)
    server.ask(token, ENROLL)
    return client, server, token


async def under_load(loads: list[Load], act: object) -> None:
    """Runs the loads, acts after a while, and lets the tills end."""
    tills = [asyncio.create_task(load.till(number)) for load in loads for number in range(TILLS)]
    await asyncio.sleep(LOAD_SECONDS)
    assert callable(act)
    act()
    await asyncio.wait(tills, timeout=LOAD_SECONDS)
    for load in loads:
        load.stopped = True
    await asyncio.gather(*tills)


def test_server_killed_under_load_loses_and_doubles_nothing() -> None:
    with a_coalition() as coalition:
        client, server, token = opened(coalition)
        load = Load(server.url, token, "a")
        asyncio.run(under_load([load], server.kill))
        assert load.acknowledged
        again = coalition.serve()
        load.url, load.token = again.url, again.token(client)
        asyncio.run(load.repeat_all())
        check_ledger(coalition, again, load.token, [load])


def test_database_killed_under_load_comes_back_without_a_hand() -> None:
    with a_coalition() as coalition:
        _, server, token = opened(coalition)
        load = Load(server.url, token, "a")
        asyncio.run(under_load([load], lambda: os.kill(coalition.postmaster_pid(), signal.SIGKILL)))
        assert load.acknowledged
        server.wait_until_ready()
        asyncio.run(load.repeat_all())
        check_ledger(coalition, server, token, [load])


def test_one_of_three_processes_killed_leaves_the_others_at_work() -> None:
    with a_coalition() as coalition:
        client, first, token = opened(coalition)
        others = [coalition.serve(), coalition.serve()]
        loads = [Load(server.url, token, f"s{number}") for number, server in enumerate([first, *others])]
        asyncio.run(under_load(loads, first.kill))
        before = len(loads[1].sent) + len(loads[2].sent)
        assert len(loads[1].acknowledged) + len(loads[2].acknowledged) == before, "the others refused nothing"
        loads[0].url = others[0].url
        for load in loads:
            asyncio.run(load.repeat_all())
        check_ledger(coalition, others[1], token, loads)
        # The last one out stops the server: nothing is left running.
        coalition.stop()
        assert not list(coalition.data_dir.glob("**/postmaster.pid"))
        assert client


def test_server_told_to_stop_answers_what_has_arrived() -> None:
    with a_coalition() as coalition:
        client, server, token = opened(coalition)
        load = Load(server.url, token, "a")
        asyncio.run(under_load([load], lambda: server.process.send_signal(signal.SIGTERM)))
        assert server.process.wait(30) == 0
        again = coalition.serve()
        load.url, load.token = again.url, again.token(client)
        asyncio.run(load.repeat_all())
        check_ledger(coalition, again, load.token, [load])


WAITING_SQL = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


async def stop_with_a_purchase_in_flight(coalition: Coalition, server: Server, load: Load) -> None:
    """Holds the member's account until the server was told to stop and takes no more connections."""
    database = await asyncio.to_thread(embedded.start, coalition.data_dir)
    engine = create_async_engine(make_url(database.dsn(POSTING_ROLE)))
    async with httpx2.AsyncClient(base_url=server.url, timeout=60) as http:
        async with engine.begin() as holder, engine.connect() as watching:
            await holder.execute(text("SELECT FROM account FOR UPDATE"))
            load.sent["in-flight"] = purchase("in-flight")
            answer = asyncio.create_task(load.post(http, "in-flight"))

            async def posting_waits() -> bool:
                return bool((await watching.execute(WAITING_SQL)).scalar())

            await until(posting_waits)
            server.process.send_signal(signal.SIGTERM)
            await until(lambda: refuses_connections(server))
            assert not answer.done()
        await answer
    await engine.dispose()
    await asyncio.to_thread(database.close)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Waits for something that must come soon."""
    for _ in range(500):
        if await holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("waited for nothing")


async def refuses_connections(server: Server) -> bool:
    """Whether the server lets nobody in any more."""
    url = httpx2.URL(server.url)
    try:
        _, writer = await asyncio.open_connection(url.host, url.port)
    except ConnectionError:
        return True
    writer.close()
    return False


def test_a_purchase_in_flight_is_answered_before_the_server_stops() -> None:
    with a_coalition() as coalition:
        client, server, token = opened(coalition)
        load = Load(server.url, token, "a")
        asyncio.run(stop_with_a_purchase_in_flight(coalition, server, load))
        assert load.acknowledged.keys() == {"in-flight"}
        assert server.process.wait(30) == 0
        again = coalition.serve()
        check_ledger(coalition, again, again.token(client), [load])

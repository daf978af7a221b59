"""Three times what the server sustains: how long accepted purchases take, what is refused, and the server's memory."""

import asyncio
import json
import subprocess
from dataclasses import asdict, dataclass

from api.clock import system_clock
from tests.api.processes import Server
from tests.bench.documents import Load
from tests.bench.figures import Result, Side, resident_mb
from tests.bench.flood import BEGAN, COMMAND, Flood, Flooded, as_flooded
from tests.bench.load import generate
from tests.bench.shop import Shop, a_shop
from tests.tidy import ROOT

TIMES = 3
LOG_CHARACTERS = 5_000


@dataclass(frozen=True)
class OverloadSize:
    """What is sent to find the sustained rate, over how many connections; how long the flood is, from how many."""

    requests: int
    warm_up: int
    connections: int
    members: int
    seconds: int
    tills: int


FULL = OverloadSize(requests=9_000, warm_up=2_000, connections=256, members=5_000, seconds=20, tills=3_000)
QUICK = OverloadSize(requests=600, warm_up=100, connections=64, members=100, seconds=1, tills=200)


def overload(*, quick: bool, lively: bool) -> Result:
    """The 99th percentile of the latency of accepted purchases, in milliseconds.

    Raises RuntimeError when a request was neither accepted nor refused with OVERLOADED.
    """
    size = QUICK if quick else FULL
    with a_shop(size.members, lively=lively) as shop:
        server = shop.coalition.serve()
        sustained = generate(_load(shop, server, "sustained", size.requests, size.warm_up, size.connections)).per_second
        offered = round(sustained * TIMES, 1)
        load = _load(shop, server, "flood", round(offered * size.seconds), 0, size.tills)
        came, memory = _flood(Flood(load, offered), server, size.seconds)
        if came.errors:
            said = server.log.read_text(encoding="utf-8")[-LOG_CHARACTERS:]
            raise RuntimeError(f"errors under overload: {came.errors} {came.examples}\nThe server said: {said}")
    return Result(
        came.accepted.p99_ms,
        [
            Side(f"sustained, {size.connections} tills that wait", "requests/s", [sustained]),
            Side("offered", "requests/s", [offered]),
            Side("accepted", "requests/s", [round(came.accepted.count / came.seconds, 1)]),
            Side("refused with OVERLOADED", "%", [round(came.refused.count / load.requests * 100, 1)]),
            Side("accepted, 50th percentile", "ms", [came.accepted.p50_ms]),
            Side("accepted, longest", "ms", [came.accepted.max_ms]),
            Side("refused, 99th percentile", "ms", [came.refused.p99_ms]),
            *(Side(f"memory {when}", "MiB", [resident]) for when, resident in memory.items()),
        ],
        {"seconds": size.seconds, "members": size.members, "flood": asdict(came)},
    )


def _load(shop: Shop, server: Server, run: str, requests: int, warm_up: int, connections: int) -> Load:
    port = int(server.url.rpartition(":")[2])
    now, tokens = system_clock().isoformat(), shop.tokens(server)
    return Load(port, "earn", run, requests, warm_up, connections, shop.members, now, tokens)


def _flood(flood: Flood, server: Server, seconds: int) -> tuple[Flooded, dict[str, float]]:
    """Runs the generator in its own process; the server's memory before, on the way and after, where it is told."""
    memory: dict[str, float] = {}

    def look(when: str) -> None:
        # Linux tells it, others do not.
        resident = resident_mb(server.process.pid)
        if resident is not None:
            memory[when] = resident

    with subprocess.Popen(
        COMMAND, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(asdict(flood)))
            process.stdin.close()
            said = process.stdout.readline()
            if said == BEGAN:
                look("before")
                for pause, when in (
                    (seconds / 4, f"after {seconds / 4:g} s"),
                    (seconds / 4, f"after {seconds / 2:g} s"),
                ):
                    asyncio.run(asyncio.sleep(pause))
                    look(when)
            said = process.stdout.read() if said == BEGAN else said + process.stdout.read()
            look("at the end")
        finally:
            process.kill()
    if not said.startswith("{"):
        raise RuntimeError(f"the load generator failed: {said}")
    return as_flooded(json.loads(said)), memory

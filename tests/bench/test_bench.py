"""That the benchmarks run at all; how fast anything is, no test asks."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from graphql import OperationDefinitionNode, get_variable_values, parse, validate

from api.graphql.schema import schema
from domain.errors import ConfigurationError
from tests.bench import baseline, command
from tests.bench.documents import DOCUMENTS, Load, variables
from tests.bench.figures import Side, in_turn, ratio_of
from tests.bench.flood import Flood, send_all
from tests.bench.overload import QUICK, TIMES


def test_both_sides_answer_the_same_documents() -> None:
    for operation, document in DOCUMENTS.items():
        parsed = parse(document)
        load = Load(1, operation, "run", 1, 0, 1, 1, "2017-03-14T17:05:00+01:00", [])
        (asked,) = [node for node in parsed.definitions if isinstance(node, OperationDefinitionNode)]
        for served in (schema, baseline.schema):
            assert validate(served._schema, parsed) == []
            given = get_variable_values(served._schema, asked.variable_definitions or (), variables(load, 0))
            assert not isinstance(given, list), given


def test_sides_alternate_and_swap_who_is_first() -> None:
    calls: list[str] = []

    def side(name: str, figure: float) -> float:
        calls.append(name)
        return figure

    a, b = in_turn(lambda number: side("a", 10.0 * (number + 1)), lambda _: side("b", 10.0))
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert (a, b) == ([10.0, 20.0, 30.0], [10.0, 10.0, 10.0])
    assert ratio_of(Side("a", "s", a), Side("b", "s", b)).value == 2.0


@pytest.mark.parametrize("lively", [False, True])
def test_the_report_has_the_ratio_both_sides_and_the_machine(tmp_path: Path, lively: bool) -> None:
    report = tmp_path / "bench.json"
    written = command.bench(["close_vs_scan"], report, quick=True, lively=lively)
    assert written["lively"] is lively
    assert json.loads(report.read_text(encoding="utf-8")) == written
    assert isinstance(written["close_vs_scan"], float)
    raw = written["raw"]
    assert isinstance(raw, dict)
    sides = raw["close_vs_scan"]["sides"]
    assert [len(side["rounds"]) for side in sides] == [3, 3]
    assert all(figure > 0 for side in sides for figure in side["rounds"])
    assert raw["close_vs_scan"]["transactions"] == 20_000
    machine = written["machine"]
    assert isinstance(machine, dict)
    assert machine.keys() >= {"processor", "cores", "memory", "load_average", "commit"}


def test_a_flood_is_answered_to_the_last_request(tmp_path: Path) -> None:
    written = command.bench(["overload"], tmp_path / "bench.json", quick=True, lively=False)
    raw = written["raw"]
    assert isinstance(raw, dict)
    figures = {side["name"]: side["median"] for side in raw["overload"]["sides"]}
    flood = raw["overload"]["flood"]
    assert flood["errors"] == {}
    assert flood["accepted"]["count"] + flood["refused"]["count"] == round(figures["offered"] * QUICK.seconds)
    assert flood["accepted"]["count"] > 0
    assert written["overload"] == flood["accepted"]["p99_ms"] >= flood["accepted"]["p50_ms"] > 0
    assert figures["offered"] == pytest.approx(figures["sustained, 64 tills that wait"] * TIMES, abs=0.1)


class Moody(asyncio.Protocol):
    """Fails a request, hangs up on the next, accepts one, refuses one, and so on."""

    count = 0

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        answers = (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}", b"", ACCEPTED, REFUSED)
        answer = answers[Moody.count % len(answers)]
        Moody.count += 1
        self.transport.write(answer)
        if not answer:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport.close()


ACCEPTED = b'HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{"__typename":"EarnReceipt"}   '
REFUSED = b'HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{"code":"OVERLOADED"}         '


async def test_a_flood_tells_accepted_refused_and_failed_apart() -> None:
    server = await asyncio.get_running_loop().create_server(Moody, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    load = Load(port, "earn", "run", 8, 0, 1, 1, "2017-03-14T17:05:00+01:00", [])
    came = await send_all(Flood(load, 1_000.0))
    assert (came.accepted.count, came.refused.count, came.connections) == (2, 2, 1)
    assert came.errors == {"HTTP/1.1 500 Oh": 2, "connection lost": 2}
    assert came.examples["HTTP/1.1 500 Oh"].endswith("{}")
    server.close()
    await server.wait_closed()
    nobody = await send_all(Flood(load, 1_000.0))
    assert (nobody.accepted.count, nobody.errors) == (0, {"not connected": 8})


def test_a_key_that_is_none_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="rss_mb"):
        command.bench(["speed"], tmp_path / "bench.json", quick=True, lively=False)
    assert not list(tmp_path.iterdir())


def test_outside_a_checkout_the_command_says_so(tmp_path: Path) -> None:
    for package in ("api", "domain"):
        (tmp_path / package).symlink_to(Path(package).resolve())
    code = f"""
from pathlib import Path
import api.cli
api.cli.__file__ = {str(tmp_path / "api" / "cli.py")!r}
Path.resolve = Path.absolute
import sys
sys.argv = ["coalition", "bench"]
api.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "make bench" in done.stderr

"""Over HTTP against the baseline: a purchase, and a balance; and the memory that purchases and an import take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from api.clock import system_clock
from tests.api.processes import Server
from tests.bench.documents import MEMBER_STRIDE, Load
from tests.bench.figures import ROUNDS, Result, Side, in_turn, peak_mb, ratio_of
from tests.bench.load import Measured, generate
from tests.bench.shop import PARTNERS, YEAR_DAYS, Shop, a_shop, the_baseline, write_rows

CONNECTIONS = 64
LOG_CHARACTERS = 5_000


@dataclass(frozen=True)
class WebSize:
    """How much is sent a round, and to how many members."""

    requests: int
    warm_up: int
    members: int
    rows_of_year: int


FULL = WebSize(requests=13_000, warm_up=3_000, members=5_000, rows_of_year=250_000)
QUICK = WebSize(requests=600, warm_up=100, members=100, rows_of_year=3_000)


def earn(*, quick: bool, lively: bool) -> Result:
    """``earn`` with token, look-up, budget, lots and commit, against the baseline's constant."""
    return _against_baseline("earn", QUICK if quick else FULL, lively=lively)


def balance(*, quick: bool, lively: bool) -> Result:
    """``member { balance }`` against the baseline's constant."""
    return _against_baseline("balance", QUICK if quick else FULL, lively=lively)


def _against_baseline(operation: str, size: WebSize, *, lively: bool) -> Result:
    latency: dict[str, list[float]] = {"p50_ms": [], "p99_ms": []}

    def ours(number: int) -> float:
        measured = _loaded(shop, server, operation, f"round-{number}", size)
        latency["p50_ms"].append(measured.p50_ms)
        latency["p99_ms"].append(measured.p99_ms)
        return measured.per_second

    def theirs(number: int) -> float:
        return generate(_load(port, operation, f"round-{number}", size, [])).per_second

    with a_shop(size.members, lively=lively) as shop, the_baseline() as port:
        server = shop.coalition.serve()
        a, b = in_turn(ours, theirs)
        peak = peak_or_none(server)
    return ratio_of(
        Side(f"{operation} over HTTP", "requests/s", a),
        Side("strawberry.asgi, constant answer", "requests/s", b),
        connections=CONNECTIONS,
        server_peak_mb=peak,
        **latency,
    )


def peak_or_none(server: Server) -> float | None:
    """The server's peak memory where the system tells it."""
    try:
        return peak_mb(server.process.pid)
    except OSError:
        return None


def _loaded(shop: Shop, server: Server, operation: str, run: str, size: WebSize) -> Measured:
    # Fresh ones each round: a token lives for fifteen minutes.
    tokens = shop.tokens(server)
    try:
        return generate(_load(int(server.url.rpartition(":")[2]), operation, run, size, tokens))
    except RuntimeError as error:
        said = server.log.read_text(encoding="utf-8")[-LOG_CHARACTERS:]
        raise RuntimeError(f"{error}\nThe server ({server.process.poll()=}) said: {said}") from error


def _load(port: int, operation: str, run: str, size: WebSize, tokens: Sequence[str]) -> Load:
    now = system_clock().isoformat()
    return Load(port, operation, run, size.requests, size.warm_up, CONNECTIONS, size.members, now, tokens)


def memory(*, quick: bool, lively: bool) -> Result:
    """Peak memory of the server under purchases, and of the import of a year; the larger of the two. Linux only."""
    size = QUICK if quick else FULL
    with a_shop(size.members, lively=lively) as shop:
        server = shop.coalition.serve()
        for number in range(ROUNDS):
            _loaded(shop, server, "earn", f"round-{number}", size)
        served = peak_mb(server.process.pid)
        file = write_rows(shop.coalition.folder / "year.csv", rows_of_year(size))
        summary, imported = shop.import_file(file, "--booking", "occurred")
    return Result(
        max(served, imported),
        [Side("serve under purchases", "MiB", [served]), Side("import of a year", "MiB", [imported])],
        {"requests": size.requests * ROUNDS, "rows": summary["rows"]},
    )


def rows_of_year(size: WebSize) -> Iterator[Sequence[object]]:
    """A year of purchases that ends now, in order of time: as many rows as the demo's data has."""
    end = system_clock()
    step = timedelta(days=YEAR_DAYS) / size.rows_of_year
    for number in range(size.rows_of_year):
        at = end - step * (size.rows_of_year - number)
        member = f"card-{number * MEMBER_STRIDE % size.members}"
        yield (
            "earn", f"year-{number}", f"p{number % PARTNERS}", "s1", "card", member, at.isoformat(),
            f"{10 + number % 90}.50", "EUR", "", f"year-{number}",
        )  # fmt: skip

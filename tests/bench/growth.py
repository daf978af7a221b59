"""Purchases a second through the posting queue: in a coalition of five million movements, and of fifty thousand."""

from time import perf_counter

from api.clock import system_clock
from api.embedded import EmbeddedServer
from api.terminal import run_loop
from domain.commands import Posted
from domain.periods import MONTHS_PER_YEAR
from domain.queue import PostingQueue
from domain.terms import ConfigurationCache
from tests.api.processes import a_database
from tests.bench.figures import Result, Side, in_turn, ratio_of
from tests.bench.history import make_history, members_of, opened, purchases, run_alone
from tests.bench.shop import first_of_last_month

PERIODS = 12
ROUNDS = 5
"""More than elsewhere, because both sides are nearly equal and what they differ by is the figure."""

LARGE, SMALL = "bench_large", "bench_small"


def growth(*, quick: bool, lively: bool) -> Result:
    """The same purchases by as many members as each coalition has; its history lies in the twelve months before."""
    large, small, purchases = (20_000, 2_000, 500) if quick else (5_000_000, 50_000, 4_000)
    month = first_of_last_month()
    first_period = month.year * MONTHS_PER_YEAR + month.month - PERIODS
    with a_database() as (_, server):
        for name, rows in ((SMALL, small), (LARGE, large)):
            make_history(server, name, rows, first_period, PERIODS, lively=lively)

        def measure(name: str, rows: int, run: str) -> float:
            return run_loop(_purchases(server, name, run, purchases, members_of(rows)))

        measure(LARGE, large, "warm-up")
        measure(SMALL, small, "warm-up")
        run_alone(server, "CHECKPOINT")
        a, b = in_turn(
            lambda number: measure(LARGE, large, f"round-{number}"),
            lambda number: measure(SMALL, small, f"round-{number}"),
            ROUNDS,
        )
    return ratio_of(
        Side(f"earns at {large:,} transactions", "commands/s", a),
        Side(f"earns at {small:,} transactions", "commands/s", b),
        purchases_per_round=purchases,
    )


async def _purchases(server: EmbeddedServer, name: str, run: str, count: int, members: int) -> float:
    async with opened(server, name) as database:
        commands = await purchases(database, run, count, members, system_clock())
        queue = PostingQueue(database, ConfigurationCache(database), system_clock)
        queue.start()
        # The first one opens connections, loads the configuration and prepares the statements.
        first = await queue.post(commands[0])
        began = perf_counter()
        outcomes = [first, *await queue.post_many(commands[1:])]
        seconds = perf_counter() - began
        await queue.stop()
    refused = [outcome for outcome in outcomes if not isinstance(outcome, Posted) or outcome.replayed]
    assert not refused, refused[0]
    return (count - 1) / seconds

"""``coalition bench``: runs the keys of DESIGN.md section 10, prints a table, writes ``bench.json``."""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from types import FrameType

from rich.console import Console
from rich.table import Table

from domain.errors import ConfigurationError
from tests.bench import bulk, growth, overload, settling, web
from tests.bench.figures import Result, machine

REPORT = Path("bench.json")
STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Key:
    """One figure: how it is measured, the bar it must clear now, and the goal; some are only looked at."""

    measure: Callable[..., Result]
    bar: float | None = None
    goal: float | None = None
    more_is_better: bool = True

    def clears(self, value: float) -> str:
        """Whether the bar is cleared, in words; nothing without a bar."""
        if self.bar is None:
            return ""
        return "yes" if (value >= self.bar if self.more_is_better else value <= self.bar) else "NO"

    def shown(self, limit: float | None) -> str:
        """Bar or goal with how it is read."""
        return "" if limit is None else f"{'≥' if self.more_is_better else '≤'} {limit}"


KEYS = {
    "earn_http_vs_noop": Key(web.earn, 0.7, 1.0),
    "balance_http_vs_noop": Key(web.balance, 0.6, 1.5),
    "import_vs_pgbench": Key(bulk.import_vs_pgbench, 2.5, 8),
    "close_vs_scan": Key(settling.close_vs_scan, 3, 2, more_is_better=False),
    "growth": Key(growth.growth, 0.85, 0.95),
    "rss_mb": Key(web.memory, 300, 150, more_is_better=False),
    "overload": Key(overload.overload),
}


def bench(only: Sequence[str], report: Path = REPORT, *, quick: bool, lively: bool) -> dict[str, object]:
    """Measures these keys (none given: all) and writes the report after each, so that an abort keeps what there is.

    ``quick`` shrinks everything: it shows that the benchmarks run, and says nothing about speed. ``lively``: with
    campaigns and pending points active. Raises ConfigurationError for a key that is none.
    """
    unknown = sorted(set(only) - set(KEYS))
    if unknown:
        raise ConfigurationError(f"no benchmark is called {unknown[0]!r}: there are {', '.join(KEYS)}")
    # Everything that was started is stopped on the way out, of Ctrl-C and of a polite kill alike.
    before = {number: signal.signal(number, _leave) for number in STOPS}
    results: dict[str, Result] = {}
    written: dict[str, object] = {}
    facts = machine()
    try:
        for name in only or KEYS:
            began = perf_counter()
            results[name] = KEYS[name].measure(quick=quick, lively=lively)
            _say(f"{name}: {results[name].value} ({perf_counter() - began:.0f} s)")
            ended = {"load_average_at_end": [round(load, 2) for load in os.getloadavg()]}
            written = {
                **{key: result.value for key, result in results.items()},
                "quick": quick,
                "lively": lively,
                "raw": {key: result.as_json() for key, result in results.items()},
                "machine": facts | ended,
            }
            report.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    Console().print(_table(results))
    return written


def _leave(number: int, _: FrameType | None) -> None:
    # A second one would cut the cleaning up short, and leave gigabytes behind.
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)
    sys.exit(128 + number)


_say = partial(print, file=sys.stderr, flush=True)


def _table(results: dict[str, Result]) -> Table:
    table = Table("key", "value", "bar", "goal", "cleared", "raw (median of rounds)")
    for name, result in results.items():
        key = KEYS[name]
        raw = "\n".join(f"{side.name}: {side.median:,} {side.unit}" for side in result.sides)
        cleared = key.clears(result.value)
        table.add_row(name, str(result.value), key.shown(key.bar), key.shown(key.goal), cleared, raw)
    return table

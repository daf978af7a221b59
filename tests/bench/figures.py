"""Figures of the benchmarks: two sides in turn, their ratios, and the machine they were taken on."""

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from api.clock import system_clock
from tests.tidy import ROOT

ROUNDS = 3


@dataclass(frozen=True)
class Side:
    """One side's raw figures, a figure a round."""

    name: str
    unit: str
    rounds: list[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return round(median(self.rounds), 3)

    def as_json(self) -> dict[str, object]:
        """For ``bench.json``."""
        return {"name": self.name, "unit": self.unit, "median": self.median, "rounds": self.rounds}


@dataclass(frozen=True)
class Result:
    """What one key came to; a key without a second side is its first one's maximum."""

    value: float
    sides: list[Side]
    facts: dict[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """The raw figures, for ``bench.json``."""
        return {"sides": [side.as_json() for side in self.sides], **self.facts}


Measure = Callable[[int], float]
"""Takes the number of a round and answers its figure."""


def in_turn(ours: Measure, theirs: Measure, rounds: int = ROUNDS) -> tuple[list[float], list[float]]:
    """Both sides, one right after the other, each first in every other round: what else the machine does hits both."""
    a: list[float] = []
    b: list[float] = []
    for number in range(rounds):
        for measure, figures in ((ours, a), (theirs, b)) if number % 2 == 0 else ((theirs, b), (ours, a)):
            figures.append(round(measure(number), 3))
    return a, b


def ratio_of(a: Side, b: Side, **facts: object) -> Result:
    """A to B: the median of the rounds' ratios."""
    ratios = [ours / theirs for ours, theirs in zip(a.rounds, b.rounds, strict=True)]
    return Result(round(median(ratios), 3), [a, b], facts)


def machine() -> dict[str, object]:
    """What the figures depend on besides the code."""
    return {
        "at": system_clock().isoformat(timespec="seconds"),
        "system": platform.platform(),
        "processor": _first(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory": _first(Path("/proc/meminfo"), "MemTotal"),
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "commit": _commit(),
    }


def _first(file: Path, name: str) -> str | None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _commit() -> str | None:
    try:
        said = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],  # noqa: S607 (the user's own git)
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return said.stdout.strip() or None


def peak_mb(pid: int) -> float:
    """Most resident memory that a process has had, in megabytes (2^20 bytes). Linux only; raises OSError elsewhere."""
    peak = _memory_mb(pid, "VmHWM")
    if peak is None:
        raise OSError(f"no VmHWM for process {pid}: rss_mb is measured on Linux")
    return peak


def resident_mb(pid: int) -> float | None:
    """Resident memory of a process now, in megabytes (2^20 bytes); None where the system does not tell it."""
    return _memory_mb(pid, "VmRSS")


def _memory_mb(pid: int, name: str) -> float | None:
    found = _first(Path(f"/proc/{pid}/status"), name)
    return None if found is None else round(int(found.split()[0]) / 1024, 1)

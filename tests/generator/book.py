"""What was agreed at the operator's desk, in the words of those who asked: what no row of the export says."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction


@dataclass
class Disputed:
    """A dispute of a closed statement's line: of an amount, of transactions, or (None) of all there is."""

    label: str
    partner: str
    kind: str
    commands: tuple[str, ...] | None
    asked: Fraction | None
    state: str = "OPEN"
    accepted: Fraction | None = None
    """Of an accepted one: how much; None: all of it."""
    decided_at: datetime | None = None


@dataclass
class Adjusted:
    """A credit or debit of a partner, perhaps of a closed statement's line."""

    at: datetime
    partner: str
    amount: Fraction
    label: str | None = None


Statement = tuple[str, str]
"""Label and partner."""


@dataclass
class Book:
    """What was agreed so far."""

    disputes: list[Disputed] = field(default_factory=list)
    adjustments: list[Adjusted] = field(default_factory=list)
    points: dict[str, str] = field(default_factory=dict)
    """By the key of the command that gave or took points: whose terms price them."""
    paid: defaultdict[Statement, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    let_off: defaultdict[Statement, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    paid_in: defaultdict[str, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    """By partner, what came in for its float."""

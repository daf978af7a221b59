"""What was agreed at the operator's desk, in the words of those who asked: what no row of the export says."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any


@dataclass
class Disputed:
    """A dispute of a closed statement's line: of an amount, of transactions, or (None) of all there is."""

    at: datetime
    label: str
    partner: str
    kind: str
    commands: tuple[str, ...] | None
    asked: Fraction | None
    state: str = "OPEN"
    accepted: Fraction | None = None
    """Of an accepted one: how much; None: all of it."""
    ended_at: datetime | None = None


@dataclass
class Adjusted:
    """A credit or debit of a partner, perhaps of a closed statement's line."""

    at: datetime
    partner: str
    amount: Fraction
    label: str | None = None


@dataclass
class PaidIn:
    """Money for a float; ``since``: when it came in, which is the age of its block."""

    at: datetime
    partner: str
    amount: Fraction
    since: datetime


@dataclass
class Deposited:
    """Money that was paid into a deposit, or (negative) out of it."""

    at: datetime
    partner: str
    amount: Fraction


@dataclass
class Settled:
    """A statement was closed (no amount), paid in part, written off in part, or declared in default (no amount).

    Without a label: every statement of the partner that was due.
    """

    at: datetime
    what: str
    label: str
    partner: str = ""
    amount: Fraction = Fraction()


CLOSED, PAID, LET_OFF, DEFAULTED = "closed", "paid", "let off", "defaulted"


@dataclass
class Book:
    """What was agreed so far, and the coalition files that were applied, the first one included."""

    files: list[tuple[datetime, dict[str, Any]]]
    disputes: list[Disputed] = field(default_factory=list)
    adjustments: list[Adjusted] = field(default_factory=list)
    points: dict[str, str] = field(default_factory=dict)
    """By the key of the command that gave or took points: whose terms price them."""
    floats: defaultdict[str, list[PaidIn]] = field(default_factory=lambda: defaultdict(list))
    deposits: list[Deposited] = field(default_factory=list)
    statements: list[Settled] = field(default_factory=list)
    """In the order in which it happened."""

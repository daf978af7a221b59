"""Which money of a float each award drew: the oldest first, and a return gives back what its award drew last."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

from tests.generator.book import PaidIn


@dataclass
class Charge:
    """What one row draws on its partner's money, or (negative) gives back of what ``drawn_by`` drew."""

    id: str
    at: datetime
    partner: str
    amount: Fraction
    drawn_by: str
    label: str
    earlier: str | None
    """The period that it corrects."""


@dataclass
class Block:
    """A part of a float; ``at`` None: it opened with it, paid elsewhere."""

    at: datetime | None
    since: datetime | None
    amount: Fraction
    used: Fraction = Fraction()
    by: defaultdict[str, Fraction] = field(default_factory=lambda: defaultdict(Fraction))


class Float:
    """A partner's float, drawn again."""

    def __init__(self, opening: Fraction, paid_in: Iterable[PaidIn]) -> None:
        paid = sorted(paid_in, key=lambda one: one.since)
        first = [Block(None, None, opening)] if opening else []
        self.blocks = [*first, *(Block(one.at, one.since, one.amount) for one in paid)]
        self.problems: list[str] = []
        self.was_empty = False
        """Whether nothing was left of it at some time."""
        self.was_split = False
        """Whether one award drew on more than one block."""

    def draw(self, charge: Charge) -> Fraction:
        """How much of it came out of what was paid in, negative: went back to it."""
        left, paid = charge.amount, Fraction()
        for block in self.blocks if left > 0 else reversed(self.blocks):
            if block.at is not None and block.at > charge.at:
                continue
            part = min(left, block.amount - block.used) if left > 0 else max(left, -block.by[charge.drawn_by])
            block.used += part
            block.by[charge.drawn_by] += part
            left -= part
            paid += part if block.at is not None else 0
            self.was_split |= 0 < part < charge.amount
        known = [block for block in self.blocks if block.at is None or block.at <= charge.at]
        self.was_empty |= charge.amount > 0 and all(block.used == block.amount for block in known)
        if left:
            self.problems.append(f"row {charge.id}: the float of {charge.partner} lacks {left}")
        return paid

"""What all that happens in a history shares: who draws, the till, keys, and a count of what was accepted."""

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from random import Random  # noqa: TID251 (seeded: invented data)
from typing import Any
from zoneinfo import ZoneInfo

from domain.commands import Command, Outcome, ParkedReversal, Refusal
from domain.errors import RefusalCode
from tests.domain.tills import Till
from tests.generator.coalitions import DIGITS

Makers = list[tuple[int, Callable[[], Awaitable[None]]]]
"""What may happen, and how often beside the others."""

INSTANT = timedelta(microseconds=1)

FAULTS = (RefusalCode.INTERNAL_ERROR, RefusalCode.OVERLOADED)
"""Answers that no input of a history deserves."""


class World:
    """A till of a coalition, its cards so far, and the random numbers that decide what happens there."""

    def __init__(self, random: Random, coalition: dict[str, Any], till: Till, cards: tuple[str, ...]) -> None:
        self.random = random
        self.coalition = coalition
        self.till = till
        self.cards = list(cards)
        self.partners: list[str] = [partner["code"] for partner in coalition["partner"]]
        self.digits = DIGITS[coalition["programme"]["currency"]]
        self.zone = ZoneInfo(coalition["programme"]["timezone"])
        self.accepted: Counter[str] = Counter()
        self.alarms: list[tuple[datetime, Callable[[], Awaitable[None]]]] = []
        """What happens at a certain instant, the next one first."""
        self._number = 0

    def key(self) -> str:
        """A key that nobody used."""
        self._number += 1
        return f"key-{self._number}"

    def today(self) -> date:
        """The programme's local day."""
        return self.till.clock.now.astimezone(self.zone).date()

    def wait(self, minutes_max: int) -> bool:
        """Time passes; it likes to stop at the last instant of a period (answers whether it did), or the next one."""
        calendar, clock = self.till.configuration.programme.calendar, self.till.clock
        closes_at = calendar.span(calendar.containing(clock.now)).closes_at
        then = clock.now + timedelta(minutes=self.random.randint(1, minutes_max))
        if then >= closes_at:
            last = max(closes_at - INSTANT, clock.now + INSTANT)
            then = self.random.choice((then, closes_at, last))
        clock.now = min([then, *(at for at, _ in self.alarms)])
        return clock.now == closes_at - INSTANT

    def card(self) -> str:
        """Somebody's card."""
        return self.random.choice(self.cards)

    def partner(self) -> str:
        """Some partner's code; seldom that of one that takes no part any more."""
        code = self.random.choice(self.partners)
        gone = [one["code"] for one in self.coalition["partner"] if one.get("leaves_on", date.max) < self.today()]
        return self.random.choice(self.partners) if code in gone else code

    def amount(self, units_max: int) -> str:
        """Money up to so many units."""
        return self.money(self.random.randint(0, units_max * 10**self.digits))

    def money(self, minor: int) -> str:
        """Minor units as a text with the currency's decimals."""
        sign = "-" if minor < 0 else ""
        return f"{sign}{abs(minor) // 10**self.digits}" + (
            f".{abs(minor) % 10**self.digits:0{self.digits}d}" if self.digits else ""
        )

    async def post(self, command: Command) -> Outcome:
        """The till's answer, counted."""
        [outcome] = await self.post_many([command])
        return outcome

    async def post_many(self, commands: list[Command]) -> list[Outcome]:
        """The till's answers to what is sent at once, counted."""
        outcomes = await self.till.queue.post_many(commands)
        for command, outcome in zip(commands, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                assert outcome.code not in FAULTS, (command, outcome)
            else:
                waits = isinstance(outcome, ParkedReversal)
                self.count("Parked" if waits else type(command).__name__)
        return outcomes

    def count(self, what: str) -> None:
        """Something was accepted."""
        self.accepted[what] += 1

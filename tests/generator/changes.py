"""What changes in the coalition file while tills are at work: partners are suspended, or leave; the programme ends."""

from collections.abc import Callable
from copy import deepcopy
from datetime import date, timedelta
from typing import Any

from domain.errors import ConfigurationError
from partners.apply import apply_coalition
from partners.coalition_file import parse_coalition
from tests.generator.book import Book
from tests.generator.coalitions import toml_text
from tests.generator.contracts import DAY, Contracts
from tests.generator.events import INSTANT, World
from tests.generator.histories import Tills

LEAVES, ENDS = ("leaves", "both"), ("ends", "both")
Change = Callable[[dict[str, Any]], None]


class Changes:
    """Changes with the days on which they are applied; drawn at the start, so that they come whatever happens."""

    def __init__(self, world: World, tills: Tills, book: Book, ending: str) -> None:
        self.world = world
        self.tills = tills
        self.book = book
        random, codes = world.random, world.partners
        self.planned: list[tuple[date, str, Change, str | None]] = []
        for number, code in enumerate(random.sample(codes, 2)):
            since = date(2017, 2, 3) + timedelta(days=25 * number + random.randint(0, 20))
            until = since + timedelta(days=random.randint(4, 20))
            self.planned += [
                (since, "Suspension", _partner(code, state="SUSPENDED"), code),
                (until, "Resumption", _partner(code, state="ACTIVE"), None),
            ]
        if ending in LEAVES:
            known = date(2017, 2, 10) + timedelta(days=random.randint(0, 15))
            leaves_on = known + timedelta(days=random.choice((0, 1, 12)))
            run_off = leaves_on + timedelta(days=random.choice((0, 9, 30)))
            # Some of its awards are pending when it goes.
            slow = [one["code"] for one in world.coalition["partner"] if one["terms"][0]["pending_days"]]
            code = random.choice(slow or codes)
            change = _partner(code, leaves_on=leaves_on, run_off_until=run_off)
            self.planned.append((known, "Leaving", change, code))
        if ending in ENDS:
            known = date(2017, 3, 10) + timedelta(days=random.randint(0, 10))
            issue_ends = known + timedelta(days=random.choice((0, 7, 12)))
            burn_ends = date(2017, 4, random.randint(1, 25))
            change = _programme(issue_ends=issue_ends, burn_ends=burn_ends)
            self.planned.append((known, "WindingDown", change, None))
        self.planned.sort(key=lambda one: one[0])

    async def due(self) -> None:
        """Applies the files whose day has come; what was used already may forbid one."""
        world = self.world
        while self.planned and self.planned[0][0] <= world.today():
            _, what, change, code = self.planned.pop(0)
            if code is not None:
                await self.tills.authorize(code)
            world.till.clock.forward(minutes=1)  # nothing else happens then
            coalition = deepcopy(world.coalition)
            change(coalition)
            try:
                await apply_coalition(
                    world.till.database, parse_coalition(toml_text(coalition)), clock=world.till.clock
                )
            except ConfigurationError:
                world.count(f"Refused{what}")
                continue
            world.coalition = coalition
            self.book.files.append((world.till.clock.now, coalition))
            world.count(what)
            if code is not None:
                await self.tills.try_all(code)
            if what == "WindingDown" and world.random.random() < 0.7:  # else it comes late
                # The worker sees to what is past, and to what was refunded since, before the last period ends.
                over_at = Contracts(self.book.files).midnight(coalition["programme"]["burn_ends"] + DAY)
                calendar = world.till.configuration.programme.calendar
                closes_at = calendar.span(calendar.containing(over_at)).closes_at
                world.alarms = [(over_at, self.tills.sweep), (closes_at - INSTANT, self.tills.sweep)]


def _partner(code: str, **values: Any) -> Change:
    def change(coalition: dict[str, Any]) -> None:
        [found] = [partner for partner in coalition["partner"] if partner["code"] == code]
        found |= values

    return change


def _programme(**values: Any) -> Change:
    return lambda coalition: coalition["programme"].update(values)

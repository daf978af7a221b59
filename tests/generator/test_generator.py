"""Random coalitions and histories, settled twice: by the product, and from what it exports (SETTLEMENT.md)."""

import csv
import os
from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from random import Random  # noqa: TID251 (seeded: invented data)

import pytest

from api.export import export_transactions
from api.runtime import Runtime
from domain.database import Database
from settlement.closing import close_period
from settlement.verifying import verify
from tests.api.graphql_shop import Caller, open_shop
from tests.domain.tills import Till, till_on
from tests.generator.book import Book
from tests.generator.coalitions import BEGINS, random_coalition, toml_text
from tests.generator.desk import Desk
from tests.generator.events import World
from tests.generator.histories import Tills, live
from tests.generator.households import Households
from tests.generator.published import published_float, published_period
from tests.generator.second import SecondSettlement
from tests.generator.statements import SecondStatements

SEEDS = range(int(os.environ.get("GENERATED_COALITIONS", "6")))
LAST_DAY = date(2017, 5, 3)
"""What ends by then is settled."""
EVENTS_A_DAY = 4
CARDS = ("card-1", "card-2", "card-3", "card-4", "card-5")


@pytest.mark.parametrize("seed", SEEDS)
async def test_two_settlements_of_one_history_are_equal(seed: int, database: Database, tmp_path: Path) -> None:
    random = Random(seed)  # noqa: S311 (a history, no secret)
    coalition = random_coalition(random)
    async with till_on(database, toml_text(coalition)) as till:
        till.clock.to(2017, 1, 20)
        await till.enrolled(*CARDS, partner=coalition["partner"][0]["code"])
        world = World(random, coalition, till, CARDS)
        desk = Desk(world)
        makers = [*Tills(world).makers(), *Households(world).makers(), *desk.makers()]
        periods = periods_until(till, LAST_DAY)
        for number, (_, last) in enumerate(periods, start=1):
            while till.clock.now.date() <= last + timedelta(days=2):
                await live(world, makers, 1, EVENTS_A_DAY)
            if random.random() < 0.7 or number == len(periods):  # else with the next one, so that two are open
                await close_all(till, periods[:number])
        await live(world, desk.makers(), 2, EVENTS_A_DAY)
        print(sorted(world.accepted.items()))  # noqa: T201 (shown where the test fails)

        report = await verify(till.database, till.clock)
        assert [check for check in report.checks if not check.holds] == []
        second = await exported(till, tmp_path / "ledger.csv", coalition, desk.book)
        assert second.problems == []
        made = SecondStatements(second, periods, Fraction(1, 10**world.digits))
        async with open_shop(database, till.clock, is_applied=False) as shop:
            await compare(made, await shop.caller(None))


async def exported(till: Till, file: Path, coalition: dict[str, object], book: Book) -> SecondSettlement:
    """The second settlement of what the product exports."""
    runtime = Runtime(till.database, till.cache, till.clock)
    await export_transactions(runtime, str(file), date(2016, 1, 1), date(2018, 1, 1), lambda _written, _total: None)
    with file.open(encoding="utf-8", newline="") as opened:
        return SecondSettlement(coalition, csv.DictReader(opened), book)


async def compare(made: SecondStatements, operator: Caller) -> None:
    """Every closed period, line for line; and the floats, which no period ends."""
    for label, _ in made.periods:
        totals, statements = await published_period(operator, label)
        assert (label, totals) == (label, made.totals[label])
        for code in made.second.partners:
            assert (label, code, statements.get(code)) == (label, code, made.statements.get((label, code)))
    for code in made.second.floats():
        assert (code, await published_float(operator, code)) == (code, made.second.float_of(code))


def periods_until(till: Till, last: date) -> list[tuple[str, date]]:
    """Label and last day of every period from the first contract's on that ends by then."""
    calendar = till.configuration.programme.calendar
    ids = range(calendar.ordinal(BEGINS[calendar.kind]), calendar.ordinal(last))
    return [(calendar.label(number), calendar.first_day(number + 1) - timedelta(days=1)) for number in ids]


async def close_all(till: Till, periods: Sequence[tuple[str, date]]) -> None:
    """Closes these periods; what is closed already answers again."""
    for label, _ in periods:
        await close_period(till.database, till.clock, label, f"close-{label}")

"""Random coalitions and histories, settled twice: by the product, and from what it exports (SETTLEMENT.md)."""

import csv
import os
from collections import defaultdict
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
from tests.domain.tills import Till, till_on
from tests.generator.coalitions import BEGINS, random_coalition, toml_text
from tests.generator.events import World
from tests.generator.histories import Tills, live
from tests.generator.households import Households
from tests.generator.second import SecondSettlement

SEEDS = range(int(os.environ.get("GENERATED_COALITIONS", "6")))
LAST_DAY = date(2017, 5, 3)
"""What ends by then is settled."""
EVENTS_A_DAY = 3
CARDS = ("card-1", "card-2", "card-3", "card-4", "card-5")


@pytest.mark.parametrize("seed", SEEDS)
async def test_two_settlements_of_one_history_are_equal(seed: int, database: Database, tmp_path: Path) -> None:
    random = Random(seed)  # noqa: S311 (a history, no secret)
    coalition = random_coalition(random)
    async with till_on(database, toml_text(coalition)) as till:
        till.clock.to(2017, 1, 20)
        await till.enrolled(*CARDS, partner=coalition["partner"][0]["code"])
        world = World(random, coalition, till, CARDS)
        makers = [*Tills(world).makers(), *Households(world).makers()]
        periods = periods_until(till, LAST_DAY)
        for number, (_, last) in enumerate(periods, start=1):
            while till.clock.now.date() <= last + timedelta(days=2):
                await live(world, makers, 1, EVENTS_A_DAY)
            if random.random() < 0.7 or number == len(periods):  # else with the next one, so that two are open
                await close_all(till, periods[:number])

        file = tmp_path / "ledger.csv"
        runtime = Runtime(till.database, till.cache, till.clock)
        await export_transactions(runtime, str(file), date(2016, 1, 1), date(2018, 1, 1), lambda _written, _total: None)
        with file.open(encoding="utf-8", newline="") as opened:
            second = SecondSettlement(coalition, csv.DictReader(opened))
        report = await verify(till.database, till.clock)
        assert [check for check in report.checks if not check.holds] == []
        assert second.problems == []
        for label, last in periods:
            second.charge_fixed_fees(label, last)
        labels = [label for label, _ in periods]
        assert await closed_lines(till) == second_lines(second, labels, minor_unit(till))
        assert await closed_totals(till) == second_totals(second, labels, minor_unit(till))


def periods_until(till: Till, last: date) -> list[tuple[str, date]]:
    """Label and last day of every period from the first contract's on that ends by then."""
    calendar = till.configuration.programme.calendar
    ids = range(calendar.ordinal(BEGINS[calendar.kind]), calendar.ordinal(last))
    return [(calendar.label(number), calendar.first_day(number + 1) - timedelta(days=1)) for number in ids]


async def close_all(till: Till, periods: Sequence[tuple[str, date]]) -> None:
    """Closes these periods; what is closed already answers again."""
    for label, _ in periods:
        await close_period(till.database, till.clock, label, f"close-{label}")


def minor_unit(till: Till) -> Fraction:
    """A cent, or what the currency has in its place."""
    return Fraction(1, 10**till.configuration.programme.currency_digits)


Lines = dict[tuple[str, str, str], tuple[Fraction, Fraction, Fraction]]
"""(period, partner, kind) -> exact, of which prior, billed; lines of nothing left out."""


async def closed_lines(till: Till) -> Lines:
    """Lines of closed statements, from the rows."""
    rows = await till.rows(
        "SELECT d.label, p.code, l.kind, l.exact_micro, l.prior_exact_micro, l.billed_minor FROM statement_line AS l"
        "  JOIN period AS d ON d.id = l.period_id JOIN partner AS p ON p.id = l.partner_id"
        " WHERE (l.exact_micro, l.prior_exact_micro) <> (0, 0)"
    )
    minor = minor_unit(till)
    return {
        tuple(key): (Fraction(exact) / 10**6, Fraction(prior) / 10**6, Fraction(billed) * minor)
        for *key, exact, prior, billed in rows
    }


def second_lines(second: SecondSettlement, labels: Sequence[str], minor: Fraction) -> Lines:
    """The second settlement's lines."""
    return {
        (label, *key): (exact, period.prior[key], period.billed(minor)[key])
        for label, period in second.periods.items()
        if label in labels
        for key, exact in period.exact.items()
        if exact or period.prior[key]
    }


Totals = dict[str, tuple[Fraction, Fraction, Fraction, dict[str, Fraction]]]
"""Period -> pool change, margin, operator's net, nets by partner."""


async def closed_totals(till: Till) -> Totals:
    """Totals of closed periods and nets of their statements, from the rows."""
    minor = minor_unit(till)
    nets: defaultdict[str, dict[str, Fraction]] = defaultdict(dict)
    for label, code, net in await till.rows(
        "SELECT d.label, p.code, s.net_minor FROM statement AS s JOIN period AS d ON d.id = s.period_id"
        "  JOIN partner AS p ON p.id = s.partner_id WHERE s.net_minor <> 0"
    ):
        nets[label][code] = Fraction(net) * minor
    return {
        label: (Fraction(pool) / 10**6, Fraction(margin) / 10**6, Fraction(net) * minor, nets[label])
        for label, pool, margin, net in await till.rows(
            "SELECT label, pool_change_micro, margin_micro, operator_net_minor FROM period WHERE state = 'CLOSED'"
        )
    }


def second_totals(second: SecondSettlement, labels: Sequence[str], minor: Fraction) -> Totals:
    """The second settlement's totals; what its identity leaves over would be a cent that nobody can explain."""
    totals: Totals = {}
    for label in labels:
        period = second.periods[label]
        nets: dict[str, Fraction] = {}
        for (partner, _), billed in period.billed(minor).items():
            nets[partner] = nets.get(partner, Fraction()) + billed
        net = -sum(nets.values(), Fraction())
        assert net == period.pool + period.margin(minor), label
        totals[label] = (period.pool, period.margin(minor), net, {code: one for code, one in nets.items() if one})
    return totals

"""Random coalitions and histories, settled twice: by the product, and from what it exports (SETTLEMENT.md)."""

import csv
import os
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from random import Random  # noqa: TID251 (seeded: invented data)

import pytest

from api.export import export_transactions
from api.runtime import Runtime
from domain.database import Database
from domain.periods import Clock
from settlement.closing import close_period
from settlement.verifying import verify
from tests.domain.tills import Till, till_on
from tests.generator.coalitions import random_coalition, toml_text
from tests.generator.histories import CARDS, Historian
from tests.generator.second import SecondSettlement

SEEDS = range(int(os.environ.get("GENERATED_COALITIONS", "6")))
MONTHS = ("2017-01", "2017-02", "2017-03", "2017-04", "2017-05")
EVENTS_A_DAY = 2


def last_day(label: str) -> date:
    """Of a month."""
    year, month = map(int, label.split("-"))
    return date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)


@pytest.mark.parametrize("seed", SEEDS)
async def test_two_settlements_of_one_history_are_equal(seed: int, database: Database, tmp_path: Path) -> None:
    random = Random(seed)  # noqa: S311 (a history, no secret)
    coalition = random_coalition(random)
    async with till_on(database, toml_text(coalition)) as till:
        till.clock.to(2017, 1, 20)
        await till.enrolled(*CARDS, partner=coalition["partner"][0]["code"])
        historian = Historian(random, coalition, till)
        for label in MONTHS:
            while till.clock.now.date() <= last_day(label) + timedelta(days=2):
                await historian.live(1, EVENTS_A_DAY)
            if random.random() < 0.7:  # else with the next one, so that two are open
                await close_until(till.database, till.clock, label)
        await close_until(till.database, till.clock, MONTHS[-1])

        file = tmp_path / "ledger.csv"
        runtime = Runtime(till.database, till.cache, till.clock)
        await export_transactions(runtime, str(file), date(2016, 1, 1), date(2018, 1, 1), lambda _written, _total: None)
        with file.open(encoding="utf-8", newline="") as opened:
            second = SecondSettlement(coalition, csv.DictReader(opened))
        report = await verify(till.database, till.clock)
        assert [check for check in report.checks if not check.holds] == []
        assert second.problems == []
        for month in MONTHS:
            second.charge_fixed_fees(month, last_day(month))
        assert await closed_lines(till) == second_lines(second, minor_unit(till))
        assert await closed_totals(till) == second_totals(second, minor_unit(till))


async def close_until(database: Database, clock: Clock, label: str) -> None:
    """Closes every month until that one which is not closed yet."""
    for month in MONTHS[: MONTHS.index(label) + 1]:
        await close_period(database, clock, month, f"close-{month}")


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


def second_lines(second: SecondSettlement, minor: Fraction) -> Lines:
    """The second settlement's lines."""
    return {
        (label, *key): (exact, period.prior[key], period.billed(minor)[key])
        for label, period in second.periods.items()
        if label in MONTHS
        for key, exact in period.exact.items()
        if exact or period.prior[key]
    }


Totals = dict[str, tuple[Fraction, Fraction, Fraction, dict[str, Fraction]]]
"""Period -> pool change, margin, operator's net, nets by partner."""


async def closed_totals(till: Till) -> Totals:
    """Totals of closed periods and nets of their statements, from the rows."""
    minor = minor_unit(till)
    nets: dict[str, dict[str, Fraction]] = {month: {} for month in MONTHS}
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


def second_totals(second: SecondSettlement, minor: Fraction) -> Totals:
    """The second settlement's totals; what its identity leaves over would be a cent that nobody can explain."""
    totals: Totals = {}
    for label in MONTHS:
        period = second.periods[label]
        nets: dict[str, Fraction] = {}
        for (partner, _), billed in period.billed(minor).items():
            nets[partner] = nets.get(partner, Fraction()) + billed
        net = -sum(nets.values(), Fraction())
        assert net == period.pool + period.margin(minor), label
        totals[label] = (period.pool, period.margin(minor), net, {code: one for code, one in nets.items() if one})
    return totals

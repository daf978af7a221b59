"""Tax rates in the coalition file: read, refused with their place, planned and applied."""

from datetime import date

import pytest

from domain.database import Database
from domain.errors import ConfigurationError
from domain.terms import TaxRate
from partners.apply import plan_coalition
from partners.coalition_file import TaxSection, parse_coalition
from tests.factories import apply_toml, fixed_clock
from tests.partners.helpers import changed

TAX = '[[partner.tax]]\nkind = "{}"\nfrom = {}\nrate = "{}"\n'
PLACE = '[[partner.earn_rule]]\ncode = "base"'


def with_taxes(*taxes: tuple[str, str, str]) -> str:
    """The worked example with tax rates of the grocer."""
    return changed((PLACE, "".join(TAX.format(*tax) for tax in taxes) + PLACE))


def test_rates_follow_each_other_kind_by_kind() -> None:
    text = with_taxes(
        ("SERVICE_FEE", "2017-01-01", "0.19"),
        ("FIXED_FEE", "2017-01-01", "0.19"),
        ("SERVICE_FEE", "2017-04-01", "0.21"),
    )
    assert parse_coalition(text).partners[0].taxes == (
        TaxSection("SERVICE_FEE", date(2017, 1, 1), date(2017, 4, 1), 190_000),
        TaxSection("SERVICE_FEE", date(2017, 4, 1), None, 210_000),
        TaxSection("FIXED_FEE", date(2017, 1, 1), None, 190_000),
    )


@pytest.mark.parametrize(
    ("taxes", "problem"),
    [
        ([("TAX", "2017-01-01", "0.19")], 'tax from 2017-01-01: kind = "TAX" must be one of ISSUE, SERVICE_FEE,'),
        ([("ISSUE", "2017-01-01", "19")], 'tax from 2017-01-01: rate = "19" must be from 0 to 1'),
        (
            [("ISSUE", "2017-01-01", "0.19"), ("ISSUE", "2017-01-01", "0.2")],
            "tax from 2017-01-01: another one starts on the same day",
        ),
    ],
)
def test_what_cannot_be_a_rate_is_refused(taxes: list[tuple[str, str, str]], problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_coalition(with_taxes(*taxes))
    assert str(caught.value).startswith(f'partner "grocer", {problem}')


async def test_rates_are_planned_and_applied(database: Database) -> None:
    first = with_taxes(("SERVICE_FEE", "2017-01-01", "0.19"), ("ISSUE", "2017-01-01", "0.07"))
    held = (await apply_toml(database, first)).tax_rates
    assert held == {
        1: (
            TaxRate(1, 1, "SERVICE_FEE", date(2017, 1, 1), None, 190_000),
            TaxRate(2, 1, "ISSUE", date(2017, 1, 1), None, 70_000),
        )
    }
    second = with_taxes(("SERVICE_FEE", "2017-01-01", "0.19"), ("SERVICE_FEE", "2017-04-01", "0.21"))
    made = await plan_coalition(database, parse_coalition(second), clock=fixed_clock())
    assert made.lines()[:-1] == [
        "change tax SERVICE_FEE of grocer from 2017-01-01: to open → 2017-03-31",
        "create tax SERVICE_FEE of grocer from 2017-04-01: to open, rate 0.21",
        "delete tax ISSUE of grocer from 2017-01-01: it is not in the file",
    ]
    assert (await apply_toml(database, second)).tax_rates == {
        1: (
            TaxRate(1, 1, "SERVICE_FEE", date(2017, 1, 1), date(2017, 4, 1), 190_000),
            TaxRate(3, 1, "SERVICE_FEE", date(2017, 4, 1), None, 210_000),
        )
    }
    assert not (await plan_coalition(database, parse_coalition(second), clock=fixed_clock())).changes

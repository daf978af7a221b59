"""What the tests of an apply share: files with a change, everything that was written, refusals, one sale."""

from collections.abc import Sequence

import pytest
from sqlalchemy import text

from domain.commands import Posted
from domain.database import Database
from domain.errors import ConfigurationError
from partners.apply import plan_coalition
from partners.coalition_file import parse_coalition
from tests.factories import COALITION_TOML, a_purchase, an_enrolment, apply_toml, fixed_clock, open_till

TABLES = ("programme", "partner", "store", "terms", "budget_plan", "earn_rule", "campaign", "budget")


def changed(*replacements: tuple[str, str], toml: str = COALITION_TOML) -> str:
    """The worked example with the first occurrence of each text replaced."""
    for old, new in replacements:
        assert old in toml, f"{old!r} is not in the file"
        toml = toml.replace(old, new, 1)
    return toml


async def everything(database: Database) -> list[Sequence[object]]:
    """Every row that an apply may write."""
    async with database.posting() as connection:
        return [
            (table, *row)
            for table in TABLES
            for row in await connection.execute(text(f"SELECT * FROM {table} ORDER BY {table}::text"))
        ]


async def refusal(database: Database, toml: str) -> list[str]:
    """Why the file is refused, by plan and by apply alike; nothing has changed after either."""
    before = await everything(database)
    with pytest.raises(ConfigurationError) as planned:
        await plan_coalition(database, parse_coalition(toml), clock=fixed_clock())
    with pytest.raises(ConfigurationError) as applied:
        await apply_toml(database, toml)
    assert str(planned.value) == str(applied.value)
    assert await everything(database) == before
    return str(applied.value).split("\n")


async def sold(database: Database, *, partner: str = "grocer", amount: str = "100.00", key: str = "sale") -> None:
    """One purchase on 15 March."""
    configuration = await apply_toml(database)
    async with open_till(database) as till:
        await till.post(an_enrolment(configuration))
        assert isinstance(await till.post(a_purchase(configuration, key, partner=partner, amount=amount)), Posted)

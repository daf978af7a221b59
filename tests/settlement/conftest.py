"""What the settlement's tests share: the worked example's March, booked."""

from collections.abc import Callable
from datetime import datetime

import pytest

from domain.database import Database
from domain.periods import Clock
from settlement.closing import close_period
from tests.settlement.four_eyes import adjustment, approve
from tests.settlement.rows import noon
from tests.settlement.secured import pay_in
from tests.settlement.worked_example import Example, coalition, march


@pytest.fixture
def at() -> Callable[[datetime], Clock]:
    """A clock that stands still."""

    def standing(instant: datetime) -> Clock:
        return lambda: instant

    return standing


@pytest.fixture
async def booked_march(database: Database) -> Example:
    """Three partners and the March of the worked example, nothing closed."""
    example = await coalition(database)
    await march(example)
    return example


@pytest.fixture
async def two_months(database: Database, at: Callable[[datetime], Clock], booked_march: Example) -> Example:
    """B owes 452.00 of March, and is owed 100.00 of April; a deposit of 200.00 is held."""
    await pay_in(database, 2, "200.00")
    await close_period(database, at(noon(2017, 4, 2)), "2017-03", "close-1")
    await approve(database, noon(2017, 4, 20), await adjustment(database, noon(2017, 4, 20), 2, "130.00"))
    await close_period(database, at(noon(2017, 5, 2)), "2017-04", "close-2")
    return booked_march

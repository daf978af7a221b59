"""What the settlement's tests share: the worked example's March, booked."""

from collections.abc import Callable
from datetime import datetime

import pytest

from domain.database import Database
from domain.periods import Clock
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

"""Tills for tests of the domain; whatever a test does with one, the books must balance afterwards."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime

import pytest

from domain.database import Database
from tests.domain.books import check_books
from tests.domain.coalitions import coalition, partner
from tests.domain.pairs import SHOPPING_STREET, Pair
from tests.domain.tills import Till, queue_on, till_on
from tests.factories import MID_MARCH

OpenTill = Callable[..., Awaitable[Till]]
TWO_PARTNERS = coalition(
    partner("grocer"),
    partner("fuel", terms={"issue_price": "0.010500", "service_fee": "0.001200", "reimbursement": "0.009200"}),
)


@pytest.fixture
async def open_till(database: Database) -> AsyncIterator[OpenTill]:
    """Opens a till on a coalition file, with members who carry "card-1" and "card-2"."""
    async with AsyncExitStack() as stack:

        async def opened(toml: str = TWO_PARTNERS, *, at: datetime = MID_MARCH, is_history: bool = False) -> Till:
            till = await stack.enter_async_context(till_on(database, toml, at=at, is_history=is_history))
            await till.enrolled("card-1", "card-2")
            return till

        yield opened
    await check_books(database)


@pytest.fixture
async def till(open_till: OpenTill) -> Till:
    """A till of a coalition of two partners on 15 March, with members who carry "card-1" and "card-2"."""
    return await open_till()


@pytest.fixture
async def pair(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    async with till_on(database, SHOPPING_STREET) as first, queue_on(database, first.configuration) as second:
        yield Pair(first, second, monkeypatch)
    await check_books(database)

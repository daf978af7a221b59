"""Booking into the open period outside the posting queue: what is rare, and moves no points."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.database import DEADLOCK, LOCK_TIMEOUT, SERIALIZATION, UNIQUE_VIOLATION, Database, sqlstate
from domain.errors import RefusalCode, Refused
from domain.ledger import ensure_periods
from domain.loading import load_state, lock_shared
from domain.periods import Clock
from domain.terms import Configuration, load_configuration

Answer = TypeVar("Answer")

TRIES_MAX = 12
PAUSE_MS = 20
"""Before the second try; the n-th waits n times as long."""

AGAIN = frozenset({DEADLOCK, SERIALIZATION, LOCK_TIMEOUT, UNIQUE_VIOLATION})
"""States after which the same may succeed, or be refused for what somebody else did meanwhile."""


@dataclass(frozen=True, slots=True)
class OpenPeriod:
    """What is booked into: it stays open until the transaction ends, and the configuration stays as it is."""

    connection: AsyncConnection
    configuration: Configuration
    period_id: int
    now: datetime


async def in_open_period(database: Database, clock: Clock, work: Callable[[OpenPeriod], Awaitable[Answer]]) -> Answer:
    """Does ``work`` in one transaction that books into the period of the clock's reading, or the earliest open one.

    It shares the locks of the posting queue, so that neither a close nor ``apply`` comes between (DESIGN.md
    section 4). Raises Refused(TERMS_MISSING) without a programme, OVERLOADED when it is too busy for too long.
    """
    for number in range(TRIES_MAX):
        period_id = await _expected(database, clock)
        try:
            async with database.posting() as connection:
                await lock_shared(connection, [period_id])
                state = await load_state(connection, [period_id])
                configuration = await load_configuration(connection)
                assert configuration is not None
                now = clock()
                if _current(configuration, now, state.last_not_open) == period_id:
                    return await work(OpenPeriod(connection, configuration, period_id, now))
        except DBAPIError as error:
            if sqlstate(error) not in AGAIN:
                raise
        await asyncio.sleep((number + 1) * PAUSE_MS / 1000)
    message = "others are in the way for too long: send the same again in a moment, with the same key"
    raise Refused(RefusalCode.OVERLOADED, message)


def _current(configuration: Configuration, now: datetime, last_not_open: int | None) -> int:
    current = configuration.programme.calendar.containing(now)
    return current if last_not_open is None else max(current, last_not_open + 1)


async def _expected(database: Database, clock: Clock) -> int:
    """The period to book into, if nothing changes; its row is committed before a lock on it means anything."""
    async with database.posting() as connection:
        configuration = await load_configuration(connection)
        if configuration is None:
            raise Refused(RefusalCode.TERMS_MISSING, "no coalition has been applied yet")
        state = await load_state(connection, [])
        period_id = _current(configuration, clock(), state.last_not_open)
        await ensure_periods(connection, [configuration.programme.calendar.span(period_id)])
    return period_id

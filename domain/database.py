"""Access to PostgreSQL: one engine per role, transactions, and the advisory locks that order the platform.

Nobody commits outside this file: a ``posting()`` block commits when it ends and rolls back when it raises.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

OWNER_ROLE = "coalition_owner"
POSTING_ROLE = "coalition_posting"
READING_ROLE = "coalition_reading"

CONFIGURATION_LOCK_CLASS = 1
"""First key of the advisory lock on the configuration: posting shares it, ``apply`` takes it alone."""

PERIOD_LOCK_CLASS = 2
"""First key of the advisory lock on a period (second key: its id): posting shares it, closing takes it alone."""

CLOSING_LOCK_CLASS = 3
"""First key of the advisory lock that lets one close work at a time (second key: 0)."""

PERFORMANCE_LOCK_CLASS = 4
"""First key of the advisory lock that lets one process at a time store facts for reports (second key: 0)."""

DEADLOCK = "40P01"
SERIALIZATION = "40001"
LOCK_TIMEOUT = "55P03"
UNIQUE_VIOLATION = "23505"
STALE_PLAN = "0A000"

STATEMENT_TIMEOUT_MS = 60_000
LOCK_TIMEOUT_MS = 5_000


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """Where each role connects; owner is used by migrations only."""

    owner: URL
    posting: URL
    reading: URL

    @classmethod
    def from_one(cls, url: str) -> "DatabaseUrls":
        """One login for all three, from DATABASE_URL: each connection then takes its role (see ``Database``)."""
        parsed = make_url(url).set(drivername="postgresql+asyncpg")
        return cls(parsed, parsed, parsed)


class Database:
    """The engines of one process. Connections take their role at start, so that none keeps a login's privileges."""

    def __init__(self, urls: DatabaseUrls, pool_size: int = 8) -> None:
        self.urls = urls
        self._posting = _engine(urls.posting, POSTING_ROLE, pool_size)
        self._reading = _engine(urls.reading, READING_ROLE, pool_size)

    @asynccontextmanager
    async def posting(self, isolation: str = "READ COMMITTED") -> AsyncIterator[AsyncConnection]:
        """One transaction as the posting role: committed at the end of the block, rolled back when it raises."""
        async with self._posting.connect() as connection:
            await connection.execution_options(isolation_level=isolation)
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def reading(self, viewer_id: int, isolation: str = "READ COMMITTED") -> AsyncIterator[AsyncConnection]:
        """One read transaction as the reading role, which sees what ``viewer_id`` may (0: operator)."""
        async with self._reading.connect() as connection:
            if isolation != "READ COMMITTED":
                await connection.execution_options(isolation_level=isolation)
            async with connection.begin():
                await connection.execute(VIEWER_SQL, {"viewer": str(viewer_id)})
                yield connection

    async def dispose(self) -> None:
        """Closes every connection."""
        await self._posting.dispose()
        await self._reading.dispose()


VIEWER_SQL = text("SELECT set_config('coalition.viewer', :viewer, true)")


def _engine(url: URL, role: str, pool_size: int) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=30,
        hide_parameters=True,  # an error text with parameters would carry personal data into the log
        connect_args={
            # A hung cancellation would hang shutdown: asyncpg waits for the server under this limit.
            "command_timeout": STATEMENT_TIMEOUT_MS // 1000 + 5,
            "server_settings": {
                "role": role,
                "jit": "off",
                "timezone": "UTC",
                "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                "lock_timeout": str(LOCK_TIMEOUT_MS),
                "application_name": role,
            },
        },
    )


def sqlstate(error: DBAPIError) -> str | None:
    """The five letters with which PostgreSQL names an error; None when the connection was lost."""
    return getattr(error.orig, "sqlstate", None)


def constraint_name(error: DBAPIError) -> str | None:
    """The constraint that refused, if one did."""
    return getattr(error.driver_exception, "constraint_name", None)

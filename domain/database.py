"""Access to PostgreSQL: one engine per role, transactions, and the advisory locks that order the platform.

Nobody commits outside this file: a ``posting()`` block commits when it ends and rolls back when it raises.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy import URL, TextClause, make_url, text
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

PARKING_LOCK_CLASS = 5
"""Advisory lock shared by batches, taken alone by those that may park a reversal whose original is missing."""

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


DRIVER = make_url("postgresql+asyncpg://").get_dialect()()


@lru_cache
def _driver_form(statement: TextClause) -> tuple[str, Sequence[str]]:
    """A statement as the driver takes it ($1, $2, …), and the names of its parameters in that order."""
    compiled = statement.compile(dialect=DRIVER)
    return str(compiled), compiled.positiontup or ()


EXPORT_SNAPSHOT_SQL = text("SELECT pg_export_snapshot()")


def int_array(numbers: Iterable[int]) -> str:
    """Whole numbers as the text of an array, for CAST(CAST(:ids AS text) AS bigint[]).

    Of each element of a list the driver asks whether it is a list itself, which costs five times as much.
    """
    return f"{{{','.join(map(str, numbers))}}}"


class Rows:
    """What a statement of a batch answered: rows to be unpacked, and how many it touched."""

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def all(self) -> Sequence[Sequence[Any]]:
        """Every row."""
        return self._rows

    def one(self) -> Sequence[Any]:
        """The only row."""
        row: Sequence[Any]
        [row] = self._rows
        return row

    def scalar_one(self) -> Any:
        """The only value of the only row."""
        [value] = self.one()
        return value


PLAN_USES_FIRST = 8
"""How often the first plan of a statement is used; the next ones twice as often as the one before."""


@dataclass(slots=True)
class Prepared:
    """A prepared statement, and how often its plan may still be used."""

    statement: "PreparedStatement[Any]"
    uses_max: int
    uses: int = 0


class BatchConnection:
    """The driver's own connection, for the posting queue alone.

    SQLAlchemy's way around a statement takes three times as long as the statement, and a batch has fifteen. The pool,
    the statements and their parameters' names are still its.
    """

    def __init__(self, driver: "asyncpg.Connection[asyncpg.Record]", prepared: dict[str, Prepared]) -> None:
        self._driver = driver
        self._prepared = prepared

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any] | None = None) -> Rows:
        """Runs one statement. Raises the driver's own errors."""
        sql, names = _driver_form(statement)
        prepared = self._prepared.get(sql)
        if prepared is None or prepared.uses == prepared.uses_max:
            # The server keeps a plan until statistics change. One made while tables were empty reads them whole, and
            # an import fills them long before that: prepared anew, it is planned for the size that they have by now.
            uses_max = PLAN_USES_FIRST if prepared is None else 2 * prepared.uses_max
            prepared = self._prepared[sql] = Prepared(await self._driver.prepare(sql), uses_max)
        prepared.uses += 1
        given = parameters or {}
        try:
            rows = await prepared.statement.fetch(*[given[name] for name in names])
        except asyncpg.InvalidCachedStatementError:
            # The schema changed under the plan: the next try, which the queue makes, prepares it again.
            self._prepared.clear()
            raise
        touched = (prepared.statement.get_statusmsg() or "").rpartition(" ")[2]
        return Rows(rows, int(touched) if touched.isdigit() else 0)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commits at the end of the block, rolls back when it raises; statements outside commit each on its own."""
        async with self._driver.transaction():
            yield


Connection = AsyncConnection | BatchConnection
"""What shared statements run on."""


class Database:
    """The engines of one process. Connections take their role at start, so that none keeps a login's privileges."""

    def __init__(self, urls: DatabaseUrls, pool_size: int = 8) -> None:
        self.urls = urls
        self._posting = _engine(urls.posting, POSTING_ROLE, pool_size)
        self._batches = _engine(urls.posting, POSTING_ROLE, pool_size, LOOK_UPS_ONLY)
        self._reading = _engine(urls.reading, READING_ROLE, pool_size)

    @asynccontextmanager
    async def posting(self, isolation: str = "READ COMMITTED") -> AsyncIterator[AsyncConnection]:
        """One transaction as the posting role: committed at the end of the block, rolled back when it raises."""
        async with self._posting.connect() as connection:
            await connection.execution_options(isolation_level=isolation)
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def beside(self, connection: AsyncConnection) -> AsyncIterator[AsyncConnection]:
        """Another transaction of the posting role, which reads the snapshot of that one, a REPEATABLE READ one."""
        snapshot = (await connection.execute(EXPORT_SNAPSHOT_SQL)).scalar_one()
        async with self.posting("REPEATABLE READ") as other:
            await other.execute(text(f"SET TRANSACTION SNAPSHOT '{snapshot}'"))  # the server's own word for it
            yield other

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[BatchConnection]:
        """A connection of the posting role for one batch, outside of a transaction."""
        async with self._batches.connect() as connection:
            pooled = await connection.get_raw_connection()
            driver = pooled.driver_connection
            assert isinstance(driver, asyncpg.Connection)
            try:
                yield BatchConnection(driver, pooled.info.setdefault("prepared", {}))
            except BaseException as error:
                if driver.is_closed() or is_connection_lost(error):
                    await connection.invalidate()  # SQLAlchemy did not see it go, and would hand it out again
                raise

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
        await self._batches.dispose()
        await self._reading.dispose()


VIEWER_SQL = text("SELECT set_config('coalition.viewer', :viewer, true)")


LOOK_UPS_ONLY = {"enable_seqscan": "off"}
"""A batch looks up few rows by their keys, whatever the size of a table. Where one has no statistics yet, as when the
first campaign has just begun, the server would expect many rows to fit and read it whole."""


def _engine(url: URL, role: str, pool_size: int, planner: Mapping[str, str] | None = None) -> AsyncEngine:
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
                **(planner or {}),
            },
        },
    )


def sqlstate(error: DBAPIError | asyncpg.PostgresError) -> str | None:
    """The five letters with which PostgreSQL names an error; None when the connection was lost."""
    return getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)


def is_connection_lost(error: BaseException) -> bool:
    """Whether the error says that its connection cannot be used any more."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated
    # Of the driver's own complaints a ValueError is about a parameter. An InternalClientError is what it says when
    # the server's farewell arrives between two statements.
    is_about_connection = isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError)
    return is_about_connection or isinstance(error, asyncpg.InternalClientError)


def constraint_name(error: DBAPIError) -> str | None:
    """The constraint that refused, if one did."""
    return getattr(error.driver_exception, "constraint_name", None)

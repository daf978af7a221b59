"""One server for the session, one migrated template, and a database of its own for every test."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from api import embedded
from api.migrations import migrate_async
from domain.database import Database, DatabaseUrls

TEMPLATE = f"coalition_template_{os.getpid()}"
Result = TypeVar("Result")


@pytest.fixture(scope="session")
def server() -> Iterator[URL]:
    """Superuser URL of a PostgreSQL 18: TEST_DATABASE_URL, or an embedded one without fsync (not for crash tests)."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield make_url(given).set(drivername="postgresql+asyncpg")
        return
    with tempfile.TemporaryDirectory(prefix="coalition-test-") as folder:
        Path(folder).chmod(0o755)
        running = embedded.start(Path(folder) / "data", settings={"fsync": "off", "max_connections": "200"})
        try:
            yield make_url(running.superuser_dsn("postgres"))
        finally:
            running.close()


async def run_as_superuser(server_url: URL, *statements: str) -> None:
    """Runs statements outside a transaction (CREATE DATABASE wants that)."""
    engine = create_async_engine(server_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


@pytest.fixture(scope="session")
def template(server: URL) -> Iterator[str]:
    """A database that was migrated once; tests are cloned from it."""
    asyncio.run(run_as_superuser(server, f"CREATE DATABASE {TEMPLATE}"))
    asyncio.run(migrate_async(server.set(database=TEMPLATE)))
    yield TEMPLATE
    asyncio.run(run_as_superuser(server, f"DROP DATABASE {TEMPLATE} WITH (FORCE)"))


_database_numbers = count()


@pytest.fixture
def database_url(server: URL, template: str) -> Iterator[URL]:
    """Superuser URL of a fresh, migrated database of this test."""
    name = f"coalition_test_{os.getpid()}_{next(_database_numbers)}"
    asyncio.run(run_as_superuser(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"))
    yield server.set(database=name)
    asyncio.run(run_as_superuser(server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def database(database_url: URL) -> AsyncIterator[Database]:
    """The test's database as the application opens it: posting and reading roles."""
    opened = Database(DatabaseUrls(database_url, database_url, database_url))
    yield opened
    await opened.dispose()


@pytest.fixture
async def tamper(database_url: URL) -> Callable[[str], Awaitable[None]]:
    """Runs SQL behind the application's back: as superuser with every trigger asleep."""

    async def run(statement: str) -> None:
        engine = create_async_engine(database_url, poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.execute(text("SET LOCAL session_replication_role = replica"))
            await connection.execute(text(statement))
        await engine.dispose()

    return run

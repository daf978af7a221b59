"""One server for the session, one migrated template, and a database of its own for every test.

Where several processes share the tests, each has its own session: its own server, template and databases.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from api import embedded
from api.migrations import migrate_async
from domain.database import Database, DatabaseUrls

TEMPLATE = f"coalition_template_{os.getpid()}"
# Few WAL files: they may lie in memory.
SETTINGS = {"fsync": "off", "max_connections": "200", "min_wal_size": "32MB", "max_wal_size": "128MB"}
MEMORY = Path("/dev/shm")  # noqa: S108 - what goes in has its own folder, with a name that nobody guesses
ROOM_BYTES = 2 * 2**30
"""What four servers take (100 MB each), many times over."""


def memory() -> Path | None:
    """Where files go that come and go by the hundred: a folder in memory that has room, else None (tempfile's choice).

    ext4 looks at every file deleted in the last seconds before it makes one: a database per test took 50 to 250 ms
    there, in memory it takes 17. Containers often have only a small folder of this kind.
    """
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM_BYTES else None


@pytest.fixture(scope="session")
def server() -> Iterator[URL]:
    """Superuser URL of a PostgreSQL 18: TEST_DATABASE_URL, or an embedded one without fsync (not for crash tests)."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield make_url(given).set(drivername="postgresql+asyncpg")
        return
    with tempfile.TemporaryDirectory(prefix="coalition-test-", dir=memory()) as folder:
        Path(folder).chmod(0o755)
        running = embedded.start(Path(folder) / "data", settings=SETTINGS)
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


@pytest.fixture(scope="session")
def run_on_server(server: URL) -> Iterator[Callable[[str], None]]:
    """Runs a statement as superuser, always on the same connection: new ones would be a second in 70 tests."""
    with asyncio.Runner() as runner:
        engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
        connection = runner.run(engine.connect().start())

        async def execute(statement: str) -> None:
            await connection.execute(text(statement))

        yield lambda statement: runner.run(execute(statement))
        runner.run(connection.close())
        runner.run(engine.dispose())


@pytest.fixture
def database_url(server: URL, template: str, run_on_server: Callable[[str], None]) -> Iterator[URL]:
    """Superuser URL of a fresh, migrated database of this test."""
    name = f"coalition_test_{os.getpid()}_{next(_database_numbers)}"
    run_on_server(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield server.set(database=name)
    run_on_server(f"DROP DATABASE {name} WITH (FORCE)")


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

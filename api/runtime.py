"""What every process of the platform opens: the database (embedded or given), migrated if empty, watched over."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import DBAPIError

from api import embedded
from api.clock import system_clock
from api.migrations import current_revision, head_revision, migrate_async
from api.settings import Settings
from domain.database import OWNER_ROLE, POSTING_ROLE, READING_ROLE, Database, DatabaseUrls
from domain.errors import ConfigurationError
from domain.periods import Clock
from domain.terms import Configuration, ConfigurationCache
from domain.values import OPERATOR_ID

WATCH_SECONDS = 1

YOUNG_OBJECTS_MAX = 500_000
"""New objects between two looks for cycles of garbage: those of several full batches.

Requests leave no cycles (``tests/api/test_overload.py``), so that a look goes through what is under way for nothing.
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """A process's open database, its configuration cache and its clock."""

    database: Database
    configuration: ConfigurationCache
    clock: Clock

    async def programme_configuration(self) -> Configuration:
        """The coalition's configuration. Raises ConfigurationError before the first ``coalition apply``."""
        configuration = await self.configuration.current()
        if configuration is None:
            raise ConfigurationError("there is no programme yet: run `coalition apply FILE.toml` or `coalition demo`")
        return configuration


@asynccontextmanager
async def open_runtime(settings: Settings, *, clock: Clock = system_clock) -> AsyncIterator[Runtime]:
    """Opens the database for the length of the block; starts the embedded one, and migrates an empty one."""
    async with _urls(settings) as (urls, server):
        await _require_schema(urls.owner)
        database = Database(urls)
        watch = None if server is None else asyncio.create_task(_keep_running(database, server))
        try:
            yield Runtime(database, ConfigurationCache(database), clock)
        finally:
            if watch is not None:
                watch.cancel()
                with suppress(asyncio.CancelledError):
                    await watch
            await database.dispose()


@asynccontextmanager
async def _urls(settings: Settings) -> AsyncIterator[tuple[DatabaseUrls, embedded.EmbeddedServer | None]]:
    if settings.database_url:
        yield DatabaseUrls.from_one(settings.database_url), None
        return
    try:
        server = await asyncio.to_thread(embedded.start, settings.data_dir)
    except embedded.EmbeddedDatabaseError as error:
        raise ConfigurationError(str(error)) from error
    try:
        yield DatabaseUrls(*(make_url(server.dsn(role)) for role in (OWNER_ROLE, POSTING_ROLE, READING_ROLE))), server
    finally:
        # Releases this process's share; the last one out stops the server.
        await asyncio.to_thread(server.close)


async def _require_schema(owner_url: URL) -> None:
    try:
        revision = await current_revision(owner_url)
    except (OSError, DBAPIError) as error:
        raise ConfigurationError(f"the database cannot be reached: {error}") from error
    if revision is None:
        await migrate_async(owner_url)
    elif revision != head_revision():
        raise ConfigurationError(
            f"the database is at schema {revision}, this version needs {head_revision()}: run `coalition migrate`"
        )


async def migrate_now(settings: Settings) -> str:
    """Brings the database to this version's schema; answers the revision. For ``coalition migrate``."""
    async with _urls(settings) as (urls, _):
        await migrate_async(urls.owner)
    return head_revision()


@contextmanager
def long_lived_spared() -> Iterator[None]:
    """Keeps the garbage collector off everything made so far, for the length of the work that counts.

    Modules, schema and configuration live as long as the process. Looking through them all, again and again, cost a
    third of the server's time and stopped every till for a tenth of a second.
    """
    thresholds = gc.get_threshold()
    gc.freeze()  # what garbage there is stays until the end: finding it would take a tenth of a start
    gc.set_threshold(YOUNG_OBJECTS_MAX)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def _keep_running(database: Database, server: embedded.EmbeddedServer) -> None:
    """Restarts the embedded server when it is gone: any of the processes that share it may be the one to notice."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        try:
            async with database.reading(OPERATOR_ID) as connection:
                await connection.execute(text("SELECT 1"))
        except (OSError, DBAPIError):
            logger.warning("the embedded database does not answer: checking and restarting it")
            try:
                await asyncio.to_thread(server.ensure_running)
            except embedded.EmbeddedDatabaseError:
                logger.exception("the embedded database could not be restarted; trying again")

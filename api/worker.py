"""The worker: scheduled jobs on PgQueuer, whose tables are in the same database.

PgQueuer lets one worker at a time run a job, and gives a job whose worker was killed to another one half a minute
later. What a job does must be safe to repeat all the same: a worker that lost its connection may still be at work.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog
from pgqueuer import AsyncpgDriver, Queries, SchedulerManager
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import Channel
from pgqueuer.models import Schedule
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from api.runtime import Runtime, long_lived_spared
from api.sweeping import a_queue, sweep_all
from domain.database import POSTING_ROLE
from domain.observing import fault_facts
from domain.queue import PostingQueue

EACH_MINUTE = "* * * * *"
RETRY_SECONDS = 1
"""Between losing the database and looking for it again."""

NS_PER_MS = 1_000_000

NAMES = DBSettings(
    prefix="",
    db_schema="public",
    channel=Channel("ch_pgqueuer"),
    function="fn_pgqueuer_changed",
    statistics_table="pgqueuer_statistics",
    queue_status_type="pgqueuer_status",
    queue_table="pgqueuer",
    queue_table_log="pgqueuer_log",
    trigger="tg_pgqueuer_changed",
    schedules_table="pgqueuer_schedules",
)
"""As the migration has them. Written out, because PgQueuer would let the environment (``TRIGGER=…``) rename them."""


@dataclass(frozen=True)
class Desk:
    """What a job works with: the open database, a posting queue, and whether the worker was told to stop."""

    runtime: Runtime
    queue: PostingQueue
    stopping: asyncio.Event


@dataclass(frozen=True)
class ScheduledJob:
    """A job and when it is due (a cron expression, in UTC); it answers facts for the log, without anybody's data."""

    name: str
    due: str
    run: Callable[[Desk], Awaitable[Mapping[str, Any]]]


async def sweep_job(desk: Desk) -> Mapping[str, Any]:
    """Books what is due by itself."""
    return (await sweep_all(desk.runtime, desk.queue, is_stopped=desk.stopping.is_set)).as_json()


JOBS = (ScheduledJob("sweep", EACH_MINUTE, sweep_job),)


async def work(runtime: Runtime, started: Callable[[], None]) -> None:
    """Runs the jobs until SIGTERM or SIGINT; one that is under way still posts the page that it has begun."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    stops = (signal.SIGTERM, signal.SIGINT)
    for number in stops:
        loop.add_signal_handler(number, stopping.set)
    try:
        async with a_queue(runtime) as queue:
            with long_lived_spared():
                started()
                await keep_running(Desk(runtime, queue, stopping))
    finally:
        for number in stops:
            loop.remove_signal_handler(number)


async def keep_running(desk: Desk) -> None:
    """Runs the jobs until told to stop, on a new connection whenever one is lost."""
    log = structlog.get_logger(__name__)
    while not desk.stopping.is_set():
        try:
            await run_jobs(desk)
        except (OSError, DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("worker_connection_lost", **fault_facts(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(desk.stopping.wait(), RETRY_SECONDS)


async def run_jobs(desk: Desk) -> None:
    """Runs the jobs on one connection until told to stop. Raises what the database raises when that is lost."""
    engine = create_async_engine(
        desk.runtime.database.urls.posting,
        poolclass=NullPool,
        connect_args={"server_settings": {"role": POSTING_ROLE, "application_name": "coalition_worker"}},
    )
    try:
        async with engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await scheduler(AsyncpgDriver(driver), desk).run()
    finally:
        await engine.dispose()


def scheduler(driver: AsyncpgDriver, desk: Desk) -> SchedulerManager:
    """PgQueuer's scheduler with our jobs, on our tables; it stops when the desk does."""
    manager = SchedulerManager(queries_on(driver))
    manager.shutdown = desk.stopping
    for job in JOBS:
        manager.schedule(job.name, job.due, accepts_context=False)(_logged(job, desk))
    return manager


def queries_on(driver: AsyncpgDriver) -> Queries:
    """PgQueuer's statements, on the tables of our migration."""
    return Queries(driver, QueryBuilderEnvironment(NAMES), QueryQueueBuilder(NAMES), QuerySchedulerBuilder(NAMES))


def _logged(job: ScheduledJob, desk: Desk) -> Callable[[Schedule], Awaitable[None]]:
    log = structlog.get_logger(__name__).bind(job=job.name)

    async def run(_: Schedule) -> None:
        started_ns = time.monotonic_ns()
        try:
            facts = await job.run(desk)
        except Exception as error:  # noqa: BLE001 (it is due again; PgQueuer would log the error's text)
            log.error("job_failed", **fault_facts(error))  # noqa: TRY400 (facts, not a traceback)
        else:
            log.info("job_done", duration_ms=(time.monotonic_ns() - started_ns) // NS_PER_MS, **facts)

    return run

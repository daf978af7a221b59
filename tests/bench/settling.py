"""The close of a period of a million movements, with its full audit, against one plain grouping scan of its tables."""

import asyncio
from datetime import UTC, datetime, time
from time import perf_counter

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from api.clock import system_clock
from api.embedded import EmbeddedServer
from api.terminal import run_loop
from domain.commands import Posted
from domain.periods import MONTHS_PER_YEAR
from domain.queue import PostingQueue
from domain.terms import ConfigurationCache
from settlement.closing import close_period
from tests.api.processes import a_database
from tests.bench.figures import ROUNDS, Result, Side, in_turn, ratio_of
from tests.bench.history import make_history, members_of, opened, purchases, run_alone
from tests.bench.shop import first_of_last_month

TEMPLATE = "bench_month"
COPY = "bench_close"

SCANS = (
    """
    SELECT period_id, kind, party_id, count(*), sum(points), sum(issue_value_micro), sum(service_fee_micro),
           sum(reimbursement_micro), sum(breakage_share_micro), sum(pool_value_micro), sum(budget_micro), sum(row_hash)
      FROM transaction GROUP BY period_id, kind, party_id
    """,
    "SELECT period_id, kind, count(*), sum(amount_minor), sum(declined_points) FROM command GROUP BY period_id, kind",
    "SELECT issuer_id, count(*), sum(granted), sum(remaining), sum(reserved) FROM lot GROUP BY issuer_id",
    """
    SELECT period_id, kind, issuer_id, redeemer_id, sum(points), sum(points * price_micro)
      FROM lot_use GROUP BY period_id, kind, issuer_id, redeemer_id
    """,
    "SELECT count(*), sum(available), sum(pending), sum(held) FROM account",
)
"""What anybody would write who wants the month's totals and nothing checked; with the server's own settings."""


def close_vs_scan(*, quick: bool, lively: bool) -> Result:
    """Seconds of each, on a fresh copy of the same database every round."""
    rows, live_rows = (20_000, 200) if quick else (1_000_000, 50_000)
    with a_database() as (_, server):
        month = first_of_last_month()
        make_history(server, TEMPLATE, rows, month.year * MONTHS_PER_YEAR + month.month - 1, 1, lively=lively)
        if lively:
            run_loop(_post(server, live_rows, members_of(rows), datetime.combine(month, time(12), UTC)))

        def ours(_: int) -> float:
            return run_loop(_close(server, f"{month:%Y-%m}"))

        def theirs(_: int) -> float:
            return asyncio.run(_scan(server))

        a: list[float] = []
        b: list[float] = []
        for _ in range(ROUNDS):
            run_alone(server, f"CREATE DATABASE {COPY} TEMPLATE {TEMPLATE} STRATEGY file_copy", "CHECKPOINT")
            # Once for nothing: neither side is to be the one that finds the files cold.
            asyncio.run(_scan(server))
            closed, scanned = in_turn(ours, theirs, rounds=1)
            a += closed
            b += scanned
            run_alone(server, f"DROP DATABASE {COPY} WITH (FORCE)")
    return ratio_of(
        Side("close with full audit", "s", a), Side("grouping scan of the same tables", "s", b), transactions=rows
    )


async def _post(server: EmbeddedServer, count: int, members: int, at: datetime) -> None:
    """Purchases through the posting queue, for what a history made by SQL has not: campaigns and pending awards."""
    async with opened(server, TEMPLATE) as database:
        queue = PostingQueue(database, ConfigurationCache(database), system_clock, is_history=True, queue_max=count)
        queue.start()
        outcomes = await queue.post_many(await purchases(database, "live", count, members, at))
        await queue.stop()
    assert all(isinstance(outcome, Posted) for outcome in outcomes)


async def _close(server: EmbeddedServer, label: str) -> float:
    async with opened(server, COPY) as database:
        async with database.posting() as connection:
            await connection.execute(text("SELECT"))  # connected, as the other side is
        began = perf_counter()
        closed = await close_period(database, system_clock, label, "bench")
        seconds = perf_counter() - began
    certificate = closed.period.certificate
    assert not closed.replayed
    assert certificate is not None
    assert all(check.holds for check in certificate.checks)
    return seconds


async def _scan(server: EmbeddedServer) -> float:
    engine = create_async_engine(make_url(server.superuser_dsn(COPY)), poolclass=NullPool)
    async with engine.connect() as connection:
        began = perf_counter()
        for scan in SCANS:
            (await connection.execute(text(scan))).all()
        seconds = perf_counter() - began
    await engine.dispose()
    return seconds

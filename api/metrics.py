"""Figures for Prometheus: the queue, batches, commands, requests, budgets, memory.

They name partners, so they are served on an address of their own (``api.server``), never beside the API.
"""

import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import Response

from api.runtime import Runtime
from domain.commands import Command, Outcome, Refusal
from domain.database import Database
from domain.errors import RefusalCode
from domain.loading import LIVE_OVERDRAFT_SQL
from domain.periods import Clock, local_date
from domain.queue import PostingQueue
from domain.terms import ConfigurationCache
from domain.values import MICRO_PER_UNIT, OPERATOR_ID

BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500)
BATCH_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
REQUEST_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BUDGETS_EVERY_SECONDS = 5
US_PER_SECOND = 1_000_000
NS_PER_SECOND = 1_000_000_000

BUDGETS_SQL = text(
    f"""
    SELECT coalesce(p.code, ''), coalesce(c.code, ''),
           CASE WHEN b.period_id = 0 THEN lower(l.valid)::text ELSE per.label END,
           b.limit_micro + {LIVE_OVERDRAFT_SQL}, b.consumed_micro + b.reserved_micro
      FROM budget AS b
      JOIN budget_plan AS l ON l.id = b.plan_id
      LEFT JOIN partner AS p ON p.id = b.partner_id
      LEFT JOIN campaign AS c ON c.id = l.campaign_id
      LEFT JOIN period AS per ON per.id = b.period_id
     WHERE b.period_id = :current OR (b.period_id = 0 AND l.valid @> CAST(:today AS date))
     ORDER BY p.code, c.code, b.period_id, lower(l.valid)
    """  # noqa: S608 (a constant of this application)
)


class Metrics:
    """Counts what the queue and the server tell it (``QueueObserver``, ``RequestObserver``), and shows it."""

    def __init__(self, runtime: Runtime) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._queue = Gauge("coalition_queue_length", "Commands that wait for the next batch", registry=registry)
        self._sizes = Histogram(
            "coalition_batch_commands", "Commands in a batch", buckets=BATCH_SIZES, registry=registry
        )
        self._batches = Histogram(
            "coalition_batch_seconds",
            "From a batch's first statement to its commit, retries included",
            buckets=BATCH_SECONDS,
            registry=registry,
        )
        self._commands = Counter(
            "coalition_commands", "Commands answered, by kind and result", ["kind", "result"], registry=registry
        )
        self._refusals = Counter(
            "coalition_refusals", "Commands refused, by kind and code", ["kind", "code"], registry=registry
        )
        self._requests = Counter(
            "coalition_http_requests", "Requests answered, by path and status", ["path", "status"], registry=registry
        )
        self._durations = Histogram(
            "coalition_http_seconds",
            "From a request's head to the end of its answer",
            ["path"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self._budgets = _BudgetGauges(runtime.database, runtime.configuration, runtime.clock, registry)

    def watch(self, queue: PostingQueue) -> None:
        """Shows the queue's length from now on."""
        self._queue.set_function(lambda: queue.length)

    def batch_posted(self, commands: Sequence[Command], outcomes: Sequence[Outcome], duration_us: int) -> None:
        """Counts a batch."""
        self._sizes.observe(len(commands))
        self._batches.observe(duration_us / US_PER_SECOND)
        for command, outcome in zip(commands, outcomes, strict=True):
            kind = type(command).__name__.lower()
            if isinstance(outcome, Refusal):
                self._refuse(kind, outcome.code)
            else:
                self._commands.labels(kind, "replayed" if outcome.replayed else "posted").inc()

    def turned_away(self, kind: type[Command]) -> None:
        """Counts a command that the queue did not take."""
        self._refuse(kind.__name__.lower(), RefusalCode.OVERLOADED)

    def _refuse(self, kind: str, code: RefusalCode) -> None:
        self._commands.labels(kind, "refused").inc()
        self._refusals.labels(kind, code.value).inc()

    def request_answered(self, path: str, status: int, duration_ns: int) -> None:
        """Counts a request."""
        self._requests.labels(path, str(status)).inc()
        self._durations.labels(path).observe(duration_ns / NS_PER_SECOND)

    async def page(self, _: Request) -> Response:
        """``GET /metrics``, in Prometheus' text format."""
        await self._budgets.refresh()
        return Response(generate_latest(self.registry), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})


class _BudgetGauges:
    """The budget windows of today, read at most every few seconds however often they are asked for."""

    def __init__(
        self, database: Database, configuration: ConfigurationCache, clock: Clock, registry: CollectorRegistry
    ) -> None:
        self._database = database
        self._configuration = configuration
        self._clock = clock
        self._read_at = -BUDGETS_EVERY_SECONDS + time.monotonic()
        labels = ["partner", "campaign", "window", "currency"]
        self._limit = Gauge(
            "coalition_budget_limit", "Limit with approved overdraft, in currency units", labels, registry=registry
        )
        self._used = Gauge(
            "coalition_budget_used", "Consumed and reserved, in currency units", labels, registry=registry
        )

    async def refresh(self) -> None:
        """Reads the windows again where the last reading is old; without a database the last figures stay."""
        if time.monotonic() - self._read_at < BUDGETS_EVERY_SECONDS:
            return
        self._read_at = time.monotonic()
        try:
            configuration = self._configuration.held or await self._configuration.current()
            if configuration is None:
                return
            programme, now = configuration.programme, self._clock()
            today = {
                "current": programme.calendar.containing(now),
                "today": local_date(now, programme.zone),
                "now": now,
            }
            async with self._database.reading(OPERATOR_ID) as connection:
                rows = (await connection.execute(BUDGETS_SQL, today)).all()
        except (OSError, DBAPIError):
            return
        self._limit.clear()
        self._used.clear()
        for partner, campaign, window, limit_micro, used_micro in rows:
            labels = (partner, campaign, window, programme.currency)
            self._limit.labels(*labels).set(limit_micro / MICRO_PER_UNIT)
            self._used.labels(*labels).set(used_micro / MICRO_PER_UNIT)

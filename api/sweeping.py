"""A pass over every account of which something is due, through a posting queue: for the worker and the command line."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rich.console import Console

from api.importing import progress_bar
from api.runtime import Runtime
from domain.commands import Sweep, Swept
from domain.parking import expire_parked
from domain.queue import PostingQueue
from domain.sweeping import NOTHING_YET, due_accounts

PAGE_ACCOUNTS = 100
"""Accounts of one batch. An account may have hundreds of lots that end on the same day, and tills wait for its lock."""


@dataclass
class SweepSummary:
    """What a pass did. ``accounts`` were looked at, ``failed`` of them could not be swept and are due again."""

    accounts: int = 0
    expired_lots: int = 0
    expired_points: int = 0
    confirmed_awards: int = 0
    confirmed_points: int = 0
    timed_out_holds: int = 0
    lapsed_awards: int = 0
    lapsed_points: int = 0
    expired_reversals: int = 0
    failed: int = 0

    def as_json(self) -> dict[str, int]:
        """For ``--json`` and for the log: no member's data."""
        return {
            "accounts": self.accounts,
            "expiredLots": self.expired_lots,
            "expiredPoints": self.expired_points,
            "confirmedAwards": self.confirmed_awards,
            "confirmedPoints": self.confirmed_points,
            "timedOutHolds": self.timed_out_holds,
            "lapsedAwards": self.lapsed_awards,
            "lapsedPoints": self.lapsed_points,
            "expiredReversals": self.expired_reversals,
            "failed": self.failed,
        }

    def add(self, swept: Swept) -> None:
        """Counts one account's sweep."""
        self.expired_lots += swept.expired_lots
        self.expired_points += swept.expired_points
        self.confirmed_awards += swept.confirmed_awards
        self.confirmed_points += swept.confirmed_points
        self.timed_out_holds += swept.timed_out_holds
        self.lapsed_awards += swept.lapsed_awards
        self.lapsed_points += swept.lapsed_points


async def sweep_all(
    runtime: Runtime,
    queue: PostingQueue,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[SweepSummary], None] = lambda _: None,
) -> SweepSummary:
    """Sweeps whatever was due when the pass began, page by page; whoever stops it loses nothing.

    Two passes at once, in one process or in two, share the work: what one has booked is not due for the other.
    """
    summary = SweepSummary()
    now = runtime.clock()
    summary.expired_reversals = await expire_parked(runtime.database, now)
    after = NOTHING_YET
    while not is_stopped():
        page = await due_accounts(runtime.database, now, after, PAGE_ACCOUNTS)
        if not page:
            break
        after = page[-1]
        account_ids = sorted({due.account_id for due in page})
        for outcome in await queue.post_many([Sweep(account_id) for account_id in account_ids]):
            if isinstance(outcome, Swept):
                summary.add(outcome)
            else:
                summary.failed += 1  # the queue has logged why, and the next pass tries again
        summary.accounts += len(account_ids)
        progress(summary)
    return summary


@asynccontextmanager
async def a_queue(runtime: Runtime) -> AsyncIterator[PostingQueue]:
    """A posting queue for the length of the block; at its end it posts what it has."""
    queue = PostingQueue(runtime.database, runtime.configuration, runtime.clock)
    queue.start()
    try:
        yield queue
    finally:
        await queue.stop()


async def sweep_once(runtime: Runtime, screen: Console) -> SweepSummary:
    """One pass, for ``coalition sweep``. Raises ConfigurationError before the first ``coalition apply``."""
    await runtime.programme_configuration()
    with progress_bar(screen) as progress:
        task = progress.add_task("accounts swept", total=None)
        async with a_queue(runtime) as queue:
            return await sweep_all(
                runtime, queue, progress=lambda summary: progress.update(task, completed=summary.accounts)
            )

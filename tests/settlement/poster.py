"""A second process that posts: run as ``python -m tests.settlement.poster URL NAME BORDER SECONDS``.

Its clock runs as fast as the machine's and passes BORDER at an epoch (seconds since 1970) that it reads from standard
input once it has said that it is ready, so that several processes agree on when the period ends, however long they take
to start. Prints one line of JSON: the keys that were acknowledged, with their periods.
"""

import asyncio
import json
import sys
import time
from datetime import datetime, timedelta

from sqlalchemy import make_url

from domain.commands import Posted
from domain.database import Database, DatabaseUrls
from domain.periods import Clock
from domain.queue import PostingQueue
from domain.terms import ConfigurationCache
from tests.factories import a_purchase

AT_ONCE = 20
READY = "ready"


def running_clock(border: datetime, epoch: str) -> Clock:
    """A clock that reads ``border`` at ``epoch`` and runs with the machine's."""
    return lambda: border + timedelta(microseconds=time.time_ns() // 1000 - int(epoch) * 1_000_000)


async def post_until_done(url: str, name: str, border: datetime, seconds: int) -> dict[str, int]:
    """Posts purchases of 1.00 by card-1 until so many seconds after the border; answers key -> period."""
    parsed = make_url(url)
    database = Database(DatabaseUrls(parsed, parsed, parsed))
    configuration = ConfigurationCache(database)
    loaded = await configuration.current()
    assert loaded is not None
    print(READY, flush=True)  # noqa: T201 (the parent waits for it)
    clock = running_clock(border, sys.stdin.readline())
    queue = PostingQueue(database, configuration, clock)
    queue.start()
    acknowledged = {}
    number = 0
    while clock() < border + timedelta(seconds=seconds):
        batch = [a_purchase(loaded, f"{name}-{number + i}", amount="1.00", occurred_at=clock()) for i in range(AT_ONCE)]
        number += AT_ONCE
        for outcome in await queue.post_many(batch):
            assert isinstance(outcome, Posted), outcome
            acknowledged[outcome.command.key] = outcome.command.period_id
    await queue.stop()
    await database.dispose()
    return acknowledged


if __name__ == "__main__":
    url, name, border, seconds = sys.argv[1:]
    done = asyncio.run(post_until_done(url, name, datetime.fromisoformat(border), int(seconds)))
    print(json.dumps(done))  # noqa: T201 (the parent reads it)

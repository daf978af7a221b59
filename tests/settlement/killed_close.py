"""Closes a period in a process that ends itself without a word in the middle of one of the close's transactions.

Arguments: the database's address, the period's label, the instant of the clock, and before which step it dies.
"""

import asyncio
import os
import signal
import sys
from datetime import datetime
from typing import Any

from domain.database import Database, DatabaseUrls
from settlement import closing


async def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class StartThatDies:
    """Runs the statement that makes the period CLOSING, and dies before its commit."""

    def __init__(self, start: Any) -> None:
        self.start = start

    async def __call__(self, connection: Any, *arguments: Any) -> None:
        await self.start(connection, *arguments)
        await die()


STEPS = {
    # The fixed fees are booked, the commit is not sent.
    "start": ("_book_fixed_fees", StartThatDies(closing._book_fixed_fees)),
    # The snapshot is read.
    "audit": ("check_ledger", die),
    # Statements, lines, rounding, taxes and entries are written, the commit is not sent.
    "finish": ("close_row", die),
}


async def main(url: str, label: str, instant: str, step: str) -> None:
    database = Database(DatabaseUrls.from_one(url))
    setattr(closing, *STEPS[step])
    await closing.close_period(database, lambda: datetime.fromisoformat(instant), label, "killed")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

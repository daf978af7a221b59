"""Another process of the platform: posts what the test posts at the same moment, and tells how often it was first.

Run as ``python -m tests.domain.other_process URL WORK``, with one of WORKS; it waits for a line before it begins and
answers with one.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable

from sqlalchemy import make_url

from domain.commands import Command
from domain.database import Database, DatabaseUrls
from domain.terms import load_configuration
from tests.domain.tills import Till, codes, queue_on

FEW = 5


def contested(till: Till) -> list[Command]:
    """What both processes post: enrolments, purchases, burns and returns under the same keys, for the same members."""
    cards = [f"new-{number}" for number in range(20)]
    return [
        *(till.enrolment(card) for card in cards),
        *(till.purchase(f"k-{card}-{turn}", "10.00", card=card) for turn in range(10) for card in cards),
        *(till.burn(f"b-{card}-{turn}", 60, card=card, partner="fuel") for turn in range(2) for card in cards),
        *(till.reversal(f"v-{card}", f"k-{card}-0", amount="4.00") for card in cards),
    ]


def returned(till: Till) -> list[Command]:
    """What one process posts for a member who owes: ten returns and forty purchases, at one partner."""
    bought = [till.purchase(f"here-{number}", "10.00") for number in range(40)]
    commands: list[Command] = []
    for number in range(10):
        commands += [till.reversal(f"v-{number}", f"k-{number}"), *bought[4 * number : 4 * number + 4]]
    return commands


def earned(till: Till) -> list[Command]:
    """What another posts for the same member: fifty purchases at another partner, on whose budget nobody else waits."""
    return [till.purchase(f"there-{number}", "10.00", partner="fuel") for number in range(50)]


WORKS: dict[str, Callable[[Till], list[Command]]] = {
    "contested": contested,
    "returned": returned,
    "earned": earned,
}


async def post_in_small_batches(till: Till, work: str) -> Counter[str]:
    """Posts them few at a time, so that the processes' batches take turns."""
    counts: Counter[str] = Counter()
    commands = WORKS[work](till)
    for start in range(0, len(commands), FEW):
        counts += codes(await till.queue.post_many(commands[start : start + FEW]))
    return counts


async def _post(url: str, work: str) -> None:
    parsed = make_url(url)
    database = Database(DatabaseUrls(parsed, parsed, parsed))
    async with database.posting() as connection:
        configuration = await load_configuration(connection)
    assert configuration is not None
    async with queue_on(database, configuration) as till:
        print("ready", flush=True)  # noqa: T201 (how the processes talk)
        sys.stdin.readline()
        counts = await post_in_small_batches(till, work)
    await database.dispose()
    print(json.dumps(counts), flush=True)  # noqa: T201 (how the processes talk)


if __name__ == "__main__":
    asyncio.run(_post(*sys.argv[1:]))

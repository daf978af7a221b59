"""Two tills on one database, the first of them stopped at each step of its batch while the other posts."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from domain.commands import Command, Outcome
from tests.domain.coalitions import coalition, partner
from tests.domain.gates import STEPS, one_inside_the_other
from tests.domain.tills import Till, codes

SHOPS = [f"shop-{number}" for number in range(len(STEPS))]
SHOPPING_STREET = coalition(
    *(partner(shop, budgets={"limit": "1.10", "on_limit": "DECLINE"}) for shop in SHOPS), partner("grocer")
)


@dataclass
class Pair:
    """Two tills of one coalition; the first one is stopped at each step in turn."""

    first: Till
    second: Till
    monkeypatch: pytest.MonkeyPatch

    async def at_every_step(
        self, commands: Callable[[str, str], Awaitable[tuple[Command, Command]]]
    ) -> AsyncIterator[tuple[Outcome, Outcome]]:
        """The two answers per step. ``commands`` makes both from a name and a partner that no other step uses."""
        for number, step in enumerate(STEPS):
            held, meanwhile = await commands(str(number), SHOPS[number])
            answers = self.first.queue.post(held), self.second.queue.post(meanwhile)
            met = await one_inside_the_other(self.monkeypatch, step, self.first.queue, *answers)
            yield met.held, met.meanwhile


def both(outcomes: tuple[Outcome, Outcome]) -> Counter[str]:
    return codes(list(outcomes))

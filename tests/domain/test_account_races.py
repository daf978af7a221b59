"""Two queues, one database, where points move between accounts: each step of one batch stopped while another posts."""

from domain.commands import Command
from tests.domain.gates import STEPS
from tests.domain.pairs import Pair, both


async def test_two_transfers_in_opposite_directions(pair: Pair) -> None:
    till = pair.first

    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await till.enrolled(name, f"other-{name}")
        for card in (name, f"other-{name}"):
            await till.accept(till.purchase(f"k-{card}", "50.00", card=card, partner=shop))
        return (
            till.transfer(f"t-{name}", 50, source=name, target=f"other-{name}"),
            till.transfer(f"u-{name}", 40, source=f"other-{name}", target=name),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 2}
    assert await till.rows("SELECT available, count(*) FROM account GROUP BY 1 ORDER BY 1") == [
        (40, len(STEPS)),
        (60, len(STEPS)),
    ]


async def test_a_transfer_beside_a_burn_of_the_same_points(pair: Pair) -> None:
    till = pair.first

    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await till.enrolled(name, f"other-{name}")
        await till.accept(till.purchase(f"k-{name}", "100.00", card=name, partner=shop))
        return (
            till.transfer(f"t-{name}", 60, source=name, target=f"other-{name}"),
            till.burn(f"b-{name}", 60, card=name, partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "INSUFFICIENT_POINTS": 1}

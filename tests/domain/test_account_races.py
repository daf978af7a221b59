"""Two queues, one database, where points move between accounts: each step of one batch stopped while another posts."""

from domain.accounts import PoolRole
from domain.commands import Command, Posted
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


async def test_a_merge_beside_a_purchase_with_the_duplicate_s_card(pair: Pair) -> None:
    till = pair.first

    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await till.enrolled(name, f"other-{name}")
        await till.accept(till.purchase(f"k-{name}", "50.00", card=f"other-{name}", partner=shop))
        return till.merge(f"m-{name}", name, f"other-{name}"), till.purchase(f"l-{name}", "7.00", card=f"other-{name}")

    async for outcomes in pair.at_every_step(commands):
        merged, bought = outcomes
        assert isinstance(merged, Posted)
        assert isinstance(bought, Posted)
        # Before the merge it moved with the rest, after it the kept member earned it.
        assert (merged.points, bought.command.member_id == merged.command.member_id) in ((57, True), (50, False))
    assert await till.rows("SELECT available, count(*) FROM account GROUP BY 1 ORDER BY 1") == [
        (0, len(STEPS)),
        (57, len(STEPS)),
    ]


async def test_a_purchase_with_the_duplicate_s_card_beside_its_merge(pair: Pair) -> None:
    till = pair.first

    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await till.enrolled(name, f"other-{name}")
        await till.accept(till.purchase(f"k-{name}", "50.00", card=f"other-{name}", partner=shop))
        return till.burn(f"b-{name}", 20, card=f"other-{name}"), till.merge(f"m-{name}", name, f"other-{name}")

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 2}
    assert await till.rows("SELECT available, count(*) FROM account GROUP BY 1 ORDER BY 1") == [
        (0, len(STEPS)),
        (30, len(STEPS)),
    ]


async def test_two_merges_of_the_same_two_in_opposite_directions(pair: Pair) -> None:
    till = pair.first

    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await till.enrolled(name, f"other-{name}")
        await till.accept(till.purchase(f"k-{name}", "50.00", card=name, partner=shop))
        return till.merge(f"m-{name}", name, f"other-{name}"), till.merge(f"n-{name}", f"other-{name}", name)

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "INPUT_INVALID": 1}
    assert await till.rows("SELECT state, count(*) FROM member GROUP BY 1 ORDER BY 1") == [
        ("ACTIVE", len(STEPS)),
        ("CLOSED", len(STEPS)),
    ]


async def test_joining_a_pool_beside_a_burn(pair: Pair) -> None:
    till = pair.first

    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await till.enrolled(name, f"other-{name}")
        await till.accept(till.purchase(f"k-{name}", "50.00", card=f"other-{name}", partner=shop))
        founded = await till.accept(till.founding(f"c-{name}", name))
        pool_id = await till.one("SELECT pool_id FROM pool_member WHERE command_id = :id", id=founded.command.id)
        return till.joining(f"j-{name}", pool_id, f"other-{name}"), till.burn(f"b-{name}", 20, card=f"other-{name}")

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 2}
    shared = "SELECT a.available, count(*) FROM member AS m JOIN account AS a ON a.id = m.account_id GROUP BY 1"
    assert await till.rows(shared) == [(30, 2 * len(STEPS))]


async def test_one_member_founds_one_pool(pair: Pair) -> None:
    till = pair.first

    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await till.enrolled(name, f"other-{name}")
        await till.accept(till.purchase(f"k-{name}", "50.00", card=name, partner=shop))
        return till.founding(f"c-{name}", name), till.founding(f"d-{name}", name)

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "POOL_NOT_POSSIBLE": 1}
    assert await till.rows("SELECT available, count(*) FROM account GROUP BY 1 ORDER BY 1") == [
        (0, 2 * len(STEPS)),
        (50, len(STEPS)),
    ]


async def test_the_two_heads_of_a_pool_leave_at_once(pair: Pair) -> None:
    till = pair.first

    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await till.enrolled(name, f"other-{name}", f"third-{name}")
        await till.accept(till.purchase(f"k-{name}", "50.00", card=name, partner=shop))
        founded = await till.accept(till.founding(f"c-{name}", name))
        pool_id = await till.one("SELECT pool_id FROM pool_member WHERE command_id = :id", id=founded.command.id)
        await till.accept(till.joining(f"j-{name}", pool_id, f"other-{name}", role=PoolRole.HEAD))
        await till.accept(till.joining(f"i-{name}", pool_id, f"third-{name}"))
        return till.leaving(f"l-{name}", name), till.leaving(f"m-{name}", f"other-{name}")

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "POOL_NOT_POSSIBLE": 1}

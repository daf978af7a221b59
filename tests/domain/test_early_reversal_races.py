"""A reversal that is parked, and its original by another process: each step of one stopped while the other posts."""

import pytest

from domain.commands import Command, CommandKind, OriginalRef, ParkedReversal, Posted
from tests.domain.pairs import Pair, both
from tests.domain.tills import by_reference


@pytest.mark.parametrize("named", ["key", "reference"])
@pytest.mark.parametrize("is_original_first", [True, False])
async def test_it_never_misses_its_original(pair: Pair, named: str, *, is_original_first: bool) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name)
        key = f"k-{name}"
        original: str | OriginalRef = key if named == "key" else by_reference(key, CommandKind.EARN)
        reversal = pair.first.reversal(f"v-{name}", original, amount="40.00", partner=shop, awaits=True)
        bought = pair.first.purchase(key, "100.00", card=name, partner=shop)
        return (bought, reversal) if is_original_first else (reversal, bought)

    async for outcomes in pair.at_every_step(commands):
        bought, reversal = outcomes if is_original_first else outcomes[::-1]
        assert isinstance(bought, Posted)
        if isinstance(reversal, ParkedReversal):
            assert bought.balance.available == 60
        else:
            assert isinstance(reversal, Posted)
            assert (reversal.points, reversal.balance.available, bought.balance.available) == (40, 60, 100)
    assert await pair.first.rows("SELECT DISTINCT available FROM account") == [(60,)]
    assert await pair.first.rows("SELECT count(*) FROM early_reversal WHERE state <> 'POSTED'") == [(0,)]


async def test_one_reversal_is_parked_once(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        command = pair.first.reversal(f"v-{name}", f"k-{name}", partner=shop, awaits=True)
        return command, command

    async for first, second in pair.at_every_step(commands):
        assert isinstance(first, ParkedReversal)
        assert isinstance(second, ParkedReversal)
        assert (first.id, {first.replayed, second.replayed}) == (second.id, {True, False})


async def test_a_key_is_parked_or_posted(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name)
        return (
            pair.first.reversal(f"k-{name}", "never", partner=shop, awaits=True),
            pair.first.purchase(f"k-{name}", "1.00", card=name, partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes)["IDEMPOTENCY_CONFLICT"] == 1

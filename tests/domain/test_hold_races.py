"""Two queues and one hold: each step of one queue's batch stopped while the other posts, sweeps, or captures."""

from domain.commands import Command, Posted, Refusal, Sweep, Swept
from tests.domain.pairs import Pair, both
from tests.domain.tills import by_reference


async def with_hold(pair: Pair, name: str, shop: str) -> None:
    """100 points of the member, 60 of them held."""
    till = pair.first
    await till.enrolled(name)
    await till.accept(till.purchase(f"k-{name}", "100.00", card=name, partner=shop))
    await till.accept(till.authorization(f"a-{name}", 60, card=name, partner=shop))


async def test_a_capture_beside_a_void(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await with_hold(pair, name, shop)
        return (
            pair.first.capture(f"c-{name}", f"a-{name}", 50, partner=shop),
            pair.first.void(f"v-{name}", by_reference(f"a-{name}"), partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "HOLD_RESOLVED": 1}


async def test_two_captures_of_one_hold(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await with_hold(pair, name, shop)
        return (
            pair.first.capture(f"c-{name}", f"a-{name}", partner=shop),
            pair.first.capture(f"d-{name}", f"a-{name}", 1, partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "HOLD_RESOLVED": 1}


async def test_one_capture_sent_to_both(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await with_hold(pair, name, shop)
        command = pair.first.capture(f"c-{name}", f"a-{name}", 50, partner=shop)
        return command, command

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "replayed": 1}
    assert await pair.first.rows("SELECT DISTINCT available, held FROM account") == [(50, 0)]


async def test_a_capture_in_time_beside_a_sweep_whose_clock_is_ahead(pair: Pair) -> None:
    pair.second.clock.forward(days=7)

    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await with_hold(pair, name, shop)
        account_id = pair.first.members[name].account_id
        return pair.first.capture(f"c-{name}", f"a-{name}", 50, partner=shop), Sweep(account_id)

    async for captured, swept in pair.at_every_step(commands):
        assert isinstance(swept, Swept)
        if isinstance(captured, Posted):
            assert swept.timed_out_holds == 0
        else:
            assert isinstance(captured, Refusal)
            assert (captured.code, swept.timed_out_holds) == ("HOLD_EXPIRED", 1)
    assert await pair.first.rows("SELECT count(*) FROM hold WHERE state = 'OPEN'") == [(0,)]


async def test_two_sweeps_of_one_hold(pair: Pair) -> None:
    names: list[str] = []

    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await with_hold(pair, name, shop)
        names.append(name)
        for till in (pair.first, pair.second):
            till.clock.forward(days=7)
        return Sweep(pair.first.members[name].account_id), Sweep(pair.first.members[name].account_id)

    async for first, second in pair.at_every_step(commands):
        assert isinstance(first, Swept)
        assert isinstance(second, Swept)
        assert first.timed_out_holds + second.timed_out_holds == 1
    assert await pair.first.rows("SELECT count(*) FROM command WHERE kind = 'VOID'") == [(len(names),)]


async def test_one_authorization_sent_to_both(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name)
        await pair.first.accept(pair.first.purchase(f"k-{name}", "100.00", card=name, partner=shop))
        command = pair.first.authorization(f"a-{name}", 60, card=name, partner=shop)
        return command, command

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "replayed": 1}
        assert [one.hold.state for one in outcomes if isinstance(one, Posted) and one.hold] == ["OPEN"] * 2


async def test_one_authorization_key_for_two_members(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name, f"other-{name}")
        for card in (name, f"other-{name}"):
            await pair.first.accept(pair.first.purchase(f"k-{card}", "5.00", card=card, partner=shop))
        key = f"a-{name}"
        return (
            pair.first.authorization(key, 2, card=name, partner=shop),
            pair.first.authorization(key, 2, card=f"other-{name}", partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "IDEMPOTENCY_CONFLICT": 1}


async def test_a_hold_beside_a_burn_of_the_same_points(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name)
        await pair.first.accept(pair.first.purchase(f"k-{name}", "100.00", card=name, partner=shop))
        return (
            pair.first.authorization(f"a-{name}", 60, card=name, partner=shop),
            pair.first.burn(f"b-{name}", 60, card=name),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "INSUFFICIENT_POINTS": 1}


async def test_a_capture_whose_authorization_is_just_being_posted(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name)
        await pair.first.accept(pair.first.purchase(f"k-{name}", "100.00", card=name, partner=shop))
        return (
            pair.first.capture(f"c-{name}", f"a-{name}", partner=shop),
            pair.first.authorization(f"a-{name}", 60, card=name, partner=shop),
        )

    async for captured, held in pair.at_every_step(commands):
        assert isinstance(held, Posted)
        assert both((captured, held)) in ({"posted": 2}, {"posted": 1, "TRANSACTION_NOT_FOUND": 1})


async def test_a_return_beside_a_void_of_what_it_would_take(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await with_hold(pair, name, shop)
        return (
            pair.first.reversal(f"r-{name}", f"k-{name}", partner=shop),
            pair.first.void(f"v-{name}", f"a-{name}", partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 2}
    # Whichever came first: everything went back, and nothing is missing.
    assert await pair.first.rows("SELECT DISTINCT available, held FROM account") == [(0, 0)]
    assert await pair.first.one("SELECT sum(shortfall_points) FROM transaction") == 0

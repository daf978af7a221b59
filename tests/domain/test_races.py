"""Two queues, one database: each step of one queue's batch stopped while the other posts, for every kind of clash.

The answers must be those of one order or the other, and the books must balance (checked after every test).
"""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domain import queue as queue_module
from domain.commands import Command, Enrolled, OriginalRef, Posted, Refusal
from domain.database import Database
from domain.queue import _Trouble, _trouble_of
from tests.domain.gates import STEPS, one_inside_the_other, until_done_or_waiting
from tests.domain.pairs import SHOPS, Pair, both
from tests.domain.tills import MARCH, by_reference, codes, queue_on


@pytest.mark.parametrize("held", range(4))
async def test_accounts_are_locked_in_the_order_of_their_ids(pair: Pair, held: int) -> None:
    till = pair.first
    cards = [f"card-{number}" for number in range(4)]
    await till.enrolled(*cards)
    accounts = sorted(member.account_id for member in till.members.values())
    lock = text("SELECT id FROM account WHERE id = :id FOR UPDATE NOWAIT")
    async with till.database.posting() as holder:
        await holder.execute(lock, {"id": accounts[held]})
        posting = asyncio.ensure_future(
            till.queue.post_many([till.purchase(card, "1.00", card=card) for card in reversed(cards)])
        )
        await until_done_or_waiting(till.queue, posting)
        taken = []
        for account_id in accounts:
            try:
                async with till.database.posting() as other:
                    await other.execute(lock, {"id": account_id})
            except DBAPIError:
                taken.append(account_id)
        # Those before the one that it waits for, and that one, which is held by us.
        assert taken == accounts[: held + 1]
    assert codes(await posting) == {"posted": 4}


async def test_one_key_posts_once(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name)
        command = pair.first.purchase(f"k-{name}", "5.00", card=name, partner=shop)
        return command, command

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "replayed": 1}
    assert await pair.first.rows("SELECT DISTINCT available FROM account") == [(5,)]


async def test_one_key_with_other_input_conflicts(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name, f"other-{name}")
        key = f"k-{name}"
        return (
            pair.first.purchase(key, "5.00", card=name, partner=shop),
            pair.first.purchase(key, "5.00", card=f"other-{name}", partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "IDEMPOTENCY_CONFLICT": 1}


async def test_one_key_without_any_common_lock_posts_once(pair: Pair) -> None:
    # Two burns of two members share no budget and no account: only the unique key stands between them.
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name, f"other-{name}")
        for card in (name, f"other-{name}"):
            await pair.first.accept(pair.first.purchase(f"k-{card}", "5.00", card=card, partner=shop))
        key = f"b-{name}"
        return (
            pair.first.burn(key, 2, card=name, partner=shop),
            pair.first.burn(key, 2, card=f"other-{name}", partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "IDEMPOTENCY_CONFLICT": 1}


async def test_two_burns_of_the_same_points(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name)
        await pair.first.accept(pair.first.purchase(f"k-{name}", "100.00", card=name, partner=shop))
        return (
            pair.first.burn(f"b-{name}", 60, card=name, partner=shop),
            pair.first.burn(f"c-{name}", 60, card=name),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "INSUFFICIENT_POINTS": 1}


async def test_two_purchases_of_the_last_budget(pair: Pair) -> None:
    # The window does not exist yet: both may be the one that makes it.
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name, f"other-{name}")
        return (
            pair.first.purchase(f"k-{name}", "60.00", card=name, partner=shop),
            pair.first.purchase(f"l-{name}", "60.00", card=f"other-{name}", partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "BUDGET_EXHAUSTED": 1}
    assert await pair.first.rows("SELECT DISTINCT consumed_micro, count(*) FROM budget GROUP BY 1") == [
        (660_000, len(STEPS))
    ]


async def test_two_purchases_that_both_fit(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name, f"other-{name}")
        return (
            pair.first.purchase(f"k-{name}", "60.00", card=name, partner=shop),
            pair.first.purchase(f"l-{name}", "40.00", card=f"other-{name}", partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 2}
    assert await pair.first.rows("SELECT DISTINCT consumed_micro FROM budget") == [(1_100_000,)]


async def test_one_reference_is_used_once(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name, f"other-{name}")
        for card in (name, f"other-{name}"):
            await pair.first.accept(pair.first.purchase(f"k-{card}", "5.00", card=card, partner=shop))
        return (
            pair.first.burn(f"b-{name}", 2, card=name, partner=shop, reference="r"),
            pair.first.burn(f"c-{name}", 2, card=f"other-{name}", partner=shop, reference="r"),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "DUPLICATE_REFERENCE": 1}


async def test_one_person_enrolled_twice_is_one_member(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        email = f"{name}@example.com"
        return (
            pair.first.enrolment(name, key=f"e-{name}", email=email, partner=shop),
            pair.first.enrolment(key=f"f-{name}", email=email),
        )

    async for first, second in pair.at_every_step(commands):
        assert isinstance(first, Enrolled)
        assert isinstance(second, Enrolled)
        assert first.member_id == second.member_id
        assert sorted([first.created, second.created]) == [False, True]
    assert await pair.first.rows("SELECT count(*), count(DISTINCT account_id) FROM member") == [
        (len(STEPS), len(STEPS))
    ]


async def test_one_enrolment_sent_to_both(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        command = pair.first.enrolment(name, partner=shop)
        return command, command

    async for first, second in pair.at_every_step(commands):
        assert isinstance(first, Enrolled)
        assert isinstance(second, Enrolled)
        assert (first.member_id, first.created, second.created) == (second.member_id, True, True)
        assert sorted([first.replayed, second.replayed]) == [False, True]


async def test_an_enrolment_beside_a_purchase_of_the_new_member(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        return pair.first.purchase(f"k-{name}", "5.00", card=name, partner=shop), pair.first.enrolment(
            name, partner=shop
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) in ({"posted": 2}, {"posted": 1, "MEMBER_NOT_FOUND": 1})


async def test_two_returns_of_one_purchase(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name)
        await pair.first.accept(pair.first.purchase(f"k-{name}", "100.00", card=name, partner=shop))
        return (
            pair.first.reversal(f"v-{name}", f"k-{name}", amount="60.00", partner=shop),
            pair.first.reversal(f"w-{name}", by_reference(f"k-{name}"), amount="60.00", partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "EXCEEDS_ORIGINAL": 1}
    assert await pair.first.rows("SELECT DISTINCT available FROM account") == [(40,)]


async def test_two_refunds_of_one_burn(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name)
        await pair.first.accept(pair.first.purchase(f"k-{name}", "100.00", card=name, partner=shop))
        await pair.first.accept(pair.first.burn(f"b-{name}", 50, card=name, partner=shop))
        return (
            pair.first.reversal(f"v-{name}", f"b-{name}", partner=shop),
            pair.first.reversal(f"w-{name}", f"b-{name}", points=1, partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) in ({"posted": 2}, {"posted": 1, "ALREADY_REVERSED": 1})
    assert await pair.first.rows("SELECT DISTINCT available FROM account") == [(100,)]


@pytest.mark.parametrize("named", ["key", "reference"])
async def test_a_return_whose_purchase_is_just_being_posted(pair: Pair, named: str) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name)
        key = f"k-{name}"
        original: str | OriginalRef = key if named == "key" else by_reference(key)
        return (
            pair.first.reversal(f"v-{name}", original, partner=shop),
            pair.first.purchase(key, "100.00", card=name, partner=shop),
        )

    async for returned, bought in pair.at_every_step(commands):
        assert isinstance(bought, Posted)
        # All of it, or it was not there yet; never the purchase without its points.
        if isinstance(returned, Posted):
            assert (returned.points, returned.shortfall_points, returned.command.amount_minor) == (100, 0, 10_000)
        else:
            assert isinstance(returned, Refusal)
            assert returned.code == "TRANSACTION_NOT_FOUND"


async def test_a_return_beside_another_purchase_of_the_member_just_as_its_own_is_posted(pair: Pair) -> None:
    # The first batch locks the member's account for a reason of its own; the second posts the original meanwhile.
    till = pair.first
    for number, step in enumerate(STEPS):
        name, shop = f"m{number}", SHOPS[number]
        await till.enrolled(name)
        batch: list[Command] = [
            till.purchase(f"other-{name}", "5.00", card=name),
            till.reversal(f"v-{name}", by_reference(f"k-{name}"), partner=shop),
            till.purchase(f"same-{name}", "5.00", card=name, partner=shop, reference=f"k-{name}"),
        ]
        outcomes, bought, _ = await one_inside_the_other(
            pair.monkeypatch,
            step,
            till.queue,
            till.queue.post_many(batch),
            pair.second.queue.post(till.purchase(f"k-{name}", "100.00", card=name, partner=shop)),
        )
        _, returned, duplicate = outcomes
        points = await till.rows(
            "SELECT a.available FROM account AS a WHERE a.id = :id", id=till.members[name].account_id
        )
        if isinstance(returned, Posted):
            assert isinstance(bought, Posted)
            assert (returned.points, points) == (100, [(5,)])
        else:
            assert returned.code == "TRANSACTION_NOT_FOUND"
            assert codes([bought, duplicate]) == {"posted": 1, "DUPLICATE_REFERENCE": 1}


async def test_a_burn_beside_a_return_of_the_points_it_takes(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pair.first.enrolled(name)
        await pair.first.accept(pair.first.purchase(f"k-{name}", "100.00", card=name, partner=shop))
        return (
            pair.first.burn(f"b-{name}", 70, card=name),
            pair.first.reversal(f"v-{name}", f"k-{name}", partner=shop),
        )

    async for burned, returned in pair.at_every_step(commands):
        assert isinstance(returned, Posted)
        taken = (returned.points, returned.shortfall_points)
        assert taken == ((30, 70) if isinstance(burned, Posted) else (100, 0))


async def test_four_queues_on_the_same_budgets_in_any_order_lose_no_update(pair: Pair, database: Database) -> None:
    till = pair.first
    troubles: list[Exception] = []

    def noted(error: Exception) -> _Trouble:
        troubles.append(error)
        return _trouble_of(error)

    pair.monkeypatch.setattr(queue_module, "_trouble_of", noted)
    cards = [f"c{number}" for number in range(8)]
    await till.enrolled(*cards)
    async with queue_on(database, till.configuration) as third, queue_on(database, till.configuration) as fourth:
        queues = [till.queue, pair.second.queue, third.queue, fourth.queue]
        posted = await asyncio.gather(
            *[
                queue.post(
                    till.purchase(
                        f"k{turn}-{number}",
                        "1.00",
                        card=cards[(turn * 3 + number) % 8],
                        # Each queue comes by the shops in an order of its own.
                        partner=SHOPS[(turn * (2 * number + 1)) % len(SHOPS)],
                    )
                )
                for turn in range(150)
                for number, queue in enumerate(queues)
            ]
        )
    counts = codes(list(posted))
    assert counts == {"posted": 600} or set(counts) == {"posted", "BUDGET_EXHAUSTED"}
    assert await till.one("SELECT sum(consumed_micro) FROM budget") == counts["posted"] * 11_000
    assert await till.one("SELECT sum(available) FROM account") == counts["posted"]
    # All lock in one order, so that nobody ever was in a deadlock.
    assert [error for error in troubles if isinstance(error, DBAPIError)] == []


async def test_the_first_posting_of_a_period_in_four_queues_at_once(pair: Pair, database: Database) -> None:
    await pair.first.enrolled("c")
    async with (
        queue_on(database, pair.first.configuration) as third,
        queue_on(database, pair.first.configuration) as fourth,
    ):
        tills = [pair.first, pair.second, third, fourth]
        for months in range(6):
            for till in tills:
                till.clock.to(2017, 4 + months, 1)
            outcomes = await asyncio.gather(
                *[
                    till.queue.post(pair.first.purchase(f"k{months}-{number}", "1.00", card="c", at=till.clock.now))
                    for number, till in enumerate(tills)
                ]
            )
            assert codes(list(outcomes)) == {"posted": 4}
    assert await pair.first.rows("SELECT id FROM period ORDER BY id") == [(MARCH + number,) for number in range(7)]
    assert await pair.first.rows("SELECT count(*) FROM budget") == [(6,)]

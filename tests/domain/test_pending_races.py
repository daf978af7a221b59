"""Two queues and one pending purchase: each step of one queue's batch stopped while the other posts."""

from collections.abc import AsyncIterator

import pytest

from domain.commands import Command, ConfirmPayment, OriginalRef, Sweep
from domain.database import Database
from tests.domain.books import check_books
from tests.domain.coalitions import coalition, partner
from tests.domain.gates import STEPS
from tests.domain.pairs import Pair, both
from tests.domain.tills import Till, queue_on, till_on

SHOPS = [f"shop-{number}" for number in range(len(STEPS))]
WINDOW = {"pending_days": 14}
SHOPPING_STREET = coalition(
    *(partner(shop, terms=WINDOW) for shop in SHOPS), partner("grocer", terms=WINDOW, risk="PAID_FIRST")
)


@pytest.fixture
async def pair(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    async with till_on(database, SHOPPING_STREET) as first, queue_on(database, first.configuration) as second:
        yield Pair(first, second, monkeypatch)
    await check_books(database)


async def pending(pair: Pair, name: str, shop: str, amount: str = "100.00") -> int:
    """A member with a purchase of mid-March; then it is mid-April. Answers the account."""
    for till in (pair.first, pair.second):
        till.clock.to(2017, 3, 15)
    await pair.first.enrolled(name)
    await pair.first.accept(pair.first.purchase(f"k-{name}", amount, card=name, partner=shop))
    for till in (pair.first, pair.second):
        till.clock.to(2017, 4, 15)
    return pair.first.members[name].account_id


async def accounts(till: Till) -> set[tuple[int, int]]:
    return {(row[0], row[1]) for row in await till.rows("SELECT available, pending FROM account")}


async def test_a_release_and_a_return_of_the_same_purchase(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        account_id = await pending(pair, name, shop)
        return Sweep(account_id), pair.second.reversal(f"r-{name}", f"k-{name}", partner=shop, amount="40.00")

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 2}
    assert await accounts(pair.first) == {(60, 0)}
    # Either the return was first and cancelled, or it reversed what had been confirmed: the sums are the same.
    kinds = await pair.first.rows(
        "SELECT kind, count(*), sum(points) FROM transaction WHERE kind IN ('CANCEL', 'EARN_REVERSAL') GROUP BY 1"
    )
    assert {kind for kind, _, _ in kinds} == {"CANCEL", "EARN_REVERSAL"}
    assert sum(number for _, number, _ in kinds) == len(STEPS)
    assert await pair.first.rows("SELECT sum(issue_value_micro), sum(pool_value_micro) FROM transaction") == [
        (-60 * 10_000 * len(STEPS), 60 * 10_000 * len(STEPS))
    ]


async def test_a_return_and_a_release_of_the_same_purchase(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        account_id = await pending(pair, name, shop)
        return pair.first.reversal(f"r-{name}", f"k-{name}", partner=shop), Sweep(account_id)

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 2}
    assert await accounts(pair.first) == {(0, 0)}
    assert await pair.first.one("SELECT sum(pool_value_micro) FROM transaction") == 0


async def test_two_sweeps_confirm_once(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        account_id = await pending(pair, name, shop)
        return Sweep(account_id), Sweep(account_id)

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 2}
    assert await pair.first.one("SELECT count(*) FROM transaction WHERE kind = 'CONFIRM'") == len(STEPS)
    assert await accounts(pair.first) == {(100, 0)}


async def test_a_sweep_and_a_burn_of_what_it_confirms(pair: Pair) -> None:
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        account_id = await pending(pair, name, shop)
        return Sweep(account_id), pair.second.burn(f"b-{name}", 100, card=name, partner=shop)

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 2}
    assert await accounts(pair.first) == {(0, 0)}


async def test_two_payments_of_one_purchase(pair: Pair) -> None:
    async def commands(name: str, _: str) -> tuple[Command, Command]:
        await pending(pair, name, "grocer")
        made = [
            ConfirmPayment(till.id_of("grocer"), f"{which}-{name}", OriginalRef(key=f"k-{name}"), till.clock.now)
            for which, till in (("p", pair.first), ("q", pair.second))
        ]
        return made[0], made[1]

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "NOTHING_PENDING": 1}
    assert await accounts(pair.first) == {(100, 0)}


async def test_one_payment_sent_twice(pair: Pair) -> None:
    async def commands(name: str, _: str) -> tuple[Command, Command]:
        await pending(pair, name, "grocer")
        till = pair.first
        made = ConfirmPayment(till.id_of("grocer"), f"p-{name}", OriginalRef(key=f"k-{name}"), till.clock.now)
        return made, made

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 1, "replayed": 1}
    assert await accounts(pair.first) == {(100, 0)}


async def test_a_payment_and_a_whole_return(pair: Pair) -> None:
    async def commands(name: str, _: str) -> tuple[Command, Command]:
        await pending(pair, name, "grocer")
        till = pair.first
        made = ConfirmPayment(till.id_of("grocer"), f"p-{name}", OriginalRef(key=f"k-{name}"), till.clock.now)
        return made, pair.second.reversal(f"r-{name}", f"k-{name}")

    seen: set[str] = set()
    async for outcomes in pair.at_every_step(commands):
        seen |= both(outcomes).keys()
        assert both(outcomes) in ({"posted": 2}, {"posted": 1, "NOTHING_PENDING": 1})
    assert seen == {"posted", "NOTHING_PENDING"}
    assert await accounts(pair.first) == {(0, 0)}


async def test_a_window_that_was_found_late_is_locked_with_the_others(pair: Pair) -> None:
    # A return in April finds that the purchase reserved March's window, which it did not lock: it begins again.
    async def commands(name: str, shop: str) -> tuple[Command, Command]:
        await pending(pair, name, shop)
        await pair.first.enrolled(f"other-{name}")
        return (
            pair.first.reversal(f"r-{name}", f"k-{name}", partner=shop, amount="40.00"),
            pair.second.purchase(f"o-{name}", "10.00", card=f"other-{name}", partner=shop),
        )

    async for outcomes in pair.at_every_step(commands):
        assert both(outcomes) == {"posted": 2}
    assert await pair.first.rows(
        "SELECT p.label, b.reserved_micro, count(*) FROM budget AS b JOIN period AS p ON p.id = b.period_id"
        " GROUP BY 1, 2 ORDER BY 1"
    ) == [("2017-03", 660_000, len(STEPS)), ("2017-04", 110_000, len(STEPS))]

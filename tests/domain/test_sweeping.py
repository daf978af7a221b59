"""Sweeping: what is due by itself is booked once, whoever asks and however often."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from domain.commands import Sweep, Swept
from domain.sweeping import NOTHING_YET, Due, due_accounts
from settlement.closing import close_period
from tests.domain.books import contents
from tests.domain.coalitions import coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.test_expiry import EXPIRIES, INSTANT, MIDNIGHT, MONTH
from tests.domain.tills import APRIL, MARCH, Till, queue_on


def account_of(till: Till, card: str = "card-1") -> int:
    """The account of the member with that card."""
    return till.members[card].account_id


async def swept(till: Till, card: str = "card-1") -> Swept:
    """What a sweep of the card's account did."""
    outcome = await till.queue.post(Sweep(account_of(till, card)))
    assert isinstance(outcome, Swept)
    return outcome


async def due(till: Till, first: int = 10) -> list[Due]:
    """The accounts of which something is due now."""
    return await due_accounts(till.database, till.clock.now, NOTHING_YET, first)


async def test_a_sweep_books_what_is_past_and_nothing_else(open_till: OpenTill) -> None:
    till = await open_till(MONTH)
    grocer, fuel = till.id_of("grocer"), till.id_of("fuel")
    await till.accept(till.purchase("k1", "100.00"))
    await till.accept(till.purchase("k2", "33.00", partner="fuel"))
    await till.accept(till.purchase("other", "7.00", card="card-2"))
    till.clock.forward(days=1)
    await till.accept(till.purchase("k3", "50.00"))
    till.clock.now = MIDNIGHT - INSTANT
    assert await swept(till) == Swept(account_of(till))
    assert await due(till) == []

    till.clock.now = MIDNIGHT
    assert await due(till) == [Due(MIDNIGHT, account_of(till)), Due(MIDNIGHT, account_of(till, "card-2"))]
    assert await swept(till) == Swept(account_of(till), expired_lots=2, expired_points=133)
    # As a burn would have booked them: 100 x 0.0100 x 50 %; 33 x 0.0105 x 25 %.
    assert await till.rows(EXPIRIES) == [
        (grocer, grocer, grocer, -100, 500_000, -1_000_000),
        (fuel, fuel, fuel, -33, 86_625, -346_500),
    ]
    columns = "partner_id, points, occurred_at, recorded_at, period_id, member_id"
    member_id = till.members["card-1"].member_id
    assert await till.rows(f"SELECT {columns} FROM command WHERE kind = 'EXPIRY' ORDER BY id") == [
        (grocer, 100, MIDNIGHT, MIDNIGHT, APRIL, member_id),
        (fuel, 33, MIDNIGHT, MIDNIGHT, APRIL, member_id),
    ]
    assert await till.available() == 50
    assert await due(till) == [Due(MIDNIGHT, account_of(till, "card-2"))]


async def test_what_was_swept_is_not_due_again(open_till: OpenTill) -> None:
    till = await open_till(MONTH)
    await till.accept(till.purchase("k1", "100.00"))
    till.clock.now = MIDNIGHT
    # Twice in one batch, and once more after it.
    first, second = await till.queue.post_many([Sweep(account_of(till)), Sweep(account_of(till))])
    assert (first, second) == (Swept(account_of(till), 1, 100), Swept(account_of(till)))
    before = await contents(till.database)
    assert await swept(till) == Swept(account_of(till))
    assert await contents(till.database) == before
    assert await due(till) == []


async def test_an_account_that_is_not_there_is_swept_without_a_trace(till: Till) -> None:
    before = await contents(till.database)
    assert await till.queue.post(Sweep(4_711)) == Swept(4_711)
    assert await contents(till.database) == before


async def test_two_processes_share_the_work(open_till: OpenTill) -> None:
    till = await open_till(MONTH)
    cards = [f"c-{number}" for number in range(40)]
    await till.enrolled(*cards)
    await till.accept_all([till.purchase(f"k-{card}", "10.00", card=card) for card in cards])
    till.clock.now = MIDNIGHT
    sweeps = [Sweep(account_of(till, card)) for card in cards]
    async with queue_on(till.database, till.configuration, at=MIDNIGHT) as other:
        burns = [till.burn(f"b-{card}", 1, card=card) for card in cards]
        both = await asyncio.gather(
            till.queue.post_many(sweeps), other.queue.post_many(sweeps[::-1]), till.queue.post_many(burns)
        )
    done = [outcome for outcomes in both[:2] for outcome in outcomes]
    assert sum(outcome.expired_points for outcome in done if isinstance(outcome, Swept)) == 400
    assert await till.rows("SELECT count(*), sum(points) FROM command WHERE kind = 'EXPIRY'") == [(40, 400)]


async def test_a_bound_that_was_too_early_is_put_right(
    open_till: OpenTill, tamper: Callable[[str], Awaitable[None]]
) -> None:
    till = await open_till(MONTH)
    await till.accept(till.purchase("k1", "100.00"))
    await tamper(f"UPDATE account SET next_expires_at = '2017-03-01' WHERE id = {account_of(till)}")
    assert [found.account_id for found in await due(till)] == [account_of(till)]
    assert await swept(till) == Swept(account_of(till))
    assert await due(till) == []
    assert await till.rows("SELECT next_expires_at FROM account WHERE available > 0") == [(MIDNIGHT,)]


async def test_after_a_close_it_is_booked_in_the_open_period(open_till: OpenTill) -> None:
    till = await open_till(MONTH)
    await till.accept(till.purchase("k1", "100.00"))
    till.clock.to(2017, 6, 3)
    for label in ("2017-01", "2017-02", "2017-03", "2017-04"):
        await close_period(till.database, till.clock, label, f"close-{label}")
    assert (await swept(till)).expired_points == 100
    assert await till.rows("SELECT occurred_at, period_id FROM command WHERE kind = 'EXPIRY'") == [
        (MIDNIGHT, MARCH + 3)
    ]


async def test_due_accounts_come_page_by_page_longest_due_first(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer"), expiry_months=1))
    cards = [f"c-{number}" for number in range(7)]
    await till.enrolled(*cards)
    for day in (0, 1):
        await till.accept_all([till.purchase(f"k-{card}", "10.00", card=card) for card in cards[day::2]])
        till.clock.forward(days=1)
    till.clock.to(2017, 6, 1)
    pages: list[list[Due]] = []
    after = NOTHING_YET
    while len(pages) < len(cards) and (page := await due_accounts(till.database, till.clock.now, after, 2)):
        pages.append(page)
        after = page[-1]
    expected = [Due(MIDNIGHT, account_of(till, card)) for card in cards[0::2]]
    expected += [Due(MIDNIGHT + timedelta(days=1), account_of(till, card)) for card in cards[1::2]]
    assert [found for page in pages for found in page] == sorted(expected)
    assert [len(page) for page in pages] == [2, 2, 2, 1]

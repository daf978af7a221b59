"""Prepaid floats: the oldest block pays first, and what comes back comes back to its block."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.commands import Posted
from domain.database import Database
from domain.errors import LedgerFault, RefusalCode
from domain.floats import Block, FloatMove, FloatUse, attribute
from settlement.top_ups import top_up_budget
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.floats import PRICE, failing, float_of, paid_in, prepaid, top_up, used, uses
from tests.domain.tills import APRIL, queue_on, till_on, window_of

Tamper = Callable[[str], Awaitable[None]]

# ---------------------------------------------------------------- arithmetic


def drawing(number: int, micro: int, *, back_of: int | None = None) -> FloatMove:
    return FloatMove(1, 7, 3, number, number if back_of is None else back_of, micro)


def use(block: int, number: int, micro: int, *, back_of: int | None = None) -> FloatUse:
    return FloatUse(block, number, number if back_of is None else back_of, 7, 3, micro)


def test_a_draw_empties_the_oldest_block_first_and_a_return_gives_back_the_last_first() -> None:
    blocks = [Block(11, 1, 100, 60), Block(12, 1, 50, 0), Block(13, 1, 50, 0)]

    made = attribute([drawing(1, 110), drawing(2, -30, back_of=1), drawing(3, -65, back_of=1)], blocks, {})

    assert made == [
        use(11, 1, 40), use(12, 1, 50), use(13, 1, 20),
        use(13, 2, -20, back_of=1), use(12, 2, -10, back_of=1),
        use(12, 3, -40, back_of=1), use(11, 3, -25, back_of=1),
    ]  # fmt: skip
    assert [block.used_micro for block in blocks] == [75, 0, 0]


def test_a_float_never_gives_what_it_has_not() -> None:
    with pytest.raises(LedgerFault, match="transaction 1: blocks of float 1 lack 11"):
        attribute([drawing(1, 51)], [Block(11, 1, 100, 60), Block(12, 2, 100, 0)], {})
    with pytest.raises(LedgerFault, match="transaction 2: blocks of float 1 lack 1"):
        attribute([drawing(2, -6, back_of=1)], [Block(11, 1, 100, 60)], {1: {11: 5}})


@given(
    amounts=st.lists(st.integers(1, 1_000), min_size=1, max_size=6),
    asked=st.lists(st.tuples(st.booleans(), st.integers(1, 400), st.integers(0, 30)), max_size=30),
)
def test_whatever_happens_blocks_add_up_and_returns_leave_what_the_kept_part_would_have_drawn(
    amounts: list[int], asked: list[tuple[bool, int, int]]
) -> None:
    blocks = [Block(number, 1, amount, 0) for number, amount in enumerate(amounts)]
    left = sum(amounts)
    kept: dict[int, int] = {}
    first_drawn: dict[int, list[FloatUse]] = {}
    held: dict[int, dict[int, int]] = {}
    made: list[FloatUse] = []
    for number, (is_return, micro, which) in enumerate(asked):
        if is_return and kept:
            original = sorted(kept)[which % len(kept)]
            part = min(micro, kept[original])
            new = attribute([drawing(number, -part, back_of=original)], blocks, held) if part else []
            kept[original] -= part
            left += part
        else:
            original, part = number, min(micro, left)
            new = attribute([drawing(number, part)], blocks, {}) if part else []
            kept[number], first_drawn[number] = part, new
            left -= part
        for one in new:
            parts = held.setdefault(original, {})
            parts[one.block_id] = parts.get(one.block_id, 0) + one.amount_micro
        made += new
    for block in blocks:
        assert block.used_micro == sum(one.amount_micro for one in made if one.block_id == block.id)
        assert 0 <= block.used_micro <= block.amount_micro
    assert sum(block.amount_micro - block.used_micro for block in blocks) == left
    for original, part in kept.items():
        expected: dict[int, int] = {}
        for one in first_drawn[original]:
            expected[one.block_id] = min(one.amount_micro, part - sum(expected.values()))
        stays = {block: micro for block, micro in held.get(original, {}).items() if micro}
        assert stays == {block: micro for block, micro in expected.items() if micro}


# ---------------------------------------------------------------- at the till


async def test_the_oldest_block_pays_first(open_till: OpenTill) -> None:
    till = await open_till(prepaid())
    await paid_in(till, "1.10", "0.55", "2.20")  # 100, 50 and 200 points

    await till.accept(till.purchase("first", "60.00"))
    await till.accept(till.purchase("second", "100.00"))

    assert await uses(till, "first") == [("top-1", 60 * PRICE)]
    assert await uses(till, "second") == [("top-1", 40 * PRICE), ("top-2", 50 * PRICE), ("top-3", 10 * PRICE)]
    assert await used(till) == [100 * PRICE, 50 * PRICE, 10 * PRICE]
    posted = await till.accept(till.purchase("third", "500.00"))
    assert (posted.points, posted.declined_points) == (190, 310)
    assert window_of(posted).available_micro == 0
    assert await failing(till) == {}


async def test_the_age_of_a_block_is_when_its_money_came_in(open_till: OpenTill) -> None:
    till = await open_till(prepaid())
    await paid_in(till, "1.10")
    before = till.clock.now - timedelta(days=3)
    await top_up_budget(till.database, till.clock, top_up(till, "1.10", "earlier", at=before))

    await till.accept(till.purchase("k", "130.00"))

    assert await uses(till, "k") == [("earlier", 100 * PRICE), ("top-1", 30 * PRICE)]


async def test_a_return_goes_back_to_the_block_that_paid(open_till: OpenTill) -> None:
    till = await open_till(prepaid())
    await paid_in(till, "1.10", "0.55", "2.20")
    await till.accept(till.purchase("first", "60.00"))
    await till.accept(till.purchase("second", "100.00"))

    await till.accept(till.reversal("r-1", "first", amount="25.00"))
    await till.accept(till.reversal("r-2", "second", amount="30.00"))

    assert await uses(till, "r-1") == [("top-1", -25 * PRICE)]
    assert sorted(await uses(till, "r-2")) == [("top-2", -20 * PRICE), ("top-3", -10 * PRICE)]
    assert await used(till) == [75 * PRICE, 30 * PRICE, 0]
    # What came back to an older block is drawn before what is left of a younger one.
    await till.accept(till.purchase("third", "50.00"))
    assert await uses(till, "third") == [("top-1", 25 * PRICE), ("top-2", 20 * PRICE), ("top-3", 5 * PRICE)]
    await till.accept(till.reversal("r-3", "second"))
    assert await uses(till, "r-3") == [("top-1", -40 * PRICE), ("top-2", -30 * PRICE)]
    assert await till.budget(period_id=0) == (35 * PRICE + 50 * PRICE, False)
    assert await failing(till) == {}


async def test_purchases_and_their_returns_in_one_large_batch(open_till: OpenTill) -> None:
    till = await open_till(prepaid())
    await paid_in(till, *["1.10"] * 5)  # 500 points
    buys = [till.purchase(f"b-{n}", "3.00", card=f"card-{1 + n % 2}") for n in range(150)]
    backs = [till.reversal(f"r-{n}", f"b-{n}", amount="1.00") for n in range(0, 150, 3)]

    posted = await till.accept_all([*buys, *backs, till.purchase("last", "200.00")])

    assert posted[-1].points == 500 - 450 + 50
    assert await used(till) == [100 * PRICE] * 5
    assert await till.budget(period_id=0) == (500 * PRICE, True)
    assert await failing(till) == {}


async def test_a_float_does_not_end_with_the_period(open_till: OpenTill) -> None:
    till = await open_till(prepaid())
    await paid_in(till, "1.10")
    await till.accept(till.purchase("march", "70.00"))
    till.clock.to(2017, 4, 20)

    assert (await till.accept(till.purchase("april", "70.00"))).points == 30
    await till.accept(till.reversal("back", "march", amount="20.00"))

    assert await till.rows("SELECT period_id, limit_micro, consumed_micro FROM budget") == [(0, 1_100_000, 80 * PRICE)]
    assert await used(till) == [80 * PRICE]
    assert await till.rows("SELECT period_id, budget_micro FROM transaction WHERE budget_micro < 0") == [
        (APRIL, -20 * PRICE)
    ]


async def test_a_float_opens_with_what_its_file_says(open_till: OpenTill) -> None:
    till = await open_till(prepaid(limit="0.33"))

    assert (await till.accept(till.purchase("k", "20.00"))).points == 20
    await paid_in(till, "1.10")
    assert (await till.accept(till.purchase("k2", "20.00"))).points == 20

    midnight = datetime(2016, 12, 31, 23, tzinfo=UTC)
    assert await till.rows(
        "SELECT id = budget_id, amount_micro, used_micro, occurred_at < :now, entry_id IS NULL FROM float_block"
        " ORDER BY occurred_at",
        now=till.clock.now,
    ) == [(True, 330_000, 330_000, True, True), (False, 1_100_000, 10 * PRICE, True, False)]
    assert await till.rows("SELECT occurred_at FROM float_block WHERE id = budget_id") == [(midnight,)]
    assert await uses(till, "k2") == [(None, 10 * PRICE), ("top-1", 10 * PRICE)]


async def test_a_return_reaches_a_float_that_has_ended(open_till: OpenTill) -> None:
    plans: list[Table] = [float_of(to=Day("2017-03-31")), {"from": Day("2017-04-01"), "limit": "2.20"}]
    till = await open_till(coalition(partner("grocer", budgets=plans)))
    await paid_in(till, "1.10")
    await till.accept(till.purchase("march", "70.00"))
    till.clock.to(2017, 4, 20)
    await till.accept(till.purchase("april", "10.00"))

    await till.accept(till.reversal("back", "march", amount="20.00"))

    assert await till.rows("SELECT period_id, consumed_micro FROM budget ORDER BY 1") == [
        (0, 50 * PRICE),
        (APRIL, 10 * PRICE),
    ]
    assert await used(till) == [50 * PRICE]
    assert await uses(till, "back") == [("top-1", -20 * PRICE)]


async def test_a_float_takes_back_only_what_was_drawn_from_it(open_till: OpenTill) -> None:
    plans: list[Table] = [{"limit": "2.20"}, float_of(**{"from": Day("2017-04-01")})]
    till = await open_till(coalition(partner("grocer", budgets=plans)))
    await till.accept(till.purchase("march", "70.00"))
    till.clock.to(2017, 4, 20)
    await paid_in(till, "1.10")

    # On credit then, paid in advance now: the return frees no float, or it would hold what nobody paid in.
    posted = await till.accept(till.reversal("back", "march", amount="20.00"))

    assert window_of(posted).available_micro == 1_100_000
    assert await till.movements("back", "points", "budget_id", "budget_micro") == [(-20, None, 0)]
    assert await used(till) == [0]


async def test_pending_points_draw_on_blocks_when_they_are_confirmed(open_till: OpenTill) -> None:
    till = await open_till(coalition(partner("grocer", terms={"pending_days": 14}, budgets=float_of())))
    await paid_in(till, "0.55", "2.20")
    posted = await till.accept(till.purchase("k", "80.00"))
    assert (window_of(posted).reserved_micro, await used(till)) == (80 * PRICE, [0, 0])
    await till.accept(till.reversal("early", "k", amount="10.00"))
    assert await used(till) == [0, 0]
    till.clock.to(2017, 4, 20)

    await till.accept(till.burn("burn", 5))

    assert await used(till) == [50 * PRICE, 20 * PRICE]
    await till.accept(till.reversal("late", "k", amount="30.00"))
    assert sorted(await uses(till, "late")) == [("top-1", -10 * PRICE), ("top-2", -20 * PRICE)]
    assert await used(till) == [40 * PRICE, 0]
    assert await failing(till) == {}


async def test_an_alarm_ends_with_new_money(open_till: OpenTill) -> None:
    till = await open_till(prepaid(alert_at="0.80"))
    await paid_in(till, "1.10")

    await till.accept(till.purchase("k", "79.00"))
    assert await till.budget(period_id=0) == (79 * PRICE, False)
    crossed = till.clock.forward(minutes=1)
    await till.accept(till.purchase("k2", "1.00"))
    assert await till.budget(period_id=0) == (80 * PRICE, True)
    await top_up_budget(till.database, till.clock, top_up(till, "0.01", "more"))
    assert await till.budget(period_id=0) == (80 * PRICE, False)
    assert await till.rows("SELECT crossed_at, used_micro, limit_micro FROM budget_alert") == [
        (crossed, 80 * PRICE, 1_100_000)
    ]


async def test_two_tills_and_a_payment_at_once_leave_every_micro_unit_with_its_block(open_till: OpenTill) -> None:
    till = await open_till(prepaid())
    await paid_in(till, "1.10")
    async with queue_on(till.database, till.configuration) as other:
        ours = [till.purchase(f"a-{n}", "4.00", card="card-1") for n in range(30)]
        theirs = [other.purchase(f"b-{n}", "4.00", card="card-2") for n in range(30)]
        payments = [top_up(till, "0.22", f"more-{n}") for n in range(4)]
        answers = await asyncio.gather(
            till.queue.post_many(ours),
            other.queue.post_many(theirs),
            *(top_up_budget(till.database, till.clock, payment) for payment in payments),
        )

    granted = sum(one.points for answer in answers[:2] for one in answer if isinstance(one, Posted))
    assert (await till.budget(period_id=0))[0] == granted * PRICE
    assert sum(await used(till)) == granted * PRICE
    assert 100 <= granted <= 180
    assert await till.rows("SELECT limit_micro FROM budget") == [(180 * PRICE,)]
    assert await failing(till) == {}


# ---------------------------------------------------------------- what a forger or a faulty writer would leave


@pytest.mark.parametrize(
    ("change", "place", "numbers"),
    [
        ("UPDATE float_block SET used_micro = used_micro + 1", "used 660001, its uses sum to 660000", {11}),
        ("UPDATE float_use SET amount_micro = amount_micro + 1", "draws 660000 on float", {11}),
        ("UPDATE float_block SET amount_micro = amount_micro + 1", "its blocks hold 1100001", {11, 16}),
        ("UPDATE budget SET limit_micro = limit_micro + 1", "limit 1100001 and consumed 660000", {11}),
        ("DELETE FROM float_use", "used 660000, its uses sum to 0", {11}),
        ("DELETE FROM float_block", "which does not exist, sum to 660000", {11, 16}),
        ("UPDATE float_use SET partner_id = 2", "draws 660000 on float", {11}),
    ],
)
async def test_a_verification_names_what_does_not_add_up(
    database: Database, tamper: Tamper, change: str, place: str, numbers: set[int]
) -> None:
    async with till_on(database, prepaid()) as till:
        await till.enrolled("card-1")
        await paid_in(till, "1.10")
        await till.accept(till.purchase("k", "60.00"))
        assert await failing(till) == {}
        await tamper(change)

        found = await failing(till)

    # A block that a payment made is that payment's too.
    assert set(found) == numbers
    assert place in found[11]


async def test_an_empty_float_declines(open_till: OpenTill) -> None:
    till = await open_till(prepaid(on_limit="DECLINE"))
    await till.refuse(till.purchase("k"), RefusalCode.BUDGET_EXHAUSTED)

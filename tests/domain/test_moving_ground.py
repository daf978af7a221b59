"""What changes while a batch is on its way, at each of its steps: the configuration, the period, the clock."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from domain.commands import Posted, StoreRef
from domain.database import Database
from domain.errors import ConfigurationError, RefusalCode
from partners.apply import apply_coalition
from partners.coalition_file import parse_coalition
from tests.domain.books import check_books
from tests.domain.coalitions import Table, coalition, partner
from tests.domain.gates import STEPS, gate_before, one_inside_the_other
from tests.domain.tills import APRIL, MARCH, Till, by_reference, till_on
from tests.factories import apply_toml, fixed_clock

SHOPS = [f"shop-{number}" for number in range(len(STEPS))]
AFTER_THE_LOCK = STEPS[STEPS.index("load_state") :]
"""Steps that a batch takes under its advisory locks."""
BORDER = datetime(2017, 3, 31, 22, tzinfo=UTC)


def street(*changed: str) -> str:
    """A street of shops that give a point per euro; the changed ones give two."""
    rules: dict[bool, list[Table]] = {
        is_changed: [{"code": "base", "points_per_unit": "2" if is_changed else "1"}] for is_changed in (False, True)
    }
    return coalition(*(partner(shop, rules=rules[shop in changed]) for shop in SHOPS))


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    async with till_on(database, street()) as opened:
        await opened.enroll(opened.enrolment("card-1", partner="shop-0"))
        yield opened
    await check_books(database)


async def test_no_purchase_is_rated_by_rules_that_are_no_more(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[str] = []

    async def apply(shop: str) -> bool:
        try:
            await apply_coalition(till.database, parse_coalition(street(*changed, shop)), clock=fixed_clock())
        except ConfigurationError as error:
            # The purchase came first: what rated it may not change any more.
            assert f"{shop} from 2017-01-01 already awarded 1 transaction" in str(error)  # noqa: PT017 (one of two outcomes)
            return False
        changed.append(shop)
        return True

    for number, step in enumerate(STEPS):
        shop = SHOPS[number]
        purchase = till.queue.post(till.purchase(f"k{number}", "10.00", partner=shop))
        posted, is_applied, was_stopped = await one_inside_the_other(
            monkeypatch, step, till.queue, purchase, apply(shop)
        )
        assert isinstance(posted, Posted)
        assert posted.points == (20 if is_applied else 10), step
        assert is_applied == (was_stopped and step not in AFTER_THE_LOCK), step


async def test_a_queue_notices_the_next_configuration_by_itself(till: Till) -> None:
    assert (await till.accept(till.purchase("k", "10.00", partner="shop-0"))).points == 10
    assert till.queue._configuration.held == till.configuration
    changed = coalition(*(partner(shop) for shop in SHOPS), partner("new")).replace(
        'points_per_unit = "1"', 'points_per_unit = "1"\nto = 2017-03-15', 1
    )
    configuration = await apply_toml(till.database, changed)
    till.clock.forward(days=1)
    till.configuration = configuration

    # First of all by a partner that it has never heard of, at a store and with a return by reference.
    first, second = await till.accept_all(
        [
            till.purchase("k2", "10.00", partner="new", store=StoreRef(code="new-1")),
            till.reversal("v", by_reference("k2", store=StoreRef(code="new-1")), partner="new"),
        ]
    )
    assert (first.points, second.points) == (10, 10)
    assert till.queue._configuration.held == configuration
    assert (await till.accept(till.purchase("k3", "10.00", partner="shop-0"))).points == 0


async def test_a_batch_over_the_border_is_booked_where_its_time_says(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = BORDER - timedelta(seconds=1), BORDER + timedelta(seconds=1)

    async def midnight() -> None:
        till.clock.now = after

    for number, step in enumerate(STEPS):
        shop = SHOPS[number]
        till.clock.now = before
        # Each shop has a window of March already: the border must lead to April's.
        await till.accept(till.purchase(f"m{number}", "1.00", partner=shop))
        command = till.purchase(f"k{number}", "10.00", partner=shop)
        till.queue._known_periods.clear()
        posted, _, was_stopped = await one_inside_the_other(
            monkeypatch, step, till.queue, till.queue.post(command), midnight()
        )

        assert isinstance(posted, Posted)
        # The clock is read once the locks are there, right after load_state.
        is_later = was_stopped and step not in AFTER_THE_LOCK[1:]
        expected = (after, APRIL, 10) if is_later else (before, MARCH, 11)
        [(consumed_micro,)] = await till.rows(
            "SELECT consumed_micro FROM budget WHERE partner_id = :id AND period_id = :period",
            id=till.id_of(shop),
            period=expected[1],
        )
        assert (posted.command.recorded_at, posted.command.period_id, consumed_micro // 11_000) == expected, step


async def test_no_row_enters_a_period_that_began_to_close(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    # A period of its own for each step; closing waits for who posts into it, and posting goes past it.
    for number, step in enumerate(STEPS):
        till.clock.now = BORDER + timedelta(days=31 * number + 3)
        current = APRIL + number
        await till.accept(till.purchase(f"o{number}", "1.00", partner="shop-0"))

        async def close(period_id: int = current) -> None:
            async with till.database.posting() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(2, :period)"), {"period": period_id})
                await connection.execute(text("UPDATE period SET state = 'CLOSING' WHERE id = :id"), {"id": period_id})

        purchase = till.queue.post(till.purchase(f"k{number}", "10.00", partner="shop-0"))
        till.queue._known_periods.clear()
        posted, _, was_stopped = await one_inside_the_other(monkeypatch, step, till.queue, purchase, close())
        assert isinstance(posted, Posted)
        is_later = was_stopped and step not in AFTER_THE_LOCK
        assert posted.command.period_id == (current + 1 if is_later else current), step
        assert posted.command.recorded_at == till.clock.now
        # Not only that batch: all that comes now.
        assert (
            await till.accept(till.purchase(f"l{number}", "1.00", partner="shop-0"))
        ).command.period_id == current + 1


async def test_a_budget_window_belongs_to_the_period_of_the_booking(till: Till) -> None:
    await till.accept(till.purchase("march", "10.00", partner="shop-0"))
    async with till.database.posting() as connection:
        await connection.execute(text("UPDATE period SET state = 'CLOSING'"))
    posted = await till.accept(till.purchase("after", "20.00", partner="shop-0"))
    returned = await till.accept(till.reversal("v", "march", partner="shop-0"))

    assert (posted.command.period_id, returned.command.period_id) == (APRIL, APRIL)
    assert await till.budget("shop-0") == (110_000, False)
    assert await till.budget("shop-0", APRIL) == (110_000, False)
    assert await till.rows(
        "SELECT kind, amount_micro, prior_amount_micro FROM position WHERE period_id = :id ORDER BY 1", id=APRIL
    ) == [
        ("EARN_REVERSAL", 100_000, 100_000),
        ("ISSUE", -200_000, 0),
        ("POOL", 100_000, 0),
        ("SERVICE_FEE", -20_000, 0),
        ("SERVICE_FEE_REFUND", 10_000, 10_000),
    ]


async def test_a_member_who_leaves_while_a_purchase_is_on_its_way(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    with gate_before(monkeypatch, "load_members", till.queue) as gate:
        answer = asyncio.ensure_future(till.queue.post(till.purchase("k", partner="shop-0")))
        await gate.reached.wait()
        async with till.database.posting() as connection:
            await connection.execute(text("UPDATE member SET state = 'CLOSED'"))
        gate.open()
        refused = await answer
    assert not isinstance(refused, Posted)
    assert getattr(refused, "code", None) == RefusalCode.MEMBER_CLOSED

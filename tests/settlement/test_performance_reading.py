"""Reports read from a ledger: equal to plain Python over its rows, stored or not, on every border of a day."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count

import pytest
from sqlalchemy import text

from domain.commands import Command
from domain.database import PERFORMANCE_LOCK_CLASS, Database
from domain.values import OPERATOR_ID
from settlement.closing import close_period
from settlement.performance import Cell, Performance, ShownCell
from settlement.performance_reading import COALITION_SQLS, performance_report, store_closed_periods
from tests.domain.tills import Till, till_on
from tests.factories import COALITION_TOML
from tests.settlement.performance_oracle import Ledger, read_ledger

PARTNERS = ("grocer", "fuel", "restaurant")
JANUARY = 2017 * 12
RANGES = [
    (date(2017, 1, 1), date(2017, 12, 31)),
    (date(2017, 2, 1), date(2017, 2, 28)),
    (date(2017, 3, 1), date(2017, 3, 31)),
    (date(2017, 3, 26), date(2017, 3, 26)),  # the day that has 23 hours
    (date(2017, 2, 14), date(2017, 4, 2)),
    (date(2017, 4, 10), date(2017, 4, 20)),
    (date(2016, 1, 1), date(2016, 12, 31)),
]


JOINT = """
[[campaign]]
code = "joint"
name = "Three pay for all"
from = 2017-01-01
to = 2017-03-31
multiplier = "1.5"
funding = [
    { partner = "grocer", share = "0.5" }, { partner = "restaurant", share = "0.3" },
    { operator = true, share = "0.2" },
]
"""


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    poor = COALITION_TOML.replace('on_limit = "PARTIAL"', 'on_limit = "OPERATOR_FUNDED"') + JOINT
    async with till_on(database, poor.replace('limit = "250.00"', 'limit = "9.00"')) as opened:
        yield opened


def a_day(till: Till, number: int) -> Iterator[Command]:
    """A dozen purchases by changing members, some dated back into the month before; returns, burns and refunds."""
    for turn in range(12):
        card = f"card-{(number * 5 + turn * 7) % 30}"
        partner = PARTNERS[(number + turn * turn) % 3]
        happened = till.clock.now - timedelta(days=(number * turn) % 11, hours=(7 * turn) % 24)
        key = f"{number}-{turn}"
        yield till.purchase(key, f"{20 + (number * turn) % 40}.{turn:02}", card=card, partner=partner, at=happened)
        if turn % 4 == 1:
            yield till.reversal(f"{key}-back", key, partner=partner, amount=f"{turn}.50")
        if turn % 3 == 2:
            other = PARTNERS[(number // 3 + turn) % 3]
            yield till.burn(f"{key}-burn", 5 + turn, card=card, partner=other, at=happened)
            if turn == 5:
                yield till.reversal(f"{key}-refund", f"{key}-burn", partner=other, points=3)


async def quarter(till: Till) -> None:
    """From January to mid-April: members enrolled by all partners, and something every third day."""
    till.clock.to(2017, 1, 12, 20)
    numbers = count()
    while till.clock.now < datetime(2017, 4, 14, tzinfo=UTC):
        number = next(numbers)
        if number < 30:
            await till.enrolled(f"card-{number}", partner=PARTNERS[number % 3])
        await till.queue.post_many(list(a_day(till, number)))
        till.clock.forward(days=3, hours=1)


async def as_operator(till: Till, first: date, last: date, partner_id: int | None = None) -> Performance:
    return await performance_report(till.database, till.configuration.programme, OPERATOR_ID, partner_id, first, last)


async def assert_equal_to(till: Till, ledger: Ledger) -> None:
    for first, last in RANGES:
        for partner_id in (None, 1, 2, 3):
            found = await as_operator(till, first, last, partner_id)
            totals, members, cells = ledger.report(partner_id, first, last)
            assert (found.totals, found.members) == (totals, members), (first, last, partner_id)
            assert found.matrix == tuple(
                ShownCell(each.issuer_id, each.redeemer_id, each.points, each.value_micro) for each in cells
            )


async def stored_periods(till: Till) -> list[int]:
    return [row[0] for row in await till.rows("SELECT period_id FROM performance_period ORDER BY 1")]


async def test_reports_equal_plain_python_before_and_after_periods_close(till: Till) -> None:
    await quarter(till)
    ledger = await read_ledger(till.database, till.configuration.programme.zone)
    kinds = {row.kind for row in ledger.tables["transaction"]}
    assert kinds == {"EARN", "EARN_REVERSAL", "BURN", "BURN_REVERSAL"}
    commands = ledger.tables["command"]
    assert len(commands) > 300
    assert any(row.occurred_at.month < row.recorded_at.month for row in commands)
    assert any(row.kind == "EARN" and row.party_id == OPERATOR_ID for row in ledger.tables["transaction"])
    # Awards of one partner's tills that another pays for: charged to it, issued there, burned as its points.
    assert any(row.party_id not in (OPERATOR_ID, row.partner_id) for row in ledger.tables["transaction"])
    assert any(row.issuer_id == 3 and row.redeemer_id == 2 for row in ledger.tables["lot_use"])
    whole = await as_operator(till, *RANGES[0])
    assert min(whole.members.given, whole.members.received, whole.members.repeating) > 5
    assert len(whole.matrix) == 9
    await assert_equal_to(till, ledger)
    assert await stored_periods(till) == []
    till.clock.to(2017, 5, 2)
    for label in ("2017-01", "2017-02", "2017-03"):
        await close_period(till.database, till.clock, label, label)
    await assert_equal_to(till, ledger)
    assert await stored_periods(till) == [JANUARY, JANUARY + 1, JANUARY + 2]
    # What happened in a closed month and is booked later counts by its day all the same.
    till.clock.to(2017, 4, 15)
    late = datetime(2017, 3, 26, 12, tzinfo=UTC)
    await till.accept(till.purchase("late", "77.00", card="card-3", partner="fuel", at=late))
    assert (await as_operator(till, date(2017, 3, 26), date(2017, 3, 26), 2)).totals.purchases >= 1
    await assert_equal_to(till, await read_ledger(till.database, till.configuration.programme.zone))


async def test_members_who_are_one_person_count_once(till: Till) -> None:
    await quarter(till)
    programme, year = till.configuration.programme, RANGES[0]
    apart = await as_operator(till, *year)
    for number in range(10):
        await till.accept(till.merge(f"m-{number}", f"card-{number}", f"card-{number + 10}"))
    # A merge of who stands for another: three are one.
    await till.accept(till.merge("m-again", "card-20", "card-0"))
    together = await as_operator(till, *year)
    assert apart.members.active - together.members.active == apart.members.new - together.members.new == 11
    assert together.totals == apart.totals
    await assert_equal_to(till, await read_ledger(till.database, programme.zone))
    till.clock.to(2017, 5, 2)
    for label in ("2017-01", "2017-02", "2017-03"):
        await close_period(till.database, till.clock, label, label)
    ledger = await read_ledger(till.database, programme.zone)
    await assert_equal_to(till, ledger)
    assert await stored_periods(till) == [JANUARY, JANUARY + 1, JANUARY + 2]
    async with till.database.reading(OPERATOR_ID) as connection:
        unstored = [JANUARY + 3, JANUARY + 4]
        days = {"from_day": year[0], "to_day": year[1], "zone": programme.timezone}
        parameters = {"period_ids": unstored, **days}
        cells = [Cell(*map(int, row)) for row in await connection.execute(COALITION_SQLS[2], parameters)]
    # How many stand behind a cell decides whether a partner may see it.
    assert cells == ledger.report(None, *year)[2]


async def test_a_closed_period_is_stored_once_and_then_not_read_again(till: Till) -> None:
    await quarter(till)
    till.clock.to(2017, 5, 2)
    await close_period(till.database, till.clock, "2017-01", "key")
    programme = till.configuration.programme
    for _ in range(2):
        await store_closed_periods(till.database, programme)
    assert await stored_periods(till) == [JANUARY]
    month = date(2017, 1, 1), date(2017, 1, 31)
    before = await as_operator(till, *month)
    assert before.totals.purchases
    async with till.database.posting() as connection:
        stored = (await connection.execute(text("SELECT sum(purchases) FROM performance_total"))).scalar_one()
    ledger = await read_ledger(till.database, programme.zone)
    booked = [row for row in ledger.tables["command"] if row.period_id == JANUARY and row.kind == "EARN"]
    assert stored == len(booked)


async def test_a_report_does_not_wait_for_who_is_storing(till: Till) -> None:
    await quarter(till)
    till.clock.to(2017, 5, 2)
    await close_period(till.database, till.clock, "2017-01", "key")
    ledger = await read_ledger(till.database, till.configuration.programme.zone)
    async with till.database.posting() as other:
        await other.execute(text(f"SELECT pg_advisory_xact_lock({PERFORMANCE_LOCK_CLASS}, 0)"))
        await assert_equal_to(till, ledger)
        assert await stored_periods(till) == []
    await assert_equal_to(till, ledger)
    assert await stored_periods(till) == [JANUARY]


BERLIN_DAYS = [
    # First instant, and first instant after: the days on which clocks change, and an ordinary one.
    (date(2017, 3, 26), datetime(2017, 3, 25, 23, tzinfo=UTC), datetime(2017, 3, 26, 22, tzinfo=UTC)),
    (date(2017, 10, 29), datetime(2017, 10, 28, 22, tzinfo=UTC), datetime(2017, 10, 29, 23, tzinfo=UTC)),
    (date(2017, 7, 1), datetime(2017, 6, 30, 22, tzinfo=UTC), datetime(2017, 7, 1, 22, tzinfo=UTC)),
]


@pytest.mark.parametrize(("day", "begins", "ends"), BERLIN_DAYS)
async def test_a_day_is_local_and_has_its_own_length(till: Till, day: date, begins: datetime, ends: datetime) -> None:
    instant = timedelta(microseconds=1)
    moments = {"eve": begins - instant, "first": begins, "last": ends - instant, "next": ends}
    for card, moment in moments.items():
        till.clock.now = moment
        await till.enrolled(card, partner="grocer")
        await till.accept(till.purchase(f"{card}-p", card=card, partner="fuel"))
    for days, expected in (((day, day), 2), ((day - timedelta(days=1), day + timedelta(days=1)), 4)):
        for partner_id in (1, 2):
            found = await as_operator(till, *days, partner_id)
            enrolled_by, bought_at = (expected, 0) if partner_id == 1 else (0, expected)
            assert (found.members.new, found.members.given) == (enrolled_by, enrolled_by)
            assert (found.totals.purchases, found.members.active) == (bought_at, bought_at)


async def test_a_partner_has_its_own_totals_and_a_crowds_traffic(till: Till) -> None:
    """Nineteen members tell nothing of who sent them, twenty do."""
    month = date(2017, 3, 1), date(2017, 3, 31)
    programme = till.configuration.programme
    for number in range(20):
        card = f"card-{number}"
        await till.enrolled(card, partner="grocer")
        await till.accept(till.purchase(f"g{number}", card=card, partner="grocer"))
        till.clock.forward(minutes=1)
        await till.accept(till.purchase(f"f{number}", card=card, partner="fuel"))
        await till.accept(till.burn(f"b{number}", 10, card=card, partner="fuel"))
        if number < 18:
            continue
        is_crowd = number == 19
        grocer = await performance_report(till.database, programme, 1, 1, *month)
        fuel = await performance_report(till.database, programme, 2, 2, *month)
        operator = await as_operator(till, *month)
        members = number + 1
        assert (grocer.members.new, grocer.members.active, fuel.members.active) == (members,) * 3
        assert (operator.members.given, operator.members.received) == (members, members)
        assert (grocer.members.given, fuel.members.received) == ((20, 20) if is_crowd else (0, 0))
        assert ("trafficGiven" in grocer.suppressed, "trafficReceived" in fuel.suppressed) == (not is_crowd,) * 2
        # The burns took the grocer's lots, which expire no later than the station's and are older.
        assert [(c.issuer_id, c.redeemer_id, c.points) for c in operator.matrix] == [(1, 2, 10 * members)]
        assert [c.value_micro for c in operator.matrix] == [10 * members * 9_200]
        assert [(c.issuer_id, c.redeemer_id) for c in grocer.matrix] == ([(1, 2)] if is_crowd else [])
        assert [c.value_micro for c in grocer.matrix] == ([200 * 10_000] if is_crowd else [])
        assert [c.value_micro for c in fuel.matrix] == ([200 * 9_200] if is_crowd else [])


async def test_no_partner_reads_the_stored_facts(till: Till) -> None:
    await quarter(till)
    till.clock.to(2017, 5, 2)
    await close_period(till.database, till.clock, "2017-01", "key")
    await store_closed_periods(till.database, till.configuration.programme)
    for table in ("total", "activity", "first", "burn", "period"):
        sees_rows = {}
        for viewer_id in (OPERATOR_ID, 1, 2):
            async with till.database.reading(viewer_id) as connection:
                found = await connection.execute(text(f"SELECT count(*) FROM performance_{table}"))
                sees_rows[viewer_id] = found.scalar_one() > 0
        assert sees_rows == {OPERATOR_ID: True, 1: False, 2: False}, table

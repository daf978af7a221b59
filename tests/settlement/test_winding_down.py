"""The end of a programme: from the last purchase to a pool of nothing, and final statements for everybody."""

from typing import Any

import pytest

from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.expiry_notices import expiring_page
from domain.reading import members_by_id
from settlement.closing import close_period
from settlement.lines import Outstanding
from settlement.reading import period_figures, statements_of_periods
from settlement.verifying import verify
from tests.domain.books import contents
from tests.domain.coalitions import Day, coalition, partner
from tests.domain.tills import MARCH, Till
from tests.settlement.test_leaving import FUEL_TERMS, closed, opened, sweep_all

APRIL, MAY = MARCH + 1, MARCH + 2
ENDED = RefusalCode.PROGRAMME_ENDED
MINUTES_PER_DAY = 24 * 60


def ending(**values: Any) -> str:
    """Two partners; points are issued until 31 March and burned until 10 May, and would live for two years."""
    days = {"issue_ends": Day("2017-03-31"), "burn_ends": Day("2017-05-10")}
    return coalition(
        partner("grocer", starts="2017-02-01", terms={"pending_days": 60}),
        partner("fuel", starts="2017-02-01", terms=FUEL_TERMS, risk="PAID_FIRST"),
        partner("cafe", starts="2017-02-01", terms={"fixed_fee": "0"}),
        **{**days, "minimum_settlement": "10.00", "hold_minutes": 30 * MINUTES_PER_DAY, **values},
    )


async def balance(till: Till) -> tuple[int, int, int]:
    """Available, pending and held points of the first member, as shown."""
    member_id = till.members["card-1"].member_id
    async with till.database.reading(0) as connection:
        shown = (await members_by_id(connection, [member_id], till.clock.now))[member_id].balance
    return shown.available, shown.pending, shown.held


async def test_the_pool_runs_to_nothing_with_holds_and_pending_points_open(database: Database) -> None:
    async with opened(database, ending()) as till:
        till.clock.to(2017, 3, 20)
        await till.accept(till.purchase("used", "100.00", partner="cafe"))
        await till.accept(till.purchase("waits for its window", "200.00"))
        await till.accept(till.purchase("waits for its money", "50.00", partner="fuel"))
        till.clock.to(2017, 4, 1)
        await till.refuse(till.purchase("k", partner="cafe"), ENDED)
        await till.refuse(till.enrolment("card-9"), ENDED)
        await closed(till, 2, 3)
        till.clock.to(2017, 5, 9)
        await till.accept(till.authorization("hold", 30))
        await till.accept(till.burn("last", 25, partner="cafe"))
        last_minute = till.clock.to(2017, 5, 10, 21, 59)
        await till.accept(till.burn("very last", 5, partner="cafe"))
        assert await sweep_all(till) == 0
        assert await balance(till) == (40, 250, 30)

        till.clock.to(2017, 5, 10, 22)
        # Nobody swept yet: what is shown and what may be burned are nothing all the same.
        assert (await balance(till))[0] == 0
        await till.refuse(till.burn("k", 1, card="card-2"), ENDED)
        await till.refuse(till.burn("k", 1, card="card-2", at=last_minute), ENDED)
        await till.refuse(till.purchase("k", partner="cafe", at=last_minute), ENDED)
        await till.refuse(till.transfer("k", 1), RefusalCode.INSUFFICIENT_POINTS, "points")
        till.clock.to(2017, 5, 12)
        # A refund is taken still; its points are past at once, without days of grace.
        assert (await till.accept(till.reversal("refund", "last", partner="cafe", points=10))).balance.available == 0
        till.clock.to(2017, 6, 1)
        before = await contents(database)
        await close_period(database, till.clock, "2017-04", "close-4")
        with pytest.raises(Refused) as refused:
            await close_period(database, till.clock, "2017-05", "close-5")
        assert refused.value.code == RefusalCode.POINTS_OPEN
        assert (await contents(database))["transaction"] == before["transaction"]

        till.clock.to(2017, 5, 12)
        assert await sweep_all(till) == 1
        assert await balance(till) == (0, 0, 0)
        rows = "SELECT t.kind, t.party_id, t.points, t.pool_value_micro, c.occurred_at FROM transaction AS t"
        ended_at = till.clock.to(2017, 5, 10, 22)
        assert await till.rows(
            f"{rows} JOIN command AS c ON c.id = t.command_id WHERE c.idempotency_key LIKE 'system:%' ORDER BY t.id"
        ) == [
            # 40 were left and 10 came back; then the 30 that were held.
            ("EXPIRE", 3, -40, -400_000, ended_at),
            ("RELEASE", 1, 30, 0, ended_at),
            ("EXPIRE", 3, -10, -100_000, ended_at),
            ("CANCEL", 1, -200, 0, till.clock.to(2017, 5, 12)),
            ("CANCEL", 2, -50, 0, till.clock.now),
            ("EXPIRE", 3, -30, -300_000, ended_at),
        ]
        assert await till.rows("SELECT DISTINCT reserved_micro FROM budget") == [(0,)]
        await closed(till, 5)
        await nothing_is_left(till)


async def nothing_is_left(till: Till) -> None:
    """What the last close of that programme proves, and that nothing comes after it."""
    assert await till.rows("SELECT label, pool_micro FROM period ORDER BY id DESC LIMIT 1") == [("2017-05", 0)]
    may = (await period_figures(till.database, [MAY]))[MAY]
    # 100 points of the cafe leave the pool: 20 burned at 0.0090, 80 expired, half of that to the cafe.
    assert (may.pool_change_micro, may.margin_micro) == (-1_000_000, 20 * 1_000 + 400_000)
    found = (await statements_of_periods(till.database, 0, [MAY]))[MAY]
    # No fixed fee for a month in which the programme ended, and nothing is left over, however little.
    nothing = Outstanding(0, 0)
    assert [(one.partner_id, one.net_minor, one.due_minor, one.outstanding) for one in found] == [
        (1, 0, 0, nothing),
        (2, 0, -900, nothing),
        (3, 58, -52, nothing),
    ]
    till.clock.to(2017, 6, 3)
    late = till.reversal("late", "very last", partner="cafe")
    refusal = await till.refuse(late, ENDED)
    assert refusal.message == "the programme ended on 2017-05-10, and everything is settled: ask the operator"
    await closed(till, 6)
    assert await till.rows(f"SELECT count(*) FROM statement WHERE period_id > {MAY}") == [(0,)]
    assert (await verify(till.database, till.clock)).holds


async def test_a_late_sweep_takes_no_breakage_share_from_anybody(database: Database) -> None:
    async with opened(database, ending()) as till:
        till.clock.to(2017, 3, 20)
        await till.accept(till.purchase("k", "100.00", partner="cafe"))
        # Nobody sweeps in May, in which the programme ends.
        till.clock.to(2017, 6, 1)
        await closed(till, 2, 3, 4)
        assert await sweep_all(till) == 1
        await closed(till, 5)
        till.clock.to(2017, 7, 1)
        await closed(till, 6)
        june = (await statements_of_periods(till.database, 0, [MAY + 1]))[MAY + 1]
        # 1.00 leaves the pool: half of it is the cafe's by contract, on another final statement.
        assert [(one.partner_id, one.net_minor, one.due_minor, one.outstanding) for one in june] == [
            (3, 50, 50, Outstanding(0, 0))
        ]
        assert await till.rows("SELECT label, pool_micro FROM period ORDER BY id DESC LIMIT 1") == [("2017-06", 0)]
        assert (await verify(till.database, till.clock)).holds


async def test_members_are_told_of_the_end(database: Database) -> None:
    async with opened(database, ending()) as till:
        till.clock.to(2017, 3, 20)
        await till.accept(till.purchase("k", "100.00", partner="cafe"))
        end = till.clock.to(2017, 5, 10, 22)
        till.clock.to(2017, 5, 1)
        async with database.reading(0) as connection:
            early = await expiring_page(connection, till.clock.now, end, after=None, limit=10)
            notices = await expiring_page(connection, till.clock.now, till.clock.to(2017, 5, 20), after=None, limit=10)
        assert (early, [(one.points, [each.at for each in one.expiries]) for one in notices]) == ([], [(100, [end])])
        # Points that only wait for their date, or are all held, are found by it alone.
        till.clock.to(2017, 5, 9)
        await till.accept(till.transfer("t", 40, target="card-2"))
        await till.accept(till.authorization("h", 40, card="card-2"))
        till.clock.to(2017, 5, 12)
        assert await sweep_all(till) == 2
        assert await till.rows("SELECT sum(available + held) FROM account") == [(0,)]


async def test_what_was_due_before_the_end_is_charged_however_late(database: Database) -> None:
    async with opened(database, ending()) as till:
        till.clock.to(2017, 3, 1)
        await till.accept(till.purchase("k", "200.00"))
        till.clock.to(2017, 5, 12)
        # Usable since 1 May, and never burned.
        assert await sweep_all(till) == 1
        kinds = "SELECT kind, points, pool_value_micro FROM transaction ORDER BY id"
        assert await till.rows(kinds) == [
            ("EARN_PENDING", 200, 0),
            ("CONFIRM", 200, 2_000_000),
            ("EXPIRE", -200, -2_000_000),
        ]
        await closed(till, 2, 3, 4, 5)

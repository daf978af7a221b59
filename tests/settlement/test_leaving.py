"""A partner that leaves, until nothing is left between it and the operator: its statements to the last digit."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domain.commands import ConfirmPayment, OriginalRef, Sweep, Swept
from domain.database import Database
from domain.errors import RefusalCode
from domain.positions import LineKind
from domain.sweeping import NOTHING_YET, due_accounts
from domain.values import OPERATOR_ID
from settlement.closing import close_period
from settlement.finals import OUTSTANDING_SQL
from settlement.lines import Outstanding
from settlement.reading import SettlementStatement, lines_of_statements, period_figures, statements_of_periods
from settlement.verifying import verify
from tests.domain.books import check_books
from tests.domain.coalitions import Day, campaign, coalition, partner
from tests.domain.tills import MARCH, Till, till_on

Tamper = Callable[[str], Awaitable[None]]
FEBRUARY, APRIL, MAY, JUNE = MARCH - 1, MARCH + 1, MARCH + 2, MARCH + 3
FUEL = 2
FUEL_TERMS = {
    "issue_price": "0.010500",
    "service_fee": "0.001200",
    "reimbursement": "0.009200",
    "breakage_share": "0.25",
    "fixed_fee": "3.00",
}


def leaving(*more: str, **values: Any) -> str:
    """A grocer, and a fuel station that leaves on 20 March and runs off until 10 May; points live for three months."""
    terms = {**FUEL_TERMS, **values.pop("terms", {})}
    days: dict[str, Any] = {"leaves_on": Day("2017-03-20"), "run_off_until": Day("2017-05-10")}
    return coalition(
        partner("grocer", starts="2017-02-01", **values.pop("grocer", {})),
        partner("fuel", starts="2017-02-01", terms=terms, **days, **values),
        *more,
        expiry_months=3,
        minimum_settlement="10.00",
    )


@asynccontextmanager
async def opened(database: Database, toml: str) -> AsyncIterator[Till]:
    """A till on 1 February, with two members; afterwards the books must balance, and verify must hold."""
    async with till_on(database, toml, at=datetime(2017, 2, 1, 12, tzinfo=UTC)) as till:
        await till.enrolled("card-1", "card-2")
        yield till
    await check_books(database)
    # What rows say of outstanding points is what lots say, once nothing is posted any more.
    lots = "SELECT sum(remaining + reserved), sum((remaining + reserved) * price_micro) FROM lot WHERE funder_id = :id"
    async with database.posting() as connection:
        for id_, points, value_micro in await connection.execute(
            OUTSTANDING_SQL, {"ids": [1, FUEL], "period_id": 99999}
        ):
            open_points, open_micro = (await connection.execute(text(lots), {"id": id_})).one()
            assert (points, value_micro) == (open_points or 0, open_micro or 0)
    report = await verify(database, till.clock)
    assert [check for check in report.checks if not check.holds] == []


async def closed(till: Till, *months: int) -> None:
    """Closes these months of 2017, each on the first day after it, or now where that is later."""
    for month in months:
        till.clock.now = max(till.clock.now, datetime(2017, month + 1, 1, 12, tzinfo=UTC))
        await close_period(till.database, till.clock, f"2017-{month:02d}", f"close-{month}")


async def sweep_all(till: Till) -> int:
    """Sweeps whatever is due, as the worker does; answers how many accounts that were."""
    due = {found.account_id for found in await due_accounts(till.database, till.clock.now, NOTHING_YET, 100)}
    for account_id in sorted(due):
        assert isinstance(await till.queue.post(Sweep(account_id)), Swept)
    assert await due_accounts(till.database, till.clock.now, NOTHING_YET, 100) == []
    return len(due)


async def statement(till: Till, period_id: int, viewer_id: int = OPERATOR_ID) -> SettlementStatement | None:
    """The fuel station's statement of that period."""
    found = (await statements_of_periods(till.database, viewer_id, [period_id]))[period_id]
    return next((one for one in found if one.partner_id == FUEL), None)


async def billed(till: Till, period_id: int) -> dict[LineKind, int]:
    """The lines of the fuel station's statement, in cents."""
    key = (period_id, FUEL)
    return {line.kind: line.billed_minor for line in (await lines_of_statements(till.database, 0, [key]))[key]}


def sums(one: SettlementStatement | None) -> tuple[int, int, int, int, Outstanding | None]:
    """Net, carried in, carried on, due, and what is outstanding on a final one."""
    assert one is not None
    return one.net_minor, one.carried_in_minor, one.carried_on_minor, one.due_minor, one.outstanding


async def test_an_exit_over_four_closes(database: Database) -> None:
    async with opened(database, leaving()) as till:
        await till.accept(till.purchase("february", "1000.00", partner="fuel"))
        await closed(till, 2)
        # 1,000 points at 0.0105 and 0.0012, and the fixed fee.
        assert sums(await statement(till, FEBRUARY)) == (-1_470, 0, 0, -1_470, None)

        till.clock.to(2017, 3, 15)
        await till.accept(till.purchase("march", "200.00", partner="fuel", card="card-2"))
        await closed(till, 3)
        # No fixed fee any more. Too little to be paid: it is left to the next statement.
        assert await billed(till, MARCH) == {
            LineKind.ISSUE: -210, LineKind.SERVICE_FEE: -24, LineKind.CARRIED_FORWARD: 234,
        }  # fmt: skip
        assert sums(await statement(till, MARCH)) == (-234, 0, -234, 0, None)

        till.clock.to(2017, 4, 10)
        await till.accept(till.reversal("return", "march", partner="fuel", amount="50.00"))
        await till.accept(till.burn("elsewhere", 350))
        await till.accept(till.reversal("refund", "elsewhere", points=50))
        await closed(till, 4)
        # 50 points come back at March's terms: 0.525, half to even, and 0.06.
        assert sums(await statement(till, APRIL)) == (58, -234, -176, 0, None)

        till.clock.to(2017, 5, 3)
        assert await sweep_all(till) == 1
        till.clock.to(2017, 5, 28)
        await till.accept(till.authorization("held", 40, card="card-2"))
        await till.accept(till.purchase("other", "1.00"))
        # While it is open everybody sees what is its own.
        draft = (84 + 100, -176, 0, 8, Outstanding(150, 1_575_000))
        assert sums(await statement(till, MAY)) == draft
        assert sums(await statement(till, MAY, FUEL)) == draft
        assert await statement(till, MAY, viewer_id=1) is None
        await closed(till, 5)
        # 700 points of February expired: a quarter of 7.35. Eight cents are below the minimum, and due all the same.
        assert await billed(till, MAY) == {LineKind.BREAKAGE_SHARE: 184, LineKind.CARRIED_FORWARD: -176}
        assert sums(await statement(till, MAY)) == (184, -176, 0, 8, Outstanding(150, 1_575_000))
        assert sums(await statement(till, MAY, FUEL))[4] == Outstanding(150, 1_575_000)

        # Its points live on elsewhere; what expires of them now is the operator's.
        await till.accept(till.capture("taken", "held", 40))
        till.clock.to(2017, 6, 20)
        assert await sweep_all(till) == 1
        expiries = "SELECT partner_id, party_id, points, breakage_share_micro, pool_value_micro FROM transaction"
        assert await till.rows(f"{expiries} WHERE kind = 'EXPIRE' ORDER BY id") == [
            (FUEL, FUEL, -700, 1_837_500, -7_350_000),
            (FUEL, OPERATOR_ID, -110, 0, -1_155_000),
        ]
        await closed(till, 6)
        assert await statement(till, JUNE) is None
        assert await till.rows("SELECT period_id, partner_id FROM final_statement") == [(MAY, FUEL)]
        june = (await period_figures(database, [JUNE]))[JUNE]
        # Pool: 40 burned and 110 expired, at 0.0105. Margin: 40 x (0.0105 - 0.0090), and 110 x 0.0105.
        assert (june.pool_change_micro, june.margin_micro) == (-1_575_000, 60_000 + 1_155_000)


async def test_a_final_statement_comes_without_anything_booked(database: Database) -> None:
    async with opened(database, leaving()) as till:
        till.clock.to(2017, 3, 15)
        await till.accept(till.purchase("k", "100.00", partner="fuel"))
        await closed(till, 2, 3, 4, 5)
        assert [sums(await statement(till, period_id)) for period_id in (FEBRUARY, MARCH, MAY)] == [
            (-300, 0, -300, 0, None),
            (-117, -300, -417, 0, None),
            (0, -417, 0, -417, Outstanding(100, 1_050_000)),
        ]
        assert await statement(till, APRIL) is None
        assert await billed(till, MAY) == {LineKind.CARRIED_FORWARD: -417}


async def test_a_final_statement_of_nothing_at_all(database: Database) -> None:
    async with opened(database, leaving(terms={"fixed_fee": "0"})) as till:
        await closed(till, 2, 3, 4, 5, 6)
        assert sums(await statement(till, MAY)) == (0, 0, 0, 0, Outstanding(0, 0))
        assert await till.rows("SELECT count(*) FROM statement WHERE partner_id = 2") == [(1,)]


async def test_points_of_an_award_that_nobody_will_pay_lapse_uncharged(database: Database) -> None:
    async with opened(database, leaving(risk="PAID_FIRST", terms={"fixed_fee": "0"})) as till:
        till.clock.to(2017, 3, 15)
        for key in ("paid", "unpaid"):
            await till.accept(till.purchase(key, "100.00", partner="fuel"))
        till.clock.to(2017, 5, 10)
        await till.accept(ConfirmPayment(FUEL, "money", OriginalRef(key="paid"), till.clock.now))
        till.clock.to(2017, 5, 11)
        late = ConfirmPayment(FUEL, "late", OriginalRef(key="unpaid"), till.clock.now)
        await till.refuse(late, RefusalCode.PARTNER_LEFT)
        assert await sweep_all(till) == 0
        await closed(till, 2, 3, 4, 5)
        account_id = till.members["card-1"].account_id
        assert await till.queue.post(Sweep(account_id)) == Swept(account_id, lapsed_awards=1, lapsed_points=100)
        rows = "SELECT kind, points, pool_value_micro, period_id FROM transaction ORDER BY id"
        assert await till.rows(rows) == [
            ("EARN_PENDING", 100, 0, MARCH),
            ("EARN_PENDING", 100, 0, MARCH),
            ("CONFIRM", 100, 1_050_000, MAY),
            ("CANCEL", -100, 0, JUNE),
        ]
        columns = "kind, partner_id, amount_minor, points, occurred_at, idempotency_key LIKE 'system:lapse:%'"
        assert await till.rows(f"SELECT {columns} FROM command WHERE period_id = {JUNE}") == [
            ("REVERSAL", FUEL, 0, None, till.clock.now, True)
        ]
        assert await till.rows("SELECT DISTINCT reserved_micro FROM budget") == [(0,)]
        # Swept again, nothing is found.
        assert await sweep_all(till) == 0
        assert await till.queue.post(Sweep(account_id)) == Swept(account_id)
        await closed(till, 6)
        assert await statement(till, JUNE) is None


async def test_what_lapsed_of_a_purchase_is_not_missing_when_it_is_returned(database: Database) -> None:
    bonus = campaign("spring", ("fuel", "1"), bonus_points=50)
    async with opened(database, leaving(bonus, grocer={"terms": {"pending_days": 120}})) as till:
        till.clock.to(2017, 3, 15)
        await till.accept(till.purchase("k", "100.00"))
        till.clock.to(2017, 6, 2)
        assert await sweep_all(till) == 1
        movements = "SELECT kind, party_id, points, shortfall_points FROM transaction ORDER BY id"
        before = [("EARN_PENDING", 1, 100, 0), ("EARN_PENDING", FUEL, 50, 0), ("CANCEL", FUEL, -50, 0)]
        assert await till.rows(movements) == before
        some = await till.accept(till.reversal("some", "k", amount="40.00"))
        rest = await till.accept(till.reversal("rest", "k"))
        assert [(one.points, one.shortfall_points, one.balance.pending) for one in (some, rest)] == [
            (40, 0, 60),
            (60, 0, 0),
        ]
        assert (await till.accept(till.reversal("rest", "k"))).points == 60
        assert [row for row in await till.rows(movements) if row[1] == FUEL] == [
            *before[1:],
            ("CANCEL", FUEL, 0, 0),
        ]


async def test_nobody_is_left_to_say_that_the_money_came_in(database: Database) -> None:
    bonus = campaign("spring", ("grocer", "1"), bonus_points=50)
    async with opened(database, leaving(bonus, risk="PAID_FIRST", terms={"fixed_fee": "0"})) as till:
        till.clock.to(2017, 3, 15)
        await till.accept(till.purchase("k", "0.50", partner="fuel"))
        till.clock.to(2017, 6, 2)
        assert await sweep_all(till) == 1
        movements = "SELECT kind, party_id, points FROM transaction ORDER BY id"
        assert await till.rows(movements) == [("EARN", FUEL, 0), ("EARN_PENDING", 1, 50), ("CANCEL", 1, -50)]
        await closed(till, 2, 3, 4, 5)


async def test_a_bonus_waits_for_its_funder_where_the_till_s_partner_has_left(database: Database) -> None:
    bonus = campaign("spring", ("grocer", "1"), bonus_points=50)
    plain = leaving(bonus, grocer={"risk": "PAID_FIRST"}, terms={"fixed_fee": "0"})
    async with opened(database, plain) as till:
        till.clock.to(2017, 3, 15)
        await till.accept(till.purchase("k", "0.50", partner="fuel"))
        await till.accept(till.purchase("never", "0.50", partner="fuel"))
        await closed(till, 2, 3, 4, 5)
        # The grocer still owes its bonus; that the fuel station is gone is no fault of it, nor of the member.
        till.clock.to(2017, 6, 2)
        assert await sweep_all(till) == 0
        paid = await till.accept(ConfirmPayment(FUEL, "money", OriginalRef(key="k"), till.clock.now))
        assert (paid.points, paid.balance.available, paid.balance.pending) == (50, 50, 50)
        rows = (
            "SELECT kind, party_id, points, issue_value_micro, period_id FROM transaction WHERE points <> 0 ORDER BY id"
        )
        assert await till.rows(rows) == [
            ("EARN_PENDING", 1, 50, 0, MARCH),
            ("EARN_PENDING", 1, 50, 0, MARCH),
            ("CONFIRM", 1, 50, -500_000, JUNE),
        ]
        await till.refuse(ConfirmPayment(FUEL, "again", OriginalRef(key="k"), till.clock.now), RefusalCode.PARTNER_LEFT)
        await closed(till, 6)
        assert await statement(till, JUNE) is None
        assert await till.rows("SELECT period_id, partner_id FROM final_statement") == [(MAY, FUEL)]


async def test_a_job_that_is_late_takes_nothing_from_the_member(database: Database) -> None:
    async with opened(database, leaving(terms={"pending_days": 30, "fixed_fee": "0"})) as till:
        till.clock.to(2017, 3, 15)
        await till.accept(till.purchase("k", "100.00", partner="fuel"))
        await closed(till, 2, 3, 4, 5)
        till.clock.to(2017, 6, 5)
        # Due since 15 April, and confirmed by the burn only now.
        await till.accept(till.burn("b", 30))
        await closed(till, 6)
        # Whatever comes after the final statement is another one: nothing is left over, however little it is.
        assert sums(await statement(till, MAY)) == (0, 0, 0, 0, Outstanding(0, 0))
        assert sums(await statement(till, JUNE)) == (-117, 0, 0, -117, Outstanding(70, 735_000))


async def failing(till: Till) -> dict[int, str]:
    """What verify finds wrong, by invariant."""
    return {check.number: check.detail for check in (await verify(till.database, till.clock)).checks if not check.holds}


async def test_verify_finds_a_final_statement_that_is_none(database: Database, tamper: Tamper) -> None:
    async with opened(database, leaving()) as till:
        till.clock.to(2017, 3, 15)
        await till.accept(till.purchase("k", "100.00", partner="fuel"))
        await closed(till, 2, 3, 4, 5)
        await tamper("UPDATE partner SET leaves_on = NULL, run_off_until = NULL WHERE id = 2")
        assert "statement of fuel for 2017-05 has no entries" in (await failing(till))[8]
        await tamper("UPDATE partner SET leaves_on = '2017-03-20', run_off_until = '2017-05-10' WHERE id = 2")
        assert await failing(till) == {}
        where = "statement of fuel for 2017-05: final with"
        made = "instead of Outstanding(points=100, value_micro=1050000)"
        await tamper("UPDATE final_statement SET outstanding_points = 99")
        sealed = "final_statement 24208 2 was changed: outstanding_points"
        assert await failing(till) == {8: f"{where} Outstanding(points=99, value_micro=1050000) {made}; {sealed}"}
        await tamper("DELETE FROM final_statement")
        found = await failing(till)
        assert (set(found), found[8]) == ({8, 16}, f"{where} None {made}; final_statement 24208 2 is gone")
        await tamper(f"INSERT INTO final_statement VALUES ({MAY}, 2, 100, 1050000)")


async def test_a_final_statement_is_written_while_closing_and_stays(database: Database, tamper: Tamper) -> None:
    async with opened(database, leaving()) as till:
        await closed(till, 2, 3, 4, 5)
        for sql, why in (
            ("UPDATE final_statement SET outstanding_points = 1", "permission denied"),
            (f"INSERT INTO final_statement VALUES ({MAY}, 1, 0, 0)", f"period {MAY} is not CLOSING"),
        ):
            with pytest.raises(DBAPIError, match=why):
                async with database.posting() as connection:
                    await connection.execute(text(sql))

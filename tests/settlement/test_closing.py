"""The life of a close: order and time, replays, crashes between its transactions, two at once, and what stays shut."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from domain.database import Database, constraint_name
from domain.errors import RefusalCode, Refused
from domain.ledger import ensure_periods
from domain.periods import Clock, local_midnight
from domain.values import OPERATOR_ID
from settlement import closing
from settlement.closing import ClosedPeriod, close_period
from settlement.reading import lines_of_statements, period_by_label, statements_of_periods
from settlement.verifying import verify
from tests.settlement.rows import Prices, noon
from tests.settlement.worked_example import Example, coalition, march
from tests.settlement.writer import Writer

At = Callable[[datetime], Clock]
Tamper = Callable[[str], Awaitable[None]]

EVERYTHING = """
    SELECT (SELECT json_agg(p ORDER BY p.id)::text FROM period AS p),
           (SELECT json_agg(e ORDER BY e.id)::text FROM partner_entry AS e),
           (SELECT json_agg(q ORDER BY q.period_id, q.partner_id, q.kind)::text FROM position AS q),
           (SELECT json_agg(s ORDER BY s.period_id, s.partner_id)::text FROM statement AS s),
           (SELECT json_agg(l ORDER BY l.period_id, l.partner_id, l.kind)::text FROM statement_line AS l)
"""


async def everything(database: Database) -> tuple[Any, ...]:
    async with database.reading(OPERATOR_ID) as connection:
        return tuple((await connection.execute(text(EVERYTHING))).one())


async def state(database: Database, label: str) -> str | None:
    period = await period_by_label(database, OPERATOR_ID, label)
    return None if period is None else period.state


async def refused(database: Database, clock: Clock, label: str, key: str = "key") -> Refused:
    """The refusal of a close that changes nothing."""
    before = await everything(database)
    with pytest.raises(Refused) as caught:
        await close_period(database, clock, label, key)
    assert await everything(database) == before
    return caught.value


# ---------------------------------------------------------------- order and time


@pytest.mark.parametrize("label", ["2017-13", "2017-3", "March", "", "2017-02", "0001-01"])
async def test_a_label_that_names_no_period(database: Database, at: At, booked_march: Example, label: str) -> None:
    refusal = await refused(database, at(noon(2017, 6, 1)), label)
    assert (refusal.code, refusal.field) == (RefusalCode.PERIOD_NOT_FOUND, "label")


async def test_without_a_programme_there_is_no_period(database: Database, at: At) -> None:
    assert (await refused(database, at(noon(2017, 6, 1)), "2017-03")).code == RefusalCode.PERIOD_NOT_FOUND


async def test_periods_close_in_order_and_after_their_end(database: Database, at: At, booked_march: Example) -> None:
    end = datetime(2017, 3, 31, 22, tzinfo=UTC)  # midnight in Berlin, the first in summer time
    refusal = await refused(database, at(end - timedelta(microseconds=1)), "2017-03")
    assert (refusal.code, refusal.message) == (
        RefusalCode.PERIOD_NOT_ENDED,
        "2017-03 ends at 2017-04-01T00:00:00+02:00",
    )
    refusal = await refused(database, at(noon(2017, 5, 1)), "2017-04")
    assert (refusal.code, refusal.message) == (RefusalCode.EARLIER_PERIOD_OPEN, "2017-03 is to be closed first")
    assert (await close_period(database, at(end), "2017-03", "key")).period.closed_at == end
    refusal = await refused(database, at(end), "2017-04", "other key")
    assert refusal.code == RefusalCode.PERIOD_NOT_ENDED


async def test_one_key_closes_one_period(database: Database, at: At, booked_march: Example) -> None:
    await close_period(database, at(noon(2017, 4, 1)), "2017-03", "key")
    refusal = await refused(database, at(noon(2017, 5, 1)), "2017-04", "key")
    assert (refusal.code, refusal.field) == (RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


@pytest.mark.parametrize("key", ["", " key", "a\nb", "k" * 201])
async def test_a_key_that_cannot_be_stored(database: Database, at: At, booked_march: Example, key: str) -> None:
    assert (await refused(database, at(noon(2017, 4, 1)), "2017-03", key)).code == RefusalCode.INPUT_INVALID


@pytest.mark.parametrize("key", ["key", "another key"])
async def test_a_second_close_answers_the_first_result(
    database: Database, at: At, booked_march: Example, key: str
) -> None:
    first = await close_period(database, at(noon(2017, 4, 1)), "2017-03", "key")
    before = await everything(database)
    second = await close_period(database, at(noon(2017, 9, 9)), "2017-03", key)
    assert (first.replayed, second.replayed) == (False, True)
    assert first.period == second.period
    assert await everything(database) == before


async def test_an_empty_period_closes_with_its_fixed_fees_alone(
    database: Database, at: At, booked_march: Example
) -> None:
    await close_period(database, at(noon(2017, 4, 1)), "2017-03", "march")
    closed = await close_period(database, at(noon(2017, 5, 1)), "2017-04", "april")
    period_id = closed.period.id
    statements = (await statements_of_periods(database, OPERATOR_ID, [period_id]))[period_id]
    assert [one.net_minor for one in statements] == [-5_000, -3_000, -2_000]
    lines = await lines_of_statements(database, OPERATOR_ID, [(period_id, 1)])
    assert [(line.kind.value, line.entries, line.points) for line in lines[(period_id, 1)]] == [("FIXED_FEE", 1, None)]
    assert closed.period.certificate is not None
    march_closed = await period_by_label(database, OPERATOR_ID, "2017-03")
    assert march_closed is not None
    assert march_closed.certificate is not None
    assert closed.period.certificate.previous == march_closed.certificate.sha256
    assert (await verify(database, at(noon(2017, 5, 2)))).holds


async def test_the_fixed_fee_is_that_of_the_last_instant(database: Database, at: At) -> None:
    writer = Writer(database)
    await writer.programme()
    free, late = Prices(fixed="0"), Prices(fixed="40.00")
    await writer.partner("starts-on-the-last-day", (date(2017, 3, 31), Prices(fixed="10.00")))
    await writer.partner("changes", (date(2017, 3, 1), Prices(fixed="20.00")), (date(2017, 3, 31), late))
    await writer.partner("free", (date(2017, 3, 1), free))
    await writer.partner("starts-next-month", (date(2017, 4, 1), late))
    async with database.posting() as connection:
        await connection.execute(text("UPDATE partner SET state = 'SUSPENDED' WHERE code = 'changes'"))
        await connection.execute(text("UPDATE terms SET valid = '[2017-03-31,2017-04-01)' WHERE partner_id = 1"))
    closed = await close_period(database, at(noon(2017, 4, 1)), "2017-03", "march")
    statements = (await statements_of_periods(database, OPERATOR_ID, [closed.period.id]))[closed.period.id]
    assert [(one.partner_id, one.net_minor) for one in statements] == [(1, -1_000), (2, -4_000)]


async def test_history_makes_its_first_month_the_first_period(database: Database, at: At) -> None:
    writer = Writer(database, imported=True)
    await writer.programme()
    await writer.partner("A", (date(2016, 1, 1), Prices()), budget="1000")
    async with database.posting() as connection:
        spans = [writer.calendar.span(period_id) for period_id in range(2016 * 12 + 6, 2017 * 12)]
        await ensure_periods(connection, spans, imported=True)
    await writer.earn("A", 100, noon(2016, 9, 5))
    for label in ("2016-01", "2016-07", "2016-08"):
        assert (await refused(database, at(noon(2017, 1, 1)), label)).code == RefusalCode.PERIOD_NOT_FOUND
    assert (await refused(database, at(noon(2017, 1, 1)), "2016-10")).code == RefusalCode.EARLIER_PERIOD_OPEN
    assert not (await close_period(database, at(noon(2017, 1, 1)), "2016-09", "september")).replayed
    assert not (await close_period(database, at(noon(2017, 1, 1)), "2016-10", "october")).replayed


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Sao_Paulo", "America/New_York", "Asia/Tokyo"])
async def test_periods_end_at_local_midnight(database: Database, at: At, zone: str) -> None:
    writer = Writer(database, ZoneInfo(zone))
    await writer.programme()
    await writer.partner("A", (date(2017, 10, 1), Prices()), budget="1000")
    border = local_midnight(date(2017, 11, 1), writer.zone)
    await writer.earn("A", 1_000, border - timedelta(microseconds=1))
    await writer.earn("A", 30, border)
    assert (await refused(database, at(border - timedelta(microseconds=1)), "2017-10")).code == (
        RefusalCode.PERIOD_NOT_ENDED
    )
    october = (await close_period(database, at(border), "2017-10", "october")).period
    assert october.closes_at == border
    assert october.opens_at == datetime(2017, 10, 1, tzinfo=writer.zone)
    (statement,) = (await statements_of_periods(database, OPERATOR_ID, [october.id]))[october.id]
    assert statement.net_minor == -1_100
    next_end = local_midnight(date(2017, 12, 1), writer.zone)
    november = (await close_period(database, at(next_end), "2017-11", "november")).period
    assert november.opens_at == october.closes_at
    (statement,) = (await statements_of_periods(database, OPERATOR_ID, [november.id]))[november.id]
    assert statement.net_minor == -33


async def test_a_currency_without_decimals_bills_whole_units(database: Database, at: At) -> None:
    writer = Writer(database, ZoneInfo("Asia/Tokyo"))
    await writer.programme("JPY", 0)
    await writer.partner("A", (date(2017, 3, 1), Prices(issue="1.5", fee="0.1")), budget="1000000")
    await writer.earn("A", 3, noon(2017, 3, 5))
    closed = await close_period(database, at(noon(2017, 4, 1)), "2017-03", "key")
    (statement,) = (await statements_of_periods(database, OPERATOR_ID, [closed.period.id]))[closed.period.id]
    assert statement.net_minor == -4  # 4.5 to the even 4, 0.3 to 0
    assert statement.document is not None
    assert b'"billed":"-4"' in statement.document


async def test_operator_funded_points_stand_on_no_statement_and_in_the_subsidy(database: Database, at: At) -> None:
    writer = Writer(database)
    await writer.programme()
    await writer.partner("A", (date(2017, 3, 1), Prices()), budget="1000")
    award = await writer.earn("A", 1_000, noon(2017, 3, 5), by_operator=True)
    await writer.take_back(award, 100, noon(2017, 3, 6))
    await writer.expire(award.lot, 200, noon(2017, 3, 7))
    closed = await close_period(database, at(noon(2017, 4, 1)), "2017-03", "key")
    assert (await statements_of_periods(database, OPERATOR_ID, [closed.period.id]))[closed.period.id] == []
    async with database.reading(OPERATOR_ID) as connection:
        figures = "SELECT pool_micro, margin_micro, operator_net_minor, certificate->'totals'->>'subsidy' FROM period"
        row = (await connection.execute(text(figures))).one()
    assert (*map(int, row[:3]), row[3]) == (7_000_000, -7_000_000, 0, "7.000000")
    assert (await verify(database, at(noon(2017, 4, 1)))).holds


# ---------------------------------------------------------------- crashes and races


class Crash(Exception):
    pass


async def crash(*_: object) -> None:
    raise Crash


@pytest.mark.parametrize("step", ["_audit", "_finish"])
async def test_a_crash_resumes_from_closing(
    database: Database, at: At, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    example = await coalition(database)
    await march(example)
    with monkeypatch.context() as patched:
        patched.setattr(closing, step, crash)
        with pytest.raises(Crash):
            await close_period(database, at(noon(2017, 4, 1)), "2017-03", "key")
    assert await state(database, "2017-03") == "CLOSING"
    # Tills go on meanwhile, in the next period only.
    await example.writer.earn("B", 10, noon(2017, 4, 2), account_id=2)
    with pytest.raises(DBAPIError) as caught:
        await example.writer.earn("B", 10, noon(2017, 3, 31), account_id=2)
    assert constraint_name(caught.value) in ("period_is_open", "period_state_required")
    closed = await close_period(database, at(noon(2017, 4, 3)), "2017-03", "key of another attempt")
    assert (closed.replayed, closed.period.state) == (False, "CLOSED")
    async with database.reading(OPERATOR_ID) as connection:
        fees = await connection.execute(text("SELECT count(*) FROM partner_entry WHERE kind = 'FIXED_FEE'"))
        assert fees.scalar_one() == 3
        key = await connection.execute(text("SELECT close_key FROM period WHERE label = '2017-03'"))
        assert key.scalar_one() == "key"
    statements = (await statements_of_periods(database, OPERATOR_ID, [closed.period.id]))[closed.period.id]
    assert [one.net_minor for one in statements] == [-107_800, -45_200, -3_250]
    assert (await verify(database, at(noon(2017, 4, 3)))).holds


async def test_a_crash_in_the_last_transaction_stores_nothing(
    database: Database, at: At, booked_march: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(closing, "close_row", crash)
        with pytest.raises(Crash):
            await close_period(database, at(noon(2017, 4, 1)), "2017-03", "key")
    after = await everything(database)
    assert after[3:] == (None, None)
    assert '"ROUNDING"' not in after[1]
    assert not (await close_period(database, at(noon(2017, 4, 1)), "2017-03", "key")).replayed


async def test_a_failed_audit_stays_closing_until_the_row_is_repaired(
    database: Database, at: At, booked_march: Example, tamper: Tamper
) -> None:
    await tamper("UPDATE transaction SET store_id = 5 WHERE kind = 'BURN' AND points = -18000")
    for key in ("key", "key", "another"):
        with pytest.raises(Refused) as caught:
            await close_period(database, at(noon(2017, 4, 1)), "2017-03", key)
        assert caught.value.code == RefusalCode.AUDIT_FAILED
        assert "BURN, partner A) was altered" in caught.value.message
        assert await state(database, "2017-03") == "CLOSING"
    await tamper("UPDATE transaction SET store_id = 0 WHERE kind = 'BURN' AND points = -18000")
    assert not (await close_period(database, at(noon(2017, 4, 1)), "2017-03", "key")).replayed
    assert (await verify(database, at(noon(2017, 4, 1)))).holds


async def test_several_closes_at_once_close_once(database: Database, at: At, booked_march: Example) -> None:
    closes = [close_period(database, at(noon(2017, 4, 1)), "2017-03", f"key {number}") for number in range(9)]
    closed: list[ClosedPeriod] = await asyncio.gather(*closes)
    assert sorted(one.replayed for one in closed) == [False] + [True] * 8
    assert len({one.period.certificate.sha256 for one in closed if one.period.certificate}) == 1
    assert (await verify(database, at(noon(2017, 4, 1)))).holds


async def test_a_close_waits_for_postings_that_hold_the_period(
    database: Database, at: At, booked_march: Example
) -> None:
    period_id = booked_march.writer.calendar.labelled("2017-03")
    async with database.posting() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock_shared(2, :id)"), {"id": period_id})
        waiting = asyncio.create_task(close_period(database, at(noon(2017, 4, 1)), "2017-03", "key"))
        done, _ = await asyncio.wait([waiting], timeout=1)
        assert not done
        assert await state(database, "2017-03") == "OPEN"
    assert not (await waiting).replayed


# ---------------------------------------------------------------- what stays shut

CHANGES = [
    """INSERT INTO transaction SELECT (jsonb_populate_record(t, '{"id": 1000000}')).* FROM transaction AS t LIMIT 1""",
    """
    INSERT INTO command
    SELECT (jsonb_populate_record(c, '{"id": 1000000, "idempotency_key": "new"}')).* FROM command AS c LIMIT 1
    """,
    """INSERT INTO lot_use SELECT (jsonb_populate_record(u, '{"id": 1000000}')).* FROM lot_use AS u LIMIT 1""",
    "INSERT INTO position SELECT period_id, 99, kind, 0, 0, 0, 0, 0 FROM position LIMIT 1",
    "UPDATE position SET amount_micro = amount_micro + 1",
    """
    INSERT INTO partner_entry SELECT (jsonb_populate_record(e, '{"id": 1000000, "partner_id": 99}')).*
      FROM partner_entry AS e WHERE kind = 'FIXED_FEE' LIMIT 1
    """,
    """
    INSERT INTO partner_entry SELECT (jsonb_populate_record(e, '{"id": 1000000, "partner_id": 99}')).*
      FROM partner_entry AS e WHERE kind = 'ROUNDING' LIMIT 1
    """,
    "INSERT INTO statement SELECT period_id, 99, 0, 0, 0, 0, '' FROM statement LIMIT 1",
    "INSERT INTO statement_line SELECT period_id, partner_id, 'TAX', 1, 0, 0, 0, 0 FROM statement LIMIT 1",
    "UPDATE period SET state = 'OPEN'",
    "UPDATE period SET margin_micro = 0",
    """
    INSERT INTO period
    SELECT (jsonb_populate_record(p, '{"id": 99, "label": "x", "opens_at": "2001-01-01T00:00:00Z"}')).*
      FROM period AS p WHERE state = 'CLOSED' LIMIT 1
    """,
]
OWNERS_CHANGES = [
    *(f"UPDATE {table} SET period_id = period_id" for table in ("command", "transaction", "lot_use", "partner_entry")),
    *(f"UPDATE {table} SET period_id = period_id" for table in ("statement", "statement_line")),
    *(f"DELETE FROM {table}" for table in ("command", "transaction", "lot_use", "partner_entry", "statement_line")),
    *(f"TRUNCATE {table} CASCADE" for table in ("command", "transaction", "statement", "statement_line")),
    "DELETE FROM statement_line",
    "DELETE FROM position",
    "DELETE FROM period",
]


async def test_a_closed_period_refuses_every_change(
    database: Database, database_url: URL, at: At, booked_march: Example
) -> None:
    await close_period(database, at(noon(2017, 4, 1)), "2017-03", "key")
    before = await everything(database)
    as_owner = {"server_settings": {"role": "coalition_owner"}}
    owner = create_async_engine(database_url, poolclass=NullPool, connect_args=as_owner)
    for change in CHANGES:
        with pytest.raises(DBAPIError) as caught:
            async with database.posting() as connection:
                await connection.execute(text(change))
        assert constraint_name(caught.value) in (
            "period_is_open",
            "period_state_required",
            "rounding_while_closing",
            "period_life",
        ), change
    for change in [*CHANGES, *OWNERS_CHANGES]:
        with pytest.raises(DBAPIError):
            async with owner.begin() as connection:
                await connection.execute(text(change))
    await owner.dispose()
    assert await everything(database) == before


@pytest.mark.parametrize(
    "change", ["DELETE FROM transaction", "UPDATE statement SET net_minor = 0", "DELETE FROM position"]
)
async def test_the_posting_role_may_not_even_try(database: Database, booked_march: Example, change: str) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        async with database.posting() as connection:
            await connection.execute(text(change))

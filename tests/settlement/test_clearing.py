"""The life of a statement: its calendar and its state, in local days, whatever the clocks do."""

from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from domain.database import Database
from domain.periods import Calendar, PeriodKind, local_date, local_midnight
from domain.terms import PROGRAMME_SQL, Programme
from domain.values import OPERATOR_ID
from partners.coalition_file import parse_coalition
from settlement.clearing import ClearingDates, StatementState, clearing_dates, statement_state
from settlement.closing import close_period
from settlement.reading import period_by_label
from tests.factories import COALITION_TOML
from tests.settlement.rows import noon
from tests.settlement.test_closing import At
from tests.settlement.worked_example import Example

PROGRAMME = Programme(
    **asdict(replace(parse_coalition(COALITION_TOML).programme, advice_days=4, dispute_days=7, call_days=12)),
    rolling_lots=False,
    version=1,
)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]  # year, month, day and what follows


@pytest.mark.parametrize(
    ("closed_at", "advice", "until", "due"),
    [
        # Closure on 1 March: advice on the 5th, seven whole days for disputes, call on the 13th.
        (None, utc(2017, 3, 4, 23), utc(2017, 3, 11, 23), utc(2017, 3, 12, 23)),
        (utc(2017, 3, 1, 9), utc(2017, 3, 4, 23), utc(2017, 3, 11, 23), utc(2017, 3, 12, 23)),
        (utc(2017, 3, 4, 23), utc(2017, 3, 4, 23), utc(2017, 3, 11, 23), utc(2017, 3, 12, 23)),
        # Closed after the advice day: seven whole days from there on, and nothing due before they are over.
        (utc(2017, 3, 5, 9), utc(2017, 3, 5, 9), utc(2017, 3, 12, 23), utc(2017, 3, 12, 23)),
        # Summer time began on the 26th.
        (utc(2017, 3, 20, 9), utc(2017, 3, 20, 9), utc(2017, 3, 27, 22), utc(2017, 3, 27, 22)),
    ],
)
def test_days_count_from_the_closure_and_the_window_is_always_whole(
    closed_at: datetime | None, advice: datetime, until: datetime, due: datetime
) -> None:
    assert clearing_dates(PROGRAMME, utc(2017, 2, 28, 23), closed_at) == ClearingDates(advice, until, due)


@given(
    day=st.dates(min_value=date(1990, 1, 1), max_value=date(2060, 1, 1)),
    kind=st.sampled_from(PeriodKind),
    zone=st.sampled_from(["Europe/Berlin", "America/Sao_Paulo", "America/Havana", "Asia/Beirut", "America/St_Johns"]),
    days=st.tuples(st.integers(0, 10), st.integers(0, 20), st.integers(0, 20)),
    late=st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=60)),
)
def test_advice_then_disputes_then_call(
    day: date, kind: PeriodKind, zone: str, days: tuple[int, int, int], late: timedelta | None
) -> None:
    advice_days, dispute_days, more = days
    programme = replace(
        PROGRAMME, timezone=zone, advice_days=advice_days, dispute_days=dispute_days,
        call_days=advice_days + dispute_days + more,
    )  # fmt: skip
    calendar = Calendar(kind, programme.zone)
    closes_at = calendar.span(calendar.ordinal(day)).closes_at
    closed_at = None if late is None else closes_at + late
    dates = clearing_dates(programme, closes_at, closed_at)

    assert closes_at <= dates.advice_at <= dates.dispute_until <= dates.due_at
    assert closed_at is None or dates.advice_at >= closed_at
    for midnight in (dates.dispute_until, dates.due_at):
        assert local_midnight(local_date(midnight, programme.zone), programme.zone) == midnight
    whole_days = local_date(dates.dispute_until, programme.zone) - local_date(dates.advice_at, programme.zone)
    assert whole_days.days in (dispute_days, dispute_days + 1)


DATES = ClearingDates(utc(2017, 4, 1), utc(2017, 4, 8), utc(2017, 4, 15))


@pytest.mark.parametrize(
    ("now", "due", "paid", "state"),
    [
        (utc(2017, 4, 2), -500, 0, "ISSUED"),
        (utc(2017, 4, 2), -500, -500, "ISSUED"),  # it may still be disputed
        (utc(2017, 4, 2), 0, 0, "ISSUED"),
        (utc(2017, 4, 8), -500, 0, "FINAL"),
        (utc(2017, 4, 8), -500, -499, "FINAL"),
        (utc(2017, 4, 8), 0, 0, "SETTLED"),
        (utc(2017, 4, 8), -500, -500, "SETTLED"),
        (utc(2017, 4, 8), -500, -600, "SETTLED"),
        (utc(2017, 4, 8), 500, 600, "SETTLED"),
        (utc(2017, 4, 8), 500, -500, "FINAL"),
        (utc(2017, 4, 15), 0, -500, "SETTLED"),  # nothing was due; what was paid is to be sent back
        (utc(2017, 4, 15), 0, 500, "SETTLED"),
        (utc(2017, 4, 15), -500, -499, "DUE"),
        (utc(2017, 4, 15), 500, 499, "DUE"),
        (utc(2017, 4, 15), 500, 500, "SETTLED"),
    ],
)
def test_the_state_follows_from_times_and_payments(now: datetime, due: int, paid: int, state: str) -> None:
    assert statement_state(DATES, now, is_draft=False, due_minor=due, open_minor=due - paid) == state
    assert statement_state(DATES, now, is_draft=True, due_minor=due, open_minor=due - paid) == StatementState.DRAFT


async def test_a_close_keeps_the_calendar_as_it_was_then(database: Database, at: At, booked_march: Example) -> None:
    planned = await period_by_label(database, OPERATOR_ID, "2017-03")
    assert planned is not None
    assert planned.dates == ClearingDates(utc(2017, 3, 31, 22), utc(2017, 4, 7, 22), utc(2017, 4, 14, 22))
    await close_period(database, at(noon(2017, 4, 3)), "2017-03", "key")
    dates = ClearingDates(noon(2017, 4, 3), utc(2017, 4, 10, 22), utc(2017, 4, 14, 22))
    async with database.posting() as connection:
        await connection.execute(text("UPDATE programme SET dispute_days = 30, call_days = 60"))
        assert Programme(*(await connection.execute(PROGRAMME_SQL)).one()).call_days == 60
    closed = await period_by_label(database, OPERATOR_ID, "2017-03")
    assert closed is not None
    assert closed.dates == dates

"""The calendar: local months as instants, where clocks change at midnight and where months end early."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.periods import (
    PeriodSpan,
    add_months,
    local_date,
    local_midnight,
    lot_expiry,
    period_containing,
    period_labelled,
    period_span,
)

BERLIN = ZoneInfo("Europe/Berlin")
MARCH = 2017 * 12 + 2
ZONES = [
    "Europe/Berlin",
    "America/Sao_Paulo",
    "America/Asuncion",
    "America/Havana",
    "Asia/Beirut",
    "Africa/Cairo",
    "America/Nuuk",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "America/Anchorage",
    "Australia/Lord_Howe",
    "UTC",
]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]  # year, month, day and what follows


@pytest.mark.parametrize(
    ("zone", "day", "instant"),
    [
        ("Europe/Berlin", date(2017, 3, 26), utc(2017, 3, 25, 23)),  # the clocks change later that night
        ("Europe/Berlin", date(2017, 3, 27), utc(2017, 3, 26, 22)),
        ("America/Sao_Paulo", date(2017, 10, 15), utc(2017, 10, 15, 3)),  # 00:00 does not exist: 01:00 is the first
        ("America/Sao_Paulo", date(2017, 2, 19), utc(2017, 2, 19, 3)),  # 23:00 of the day before comes twice
        ("Asia/Beirut", date(2017, 3, 26), utc(2017, 3, 25, 22)),
        ("Asia/Beirut", date(2017, 10, 29), utc(2017, 10, 28, 22)),
        ("America/Asuncion", date(2017, 10, 1), utc(2017, 10, 1, 4)),  # the first of a month
        ("Africa/Cairo", date(2010, 10, 1), utc(2010, 9, 30, 22)),
        ("America/Havana", date(2015, 11, 1), utc(2015, 11, 1, 4)),  # midnight comes twice: the first one
        ("America/Nuuk", date(2024, 3, 31), utc(2024, 3, 31, 1)),
    ],
)
def test_a_day_begins_where_its_clocks_say(zone: str, day: date, instant: datetime) -> None:
    assert local_midnight(day, ZoneInfo(zone)) == instant
    assert local_date(instant, ZoneInfo(zone)) == day
    assert local_date(instant - timedelta(microseconds=1), ZoneInfo(zone)) == day - timedelta(days=1)


def test_a_period_is_a_local_month() -> None:
    assert period_span(MARCH, BERLIN) == PeriodSpan(MARCH, "2017-03", utc(2017, 2, 28, 23), utc(2017, 3, 31, 22))
    assert period_span(2016 * 12 + 11, BERLIN) == PeriodSpan(
        2016 * 12 + 11, "2016-12", utc(2016, 11, 30, 23), utc(2016, 12, 31, 23)
    )


@pytest.mark.parametrize("zone", ZONES)
@given(period_id=st.integers(min_value=1950 * 12, max_value=2100 * 12))
def test_periods_follow_each_other_without_gap(zone: str, period_id: int) -> None:
    span, following = period_span(period_id, ZoneInfo(zone)), period_span(period_id + 1, ZoneInfo(zone))

    assert span.opens_at < span.closes_at == following.opens_at
    assert period_containing(span.opens_at, ZoneInfo(zone)) == period_id
    assert period_containing(span.closes_at - timedelta(microseconds=1), ZoneInfo(zone)) == period_id
    assert period_containing(span.closes_at, ZoneInfo(zone)) == period_id + 1
    assert period_labelled(span.label) == period_id


@pytest.mark.parametrize(
    "label",
    ["", "2017", "2017-", "2017-3", "2017-00", "2017-13", "0000-01", "201-703", "20l7-03", "\uff12017-03", "2017/03"],
)
def test_what_is_no_label_names_no_period(label: str) -> None:
    assert period_labelled(label) is None


@pytest.mark.parametrize(
    ("day", "months", "later"),
    [
        (date(2017, 1, 31), 1, date(2017, 2, 28)),
        (date(2016, 1, 31), 1, date(2016, 2, 29)),
        (date(2016, 2, 29), 12, date(2017, 2, 28)),
        (date(2016, 2, 29), 48, date(2020, 2, 29)),
        (date(2017, 8, 31), 1, date(2017, 9, 30)),
        (date(2017, 12, 31), 2, date(2018, 2, 28)),
        (date(2017, 12, 1), 1, date(2018, 1, 1)),
        (date(2017, 11, 30), 1, date(2017, 12, 30)),
        (date(2017, 1, 1), 1200, date(2117, 1, 1)),
    ],
)
def test_months_later_is_the_same_day_or_the_month_s_last(day: date, months: int, later: date) -> None:
    assert add_months(day, months) == later


@pytest.mark.parametrize(
    ("earned_at", "months", "zone", "expires_at"),
    [
        (utc(2017, 3, 15, 12), 24, "Europe/Berlin", utc(2019, 3, 15, 23)),
        # Already the 16th in Berlin when it is still the 15th in Greenwich, and the other way round.
        (utc(2017, 3, 15, 23), 24, "Europe/Berlin", utc(2019, 3, 16, 23)),
        (utc(2017, 3, 15, 2), 24, "America/Sao_Paulo", utc(2019, 3, 15, 3)),
        (utc(2016, 2, 29, 12), 12, "Europe/Berlin", utc(2017, 2, 28, 23)),
        (utc(2017, 1, 31, 12), 1, "Europe/Berlin", utc(2017, 2, 28, 23)),
        # The midnight after the last day is skipped by the clocks: the lot is past when the next day begins.
        (utc(2017, 9, 14, 12), 1, "America/Sao_Paulo", utc(2017, 10, 15, 3)),
        (utc(2017, 2, 25, 12), 1, "Asia/Beirut", utc(2017, 3, 25, 22)),
    ],
)
def test_a_lot_expires_at_the_midnight_after_its_last_day(
    earned_at: datetime, months: int, zone: str, expires_at: datetime
) -> None:
    assert lot_expiry(earned_at, months, ZoneInfo(zone)) == expires_at


@given(
    st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2060, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 (bounds must be naive)
    st.integers(min_value=1, max_value=120),
    st.sampled_from(ZONES),
)
def test_a_lot_lasts_through_its_last_local_day(earned_at: datetime, months: int, zone: str) -> None:
    expires_at = lot_expiry(earned_at, months, ZoneInfo(zone))
    last_day = add_months(local_date(earned_at, ZoneInfo(zone)), months)

    assert expires_at > earned_at
    assert (
        local_date(expires_at - timedelta(microseconds=1), ZoneInfo(zone))
        <= last_day
        < local_date(expires_at, ZoneInfo(zone))
    )

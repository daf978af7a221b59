"""The calendar: periods as instants, where clocks change at midnight and where months end early."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.periods import (
    Calendar,
    PeriodKind,
    PeriodSpan,
    add_months,
    local_date,
    local_midnight,
    lot_expiry,
    year_end_expiry,
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
    "America/St_Johns",
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


@pytest.mark.parametrize(
    ("kind", "period_id", "label", "opens_at", "closes_at"),
    [
        (PeriodKind.MONTH, MARCH, "2017-03", utc(2017, 2, 28, 23), utc(2017, 3, 31, 22)),
        (PeriodKind.MONTH, 2016 * 12 + 11, "2016-12", utc(2016, 11, 30, 23), utc(2016, 12, 31, 23)),
        (PeriodKind.HALF_MONTH, 2017 * 24 + 4, "2017-03-H1", utc(2017, 2, 28, 23), utc(2017, 3, 15, 23)),
        (PeriodKind.HALF_MONTH, 2017 * 24 + 5, "2017-03-H2", utc(2017, 3, 15, 23), utc(2017, 3, 31, 22)),
        (PeriodKind.HALF_MONTH, 2016 * 24 + 3, "2016-02-H2", utc(2016, 2, 15, 23), utc(2016, 2, 29, 23)),
        (PeriodKind.WEEK, 105_190, "2017-W01", utc(2017, 1, 1, 23), utc(2017, 1, 8, 23)),
        # An hour short: the clocks go forward on its Sunday.
        (PeriodKind.WEEK, 105_201, "2017-W12", utc(2017, 3, 19, 23), utc(2017, 3, 26, 22)),
        # A week belongs to the year of its Thursday.
        (PeriodKind.WEEK, 105_188, "2016-W51", utc(2016, 12, 18, 23), utc(2016, 12, 25, 23)),
        (PeriodKind.WEEK, 105_137, "2015-W53", utc(2015, 12, 27, 23), utc(2016, 1, 3, 23)),
    ],
)
def test_a_period_lasts_from_local_midnight_to_local_midnight(
    kind: PeriodKind, period_id: int, label: str, opens_at: datetime, closes_at: datetime
) -> None:
    calendar = Calendar(kind, BERLIN)
    assert calendar.span(period_id) == PeriodSpan(period_id, label, opens_at, closes_at)
    assert calendar.labelled(label) == period_id
    assert calendar.containing(opens_at) == period_id


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("kind", PeriodKind)
@given(day=st.dates(min_value=date(1950, 1, 1), max_value=date(2100, 1, 1)))
def test_periods_follow_each_other_without_gap(kind: PeriodKind, zone: str, day: date) -> None:
    calendar = Calendar(kind, ZoneInfo(zone))
    period_id = calendar.ordinal(day)
    span, following = calendar.span(period_id), calendar.span(period_id + 1)

    assert span.opens_at < span.closes_at == following.opens_at
    assert span.opens_at == local_midnight(calendar.first_day(period_id), calendar.zone)
    assert calendar.first_day(period_id) <= day < calendar.first_day(period_id + 1)
    assert calendar.containing(span.opens_at) == period_id
    assert calendar.containing(span.closes_at - timedelta(microseconds=1)) == period_id
    assert calendar.containing(span.closes_at) == period_id + 1
    assert calendar.labelled(span.label) == period_id


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("kind", PeriodKind)
@given(instant=st.datetimes(min_value=datetime(1950, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 (bounds must be naive)
def test_every_instant_lies_in_exactly_one_period(kind: PeriodKind, zone: str, instant: datetime) -> None:
    calendar = Calendar(kind, ZoneInfo(zone))
    period_id = calendar.containing(instant)
    around = [calendar.span(one) for one in (period_id - 1, period_id, period_id + 1)]

    assert [span.opens_at <= instant < span.closes_at for span in around] == [False, True, False]


def test_a_day_that_comes_back_over_midnight_opens_no_second_time() -> None:
    # On 1 November 2009 the clocks of Newfoundland went from 00:01 back to 23:01 of October.
    calendar = Calendar(PeriodKind.MONTH, ZoneInfo("America/St_Johns"))
    november = calendar.labelled("2009-11")
    assert november is not None
    assert calendar.span(november).opens_at == utc(2009, 11, 1, 2, 30)
    assert local_date(utc(2009, 11, 1, 3), calendar.zone) == date(2009, 10, 31)
    assert calendar.containing(utc(2009, 11, 1, 3)) == november


@pytest.mark.parametrize("kind", PeriodKind)
@pytest.mark.parametrize(
    "label",
    ["", "-", "2017", "2017-", "2017-3", "2017-00", "2017-13", "0000-01", "9999-12", "201-703", "20l7-03",
     "\uff12017-03", "2017/03", "2017-03-", "2017-03-H0", "2017-03-H3", "2017-3-H1", "2017-13-H1", "2017-03-h1",
     "2017-W00", "2017-W53", "2017-W1", "2017-w10", "2017-W+1", "2017--W1", "9999-W01", "2017-W10-1"],
)  # fmt: skip
def test_what_is_no_label_names_no_period(kind: PeriodKind, label: str) -> None:
    assert Calendar(kind, BERLIN).labelled(label) is None


@pytest.mark.parametrize(
    ("kind", "label"),
    [(PeriodKind.MONTH, "2017-03"), (PeriodKind.HALF_MONTH, "2017-03-H1"), (PeriodKind.WEEK, "2017-W10")],
)
def test_a_label_belongs_to_one_kind_of_period(kind: PeriodKind, label: str) -> None:
    assert [one for one in PeriodKind if Calendar(one, BERLIN).labelled(label) is not None] == [kind]
    assert Calendar(kind, BERLIN).label_example == label


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


@pytest.mark.parametrize(
    ("earned_at", "years", "zone", "expires_at"),
    [
        (utc(2017, 3, 15, 12), 1, "Europe/Berlin", utc(2018, 12, 31, 23)),
        (utc(2017, 3, 15, 12), 0, "Europe/Berlin", utc(2017, 12, 31, 23)),
        # Half an hour before midnight in Greenwich it is next year in Berlin, and half a day before that in Kiritimati.
        (utc(2017, 12, 31, 23, 30), 0, "Europe/Berlin", utc(2018, 12, 31, 23)),
        (utc(2017, 12, 31, 22, 30), 0, "Europe/Berlin", utc(2017, 12, 31, 23)),
        (utc(2017, 12, 31, 10), 0, "Pacific/Kiritimati", utc(2018, 12, 31, 10)),
        (utc(2018, 1, 1, 1, 59), 0, "America/Sao_Paulo", utc(2018, 1, 1, 2)),
        (utc(2016, 2, 29, 12), 100, "Europe/Berlin", utc(2116, 12, 31, 23)),
    ],
)
def test_a_lot_expires_when_its_year_ends(earned_at: datetime, years: int, zone: str, expires_at: datetime) -> None:
    assert year_end_expiry(earned_at, years, ZoneInfo(zone)) == expires_at


@given(
    st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2060, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 (bounds must be naive)
    st.integers(min_value=0, max_value=100),
    st.sampled_from(ZONES),
)
def test_a_lot_lasts_through_the_last_day_of_its_year(earned_at: datetime, years: int, zone: str) -> None:
    expires_at = year_end_expiry(earned_at, years, ZoneInfo(zone))
    earned_on = local_date(earned_at, ZoneInfo(zone))

    assert expires_at > earned_at
    assert local_date(expires_at - timedelta(microseconds=1), ZoneInfo(zone)) == date(earned_on.year + years, 12, 31)
    assert local_date(expires_at, ZoneInfo(zone)) == date(earned_on.year + years + 1, 1, 1)

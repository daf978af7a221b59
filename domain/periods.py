"""Calendar of settlement periods: months, half months or weeks of the programme's time zone (DESIGN.md section 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

MONTHS_PER_YEAR = 12
HALVES_PER_YEAR = 2 * MONTHS_PER_YEAR
SECOND_HALF_FROM = 16
"""Day of the month on which its second half begins."""

DAYS_PER_WEEK = 7
LABELLED_YEARS = range(1, 9999)
"""Years that a label may name: what is computed from them (the next period) still is a date."""

REMEMBERED_MAX = 2048
"""How many answers about days are kept: each step of a batch asks again about the same instants."""


class PeriodKind(StrEnum):
    """How long a settlement period is."""

    MONTH = "month"
    HALF_MONTH = "half_month"
    WEEK = "week"


class ExpiryPolicy(StrEnum):
    """When points expire (``expiry`` of the coalition file)."""

    MONTHS = "months"
    ROLLING = "rolling"
    YEAR_END = "year_end"


@dataclass(frozen=True, slots=True)
class PeriodSpan:
    """One period: opens_at inclusive, closes_at exclusive (the next period's opens_at), both in UTC.

    ``id`` is its ordinal in the calendar, so that the next period is ``id + 1``.
    """

    id: int
    label: str
    opens_at: datetime
    closes_at: datetime


def local_midnight(day: date, zone: ZoneInfo) -> datetime:
    """The instant at which ``day`` begins in ``zone``, in UTC; where clocks skip midnight, the change itself."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


@lru_cache(maxsize=REMEMBERED_MAX)
def local_date(instant: datetime, zone: ZoneInfo) -> date:
    """The calendar day in ``zone`` that contains ``instant``."""
    return instant.astimezone(zone).date()


@dataclass(frozen=True, slots=True)
class Calendar:
    """The periods of one programme: every instant lies in exactly one, and neighbours touch.

    Ordinals: year * 12 + month - 1; year * 24 + 2 * (month - 1), one more for the half from the 16th on; the number of
    Mondays since the year 1 for weeks.
    """

    kind: PeriodKind
    zone: ZoneInfo

    def ordinal(self, day: date) -> int:
        """Ordinal of the period to which a local day belongs."""
        match self.kind:
            case PeriodKind.MONTH:
                return day.year * MONTHS_PER_YEAR + day.month - 1
            case PeriodKind.HALF_MONTH:
                return day.year * HALVES_PER_YEAR + 2 * (day.month - 1) + (day.day >= SECOND_HALF_FROM)
            case PeriodKind.WEEK:
                return (day.toordinal() - 1) // DAYS_PER_WEEK  # the first day of the year 1 is a Monday

    def first_day(self, period_id: int) -> date:
        """The local day on which the period begins."""
        match self.kind:
            case PeriodKind.MONTH:
                year, month = divmod(period_id, MONTHS_PER_YEAR)
                return date(year, month + 1, 1)
            case PeriodKind.HALF_MONTH:
                year, half = divmod(period_id, HALVES_PER_YEAR)
                return date(year, half // 2 + 1, SECOND_HALF_FROM if half % 2 else 1)
            case PeriodKind.WEEK:
                return date.fromordinal(period_id * DAYS_PER_WEEK + 1)

    def label(self, period_id: int) -> str:
        """Its label, such as 2017-03, 2017-03-H1 (to the 15th) or, after ISO 8601, 2017-W10."""
        first = self.first_day(period_id)
        match self.kind:
            case PeriodKind.MONTH:
                return f"{first.year:04d}-{first.month:02d}"
            case PeriodKind.HALF_MONTH:
                return f"{first.year:04d}-{first.month:02d}-H{1 if first.day == 1 else 2}"
            case PeriodKind.WEEK:
                year, week, _ = first.isocalendar()
                return f"{year:04d}-W{week:02d}"

    @property
    def label_example(self) -> str:
        """What a label of this calendar looks like."""
        return self.label(self.ordinal(date(2017, 3, 6)))

    def span(self, period_id: int) -> PeriodSpan:
        """The period with that ordinal."""
        return PeriodSpan(period_id, self.label(period_id), _opening(self, period_id), _opening(self, period_id + 1))

    def containing(self, instant: datetime) -> int:
        """Ordinal of the period that contains ``instant``."""
        period_id = self.ordinal(local_date(instant, self.zone))
        # Where clocks fall back over midnight, the day before comes again after its period has ended.
        return period_id + 1 if instant >= _opening(self, period_id + 1) else period_id

    def labelled(self, label: str) -> int | None:
        """Ordinal of the period with that label, or None when it is no label of this calendar."""
        first = _labelled_day(self.kind, label)
        if first is None or first.year not in LABELLED_YEARS:
            return None
        period_id = self.ordinal(first)
        return period_id if self.label(period_id) == label else None


@lru_cache(maxsize=REMEMBERED_MAX)
def _opening(calendar: Calendar, period_id: int) -> datetime:
    return local_midnight(calendar.first_day(period_id), calendar.zone)


def _labelled_day(kind: PeriodKind, label: str) -> date | None:
    """A day of the period that a label would name; whoever asks compares the label, which parsing takes loosely."""
    head, dash, tail = label.rpartition("-")
    try:
        match kind:
            case PeriodKind.MONTH:
                return date(int(head), int(tail), 1) if dash else None
            case PeriodKind.HALF_MONTH:
                year, _, month = head.partition("-")
                return date(int(year), int(month), 1 if tail == "H1" else SECOND_HALF_FROM)
            case PeriodKind.WEEK:
                return date.fromisocalendar(int(head), int(tail.removeprefix("W")), 1)
    except ValueError:
        return None


def add_months(day: date, months: int) -> date:
    """The same day of the month that many months later, clamped to that month's end."""
    year, month = divmod(day.year * MONTHS_PER_YEAR + day.month - 1 + months, MONTHS_PER_YEAR)
    last = (date(year + (month + 1) // MONTHS_PER_YEAR, (month + 1) % MONTHS_PER_YEAR + 1, 1) - timedelta(days=1)).day
    return date(year, month + 1, min(day.day, last))


def lot_expiry(earned_at: datetime, expiry_months: int, zone: ZoneInfo) -> datetime:
    """First instant at which a lot is past: the local midnight after the same calendar day ``expiry_months`` later."""
    return _midnight_after(local_date(earned_at, zone), expiry_months, zone)


def year_end_expiry(earned_at: datetime, expiry_years: int, zone: ZoneInfo) -> datetime:
    """First instant at which a lot is past: when the year ends that is ``expiry_years`` after that of earning."""
    return _year_opening(local_date(earned_at, zone).year + expiry_years + 1, zone)


@lru_cache(maxsize=REMEMBERED_MAX)
def _year_opening(year: int, zone: ZoneInfo) -> datetime:
    return local_midnight(date(year, 1, 1), zone)


@lru_cache(maxsize=REMEMBERED_MAX)
def _midnight_after(day: date, months: int, zone: ZoneInfo) -> datetime:
    return local_midnight(add_months(day, months) + timedelta(days=1), zone)


Clock = Callable[[], datetime]
"""Where business time comes from: returns an aware instant. A parameter everywhere, so that tests can hold it."""

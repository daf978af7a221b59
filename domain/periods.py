"""Calendar of settlement periods: local months of the programme's time zone, as instants (DESIGN.md section 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MONTHS_PER_YEAR = 12

REMEMBERED_MAX = 2048
"""How many answers about days are kept: each step of a batch asks again about the same instants."""


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


def period_span(period_id: int, zone: ZoneInfo) -> PeriodSpan:
    """The period with that ordinal."""
    year, month = divmod(period_id, MONTHS_PER_YEAR)
    following_year, following_month = divmod(period_id + 1, MONTHS_PER_YEAR)
    return PeriodSpan(
        period_id,
        f"{year:04d}-{month + 1:02d}",
        local_midnight(date(year, month + 1, 1), zone),
        local_midnight(date(following_year, following_month + 1, 1), zone),
    )


def period_containing(instant: datetime, zone: ZoneInfo) -> int:
    """Ordinal of the period that contains ``instant``."""
    day = local_date(instant, zone)
    return day.year * MONTHS_PER_YEAR + day.month - 1


def period_labelled(label: str) -> int | None:
    """Ordinal of the period with a label such as "2017-03", or None when it is no label."""
    year, dash, month = label.partition("-")
    if not dash or (len(year), len(month)) != (len("2017"), len("03")):
        return None
    if not (year + month).isascii() or not (year + month).isdigit():
        return None
    if not 1 <= int(month) <= MONTHS_PER_YEAR or int(year) == 0:
        return None
    return int(year) * MONTHS_PER_YEAR + int(month) - 1


def add_months(day: date, months: int) -> date:
    """The same day of the month that many months later, clamped to that month's end."""
    year, month = divmod(day.year * MONTHS_PER_YEAR + day.month - 1 + months, MONTHS_PER_YEAR)
    last = (date(year + (month + 1) // MONTHS_PER_YEAR, (month + 1) % MONTHS_PER_YEAR + 1, 1) - timedelta(days=1)).day
    return date(year, month + 1, min(day.day, last))


def lot_expiry(earned_at: datetime, expiry_months: int, zone: ZoneInfo) -> datetime:
    """First instant at which a lot is past: the local midnight after the same calendar day ``expiry_months`` later."""
    return _midnight_after(local_date(earned_at, zone), expiry_months, zone)


@lru_cache(maxsize=REMEMBERED_MAX)
def _midnight_after(day: date, months: int, zone: ZoneInfo) -> datetime:
    return local_midnight(add_months(day, months) + timedelta(days=1), zone)


Clock = Callable[[], datetime]
"""Where business time comes from: returns an aware instant. A parameter everywhere, so that tests can hold it."""

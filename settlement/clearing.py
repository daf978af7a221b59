"""The clearing calendar of a period, and the life of a statement in it (SETTLEMENT.md, "Practice: clearing"). Pure.

The closure of a period is its end: the local midnight with which the next one begins. Days are counted from there in
the programme's time zone and end at local midnight. A partner always has its whole dispute window: where a period is
closed after its advice day, the window counts from the close, and nothing is due before the window is over.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from domain.periods import local_date, local_midnight
from domain.terms import Programme


@dataclass(frozen=True, slots=True)
class ClearingDates:
    """When a period's statements are advised, until when they may be disputed, and when what is due is to be paid.

    Plans until the period is closed, then facts.
    """

    advice_at: datetime
    dispute_until: datetime
    due_at: datetime


class StatementState(StrEnum):
    """Where a statement is in its life."""

    DRAFT = "DRAFT"
    ISSUED = "ISSUED"
    FINAL = "FINAL"
    DUE = "DUE"
    SETTLED = "SETTLED"


def clearing_dates(programme: Programme, closes_at: datetime, closed_at: datetime | None) -> ClearingDates:
    """The calendar of a period that ends at ``closes_at``; ``closed_at`` None: it is not closed yet."""
    zone = programme.zone
    ended_on = local_date(closes_at, zone)
    advice_at = local_midnight(ended_on + timedelta(days=programme.advice_days), zone)
    if closed_at is not None:
        advice_at = max(advice_at, closed_at)
    window_from = _first_whole_day(advice_at, zone)
    dispute_until = local_midnight(window_from + timedelta(days=programme.dispute_days), zone)
    due_at = local_midnight(ended_on + timedelta(days=programme.call_days), zone)
    return ClearingDates(advice_at, dispute_until, max(due_at, dispute_until))


def _first_whole_day(instant: datetime, zone: ZoneInfo) -> date:
    day = local_date(instant, zone)
    return day if local_midnight(day, zone) >= instant else day + timedelta(days=1)


def statement_state(
    dates: ClearingDates, now: datetime, *, is_draft: bool, due_minor: int, open_minor: int
) -> StatementState:
    """The state at that moment; amounts signed as on the statement, ``open_minor`` is what is left of ``due_minor``."""
    if is_draft:
        return StatementState.DRAFT
    if now < dates.dispute_until:
        return StatementState.ISSUED
    if open_minor == 0 or due_minor == 0 or (open_minor < 0) != (due_minor < 0):
        # Nothing is left, or more was paid than was due, which stays visible as what is open.
        return StatementState.SETTLED
    return StatementState.DUE if now >= dates.due_at else StatementState.FINAL

"""The times of a batch: when it is booked, into which period, and what may have happened when."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from domain.endings import has_ended
from domain.errors import RefusalCode, Refused
from domain.periods import local_date
from domain.terms import Configuration

FUTURE_TOLERANCE = timedelta(minutes=5)
"""How far a till's clock may be ahead of ours."""

EARLIEST_OCCURRED = datetime(1900, 1, 1, tzinfo=UTC)
"""Nothing is older, whatever is imported; the calendar's arithmetic would run out of years."""


END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)
"""After the date of every lot and every hold."""


class Booking(NamedTuple):
    """Where a posting belongs: its period, and the local day that chooses the budget plan."""

    period_id: int
    day: date


@dataclass(frozen=True)
class BatchClock:
    """The times of one batch. ``first_open_id``: the earliest period that may still be open.

    ``is_history``: rows are booked where they occurred (``--booking occurred``), without a back-dating limit.
    """

    configuration: Configuration
    recorded_at: datetime
    first_open_id: int
    is_history: bool

    def booking(self, occurred_at: datetime) -> Booking:
        """The period of the booking instant, or the earliest open one when that is closed (DESIGN.md section 5)."""
        if self.is_history and occurred_at >= EARLIEST_OCCURRED:
            return self._booked(min(occurred_at, self.recorded_at))
        return self._booked_now

    @cached_property
    def _booked_now(self) -> Booking:
        return self._booked(self.recorded_at)

    def _booked(self, instant: datetime) -> Booking:
        calendar = self.configuration.programme.calendar
        period_id = calendar.containing(instant)
        if period_id >= self.first_open_id:
            return Booking(period_id, local_date(instant, calendar.zone))
        return Booking(self.first_open_id, calendar.first_day(self.first_open_id))

    def expiry_instant(self, occurred_at: datetime) -> datetime:
        """The instant against which lots and holds are past: now, or in historical import when it happened.

        Once the programme's last day of burning is over, all of them are.
        """
        instant = min(occurred_at, self.recorded_at) if self.is_history else self.recorded_at
        return END_OF_TIME if has_ended(self.configuration.programme, instant) else instant

    def ended_by(self, instant: datetime) -> datetime:
        """When something ended that was to end then: with the programme's points, where those ended before."""
        ended_at = self.configuration.programme.burn_ends_at
        return instant if ended_at is None else min(instant, ended_at)

    def check_occurred(self, occurred_at: datetime) -> None:
        """Raises Refused when it lies in the future, or further back than the programme allows."""
        earliest, latest = self._acceptable
        if earliest <= occurred_at <= latest:
            return
        if occurred_at > latest:
            message = "occurredAt lies in the future: check the till's clock and time zone"
            raise Refused(RefusalCode.OCCURRED_IN_FUTURE, message, "occurredAt")
        if occurred_at < EARLIEST_OCCURRED:
            message = f"occurredAt lies before {EARLIEST_OCCURRED.year}"
            raise Refused(RefusalCode.OCCURRED_TOO_LONG_AGO, message, "occurredAt")
        message = f"occurredAt lies more than {self.configuration.programme.max_backdate_days} days back"
        raise Refused(RefusalCode.OCCURRED_TOO_LONG_AGO, message, "occurredAt")

    @cached_property
    def _acceptable(self) -> tuple[datetime, datetime]:
        latest = self.recorded_at + FUTURE_TOLERANCE
        if self.is_history:
            return EARLIEST_OCCURRED, latest
        backdated = self.recorded_at - timedelta(days=self.configuration.programme.max_backdate_days)
        return max(EARLIEST_OCCURRED, backdated), latest

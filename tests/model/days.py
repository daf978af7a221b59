"""The auditor's calendar: periods by label, and when points expire. Days are local, instants in UTC."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo


class Days:
    """The calendar of a programme as the coalition file has it."""

    def __init__(self, programme: dict[str, Any]) -> None:
        self.programme = programme
        self.zone = ZoneInfo(programme["timezone"])

    def day(self, instant: datetime) -> date:
        return instant.astimezone(self.zone).date()

    def midnight(self, day: date) -> datetime:
        # In UTC: hours added to a local time may end where clocks skip one, and such a time equals no other.
        return datetime(day.year, day.month, day.day, tzinfo=self.zone).astimezone(UTC)

    def period(self, day: date) -> str:
        """The label of the day's period; labels sort as their periods do."""
        if self.programme["period"] == "week":
            year, week, _ = day.isocalendar()
            return f"{year:04d}-W{week:02d}"
        half = ("-H1" if day.day < 16 else "-H2") if self.programme["period"] == "half_month" else ""
        return f"{day:%Y-%m}{half}"

    def begins(self, label: str) -> date:
        if "W" in label:
            return date.fromisocalendar(int(label[:4]), int(label[-2:]), 1)
        return date.fromisoformat(f"{label[:7]}-{'16' if label.endswith('H2') else '01'}")

    def ends(self, label: str) -> date:
        """The first day after it."""
        day = self.begins(label)
        while self.period(day) == label:
            day += timedelta(days=1)
        return day

    def expiry(self, earned: datetime) -> datetime:
        """First instant at which points that are earned then are past."""
        day = self.day(earned)
        if self.programme.get("expiry") == "year_end":
            return self.midnight(date(day.year + self.programme["expiry_years"] + 1, 1, 1))
        return self.months_after(earned, self.programme["expiry_months"])

    def months_after(self, instant: datetime, months: int) -> datetime:
        """The midnight that ends the same day of the month, or the last one, so many months later."""
        day = self.day(instant)
        first = day.replace(day=1)
        for _ in range(months):
            first = (first + timedelta(days=31)).replace(day=1)
        last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
        return self.midnight(min(first + timedelta(days=day.day - 1), last) + timedelta(days=1))

    def label(self, number: int) -> str:
        """The label of the period that the product counts so: months, half months or weeks since the year 0 or 1."""
        if self.programme["period"] == "week":
            return self.period(date.fromordinal(number * 7 + 1))
        halves = 2 if self.programme["period"] == "half_month" else 1
        month, half = divmod(number, halves)
        return self.period(date(month // 12, month % 12 + 1, 16 if half else 1))

"""The coalition files as the second settlement reads them: contracts in force, periods, and what ends when."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

SECOND_HALF_FROM = 16
DAY = timedelta(days=1)

File = dict[str, Any]


class Contracts:
    """Terms, rates and prices of the last file that was applied; who was suspended when, of all of them."""

    def __init__(self, files: Sequence[tuple[datetime, File]]) -> None:
        self.files = files
        self.programme: dict[str, Any] = files[-1][1]["programme"]
        self.partners: dict[str, Any] = {partner["code"]: partner for partner in files[-1][1]["partner"]}
        self.campaigns: list[dict[str, Any]] = files[-1][1]["campaign"]
        self.zone = ZoneInfo(self.programme["timezone"])

    # ------------------------------------------------------------ days and periods

    def day_of(self, instant: datetime) -> date:
        """The programme's local day."""
        return instant.astimezone(self.zone).date()

    def midnight(self, day: date) -> datetime:
        """The instant with which a local day begins."""
        return datetime.combine(day, time(), self.zone).astimezone(UTC)

    def label_of(self, day: date) -> str:
        """The period to which a day belongs; of one programme, labels sort as their periods."""
        kind = self.programme["period"]
        if kind == "week":
            year, week, _ = day.isocalendar()
            return f"{year}-W{week:02}"
        half = f"-H{1 if day.day < SECOND_HALF_FROM else 2}" if kind == "half_month" else ""
        return f"{day.year}-{day.month:02}{half}"

    def periods(self, first: date, last: date) -> Iterator[tuple[str, date]]:
        """Label and last day of every period that ends between these days."""
        day = first
        while day <= last:
            if self.label_of(day) != self.label_of(day + DAY):
                yield self.label_of(day), day
            day += DAY

    # ------------------------------------------------------------ contracts

    def terms(self, partner: str, day: date) -> dict[str, Any] | None:
        """The terms in force."""
        found = [terms for terms in self.partners[partner]["terms"] if terms["from"] <= day]
        return found[-1] if found else None

    def price(self, partner: str, day: date, name: str) -> Fraction:
        """One of their prices."""
        terms = self.terms(partner, day)
        assert terms is not None, f"{partner} has no contract on {day}"
        return Fraction(terms[name])

    def tax_rate(self, partner: str, kind: str, day: date) -> Fraction | None:
        """The rate of a kind of line; None: it is not taxed."""
        found = [tax for tax in self.partners[partner]["tax"] if tax["kind"] == kind and tax["from"] <= day]
        if not found or ("to" in found[-1] and found[-1]["to"] < day):
            return None
        return Fraction(found[-1]["rate"])

    def floats(self) -> list[str]:
        """Partners that pay in advance."""
        return [code for code, partner in self.partners.items() if partner["budget"][0].get("funding") == "PREPAID"]

    # ------------------------------------------------------------ ends

    def suspended(self, partner: str, instant: datetime) -> str | None:
        """What of burning goes on at a partner that was suspended then; None: it took part."""
        [found] = [
            one for one in [file for at, file in self.files if at <= instant][-1]["partner"] if one["code"] == partner
        ]
        return str(found["suspended_burns"]) if found.get("state") == "SUSPENDED" else None

    def was_away(self, partner: str) -> bool:
        """Whether it was suspended some day, or leaves."""
        states = {one.get("state") for _, file in self.files for one in file["partner"] if one["code"] == partner}
        return "SUSPENDED" in states or "leaves_on" in self.partners[partner]

    def last_day(self, partner: str) -> date:
        """On which points are issued and burned there."""
        ends: date = self.partners[partner].get("leaves_on", date.max)
        return ends

    def run_off(self, partner: str) -> date:
        """The last day on which anything comes back there."""
        ends: date = self.partners[partner].get("run_off_until", date.max)
        return ends

    def over_label(self) -> str | None:
        """The period in which the midnight lies with which the last points are past; None: they go on."""
        ends: date | None = self.programme.get("burn_ends")
        return None if ends is None else self.label_of(ends + DAY)

    def final_label(self, partner: str) -> str | None:
        """The period whose statement settles everything with the partner; None: it stays."""
        ends: date | None = self.partners[partner].get("run_off_until")
        own = [] if ends is None else [self.label_of(ends)]
        over = self.over_label()
        return min([*own, over] if over else own, default=None)

    def is_settled_out(self, partner: str, label: str) -> bool:
        """Whether that period comes after the partner's final statement."""
        final = self.final_label(partner)
        return final is not None and label > final

    def has_left(self, partner: str, label: str) -> bool:
        """Whether that period comes after the one of its own run-off; the programme's end takes no share from it."""
        ends: date | None = self.partners[partner].get("run_off_until")
        return ends is not None and label > self.label_of(ends)

    def fixed_fee(self, partner: str, label: str, last: date) -> Fraction:
        """Of whoever's contract covers the period's last day, and nobody's once the programme is over."""
        over, terms = self.over_label(), self.terms(partner, last)
        if terms is None or last > self.last_day(partner) or (over is not None and label >= over):
            return Fraction()
        return Fraction(terms["fixed_fee"])

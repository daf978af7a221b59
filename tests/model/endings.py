"""The auditor's last days: of partners, of the programme, and of what was to become usable after them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from tests.model.days import Days

END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)


class Endings:
    """What follows from the dates of the coalition file, as they are at the moment."""

    def __init__(self, days: Days, programme: dict[str, Any], partners: dict[str, dict[str, Any]]) -> None:
        self.days, self.programme, self.partners = days, programme, partners

    def has_ended(self, at: datetime) -> bool:
        """Whether all points are past then, whatever their own dates."""
        last: date = self.programme.get("burn_ends", date.max)
        return self.days.day(at) > last

    def programme_final(self) -> str | None:
        """The period in which the last points are past."""
        last = self.programme.get("burn_ends")
        return None if last is None else self.days.period(last + timedelta(days=1))

    def final(self, partner: str) -> str | None:
        """The period with whose statement everything with the partner is settled."""
        run_off = self.partners[partner].get("run_off_until")
        labels = [None if run_off is None else self.days.period(run_off), self.programme_final()]
        return min((label for label in labels if label is not None), default=None)

    def is_settled_out(self, partner: str, label: str) -> bool:
        """Whether what is booked in the period comes after the partner's last statement."""
        return label > (self.final(partner) or label)

    def is_settled_as_leaver(self, partner: str, label: str) -> bool:
        """Whether it comes after the end of its own run-off: the end of the programme takes no breakage from it."""
        run_off = self.partners[partner].get("run_off_until")
        return run_off is not None and label > self.days.period(run_off)

    def has_left(self, partner: str, day: date) -> bool:
        last: date = self.partners[partner].get("leaves_on", date.max)
        return day > last

    def lapses(self, award: dict[str, Any], label: str, at: datetime) -> bool:
        """Whether nobody is left to pay for a pending award, or to take its points: what was due before that is not."""
        if self.has_ended(at):
            return bool(award["waits"] or self.days.day(award["release"]) > self.programme["burn_ends"])
        if self.waits_for_seller(award) and self.is_settled_out(award["seller"], label):
            return True
        last = self.final(award["funder"]) if award["funder"] in self.partners else None
        if last is None or label <= last:
            return False
        return bool(award["waits"] or self.days.period(self.days.day(award["release"])) > last)

    def waits_for_seller(self, award: dict[str, Any]) -> bool:
        """Whether the money that it waits for is that of the partner of the purchase."""
        is_own = award["funder"] not in self.partners or award["funder"] == award["seller"]
        return bool(award["waits"] and (is_own or self.partners[award["seller"]].get("risk") == "PAID_FIRST"))

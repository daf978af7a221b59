"""Whether those who issued, burned or took back were allowed to: suspended partners, partners that left, ends."""

from collections.abc import Iterator
from datetime import date, datetime

from tests.generator.contracts import Contracts

ISSUES = ("EARN", "EARN_PENDING")
BURNS = ("BURN", "HOLD")
SETTLES = ("CAPTURE", "EARN_REVERSAL", "OVERDRAW", "BURN_REVERSAL", "CANCEL")
OPERATOR = "operator"


def misconduct(contracts: Contracts, row: dict[str, str]) -> Iterator[str]:
    """A line per rule that a row of the export breaks; what the system books by itself obeys none of these."""
    kind, partner, label = row["kind"], row["partner"], row["period"]
    booked_at = datetime.fromisoformat(row["recorded_at"])
    if label != contracts.label_of(contracts.day_of(booked_at)):
        yield f"was booked at {booked_at}, and stands in {label}"
    if row["idempotency_key"].startswith("system:") or partner == OPERATOR:
        return
    day, burns = contracts.day_of(datetime.fromisoformat(row["occurred_at"])), contracts.suspended(partner, booked_at)
    if kind in ISSUES and not (kind == "EARN_PENDING" and row["points"] == "0"):  # which is a payment
        # A part of a bonus that nobody pays is a row of no points.
        payers = {partner} if row["funder"] == OPERATOR or row["points"] == "0" else {partner, row["funder"]}
        yield from (said for payer in sorted(payers) for said in _misissued(contracts, payer, day, booked_at))
    elif kind in BURNS:
        if burns not in (None, "ALLOW"):
            yield "burns where burning is suspended"
        if day > min(contracts.last_day(partner), contracts.programme.get("burn_ends", day)):
            yield "burns after the last day"
    elif kind in SETTLES:
        if kind == "CAPTURE" and burns == "REFUSE":
            yield "captures where that is suspended"
        if day > contracts.run_off(partner) or contracts.is_settled_out(partner, label):
            yield "is settled after the run-off"


def _misissued(contracts: Contracts, payer: str, day: date, booked_at: datetime) -> Iterator[str]:
    if contracts.suspended(payer, booked_at) is not None:
        yield f"issues for {payer}, which is suspended"
    label = contracts.label_of(contracts.day_of(booked_at))
    if day > contracts.last_day(payer) or contracts.is_settled_out(payer, label):
        yield f"issues for {payer}, which has left"
    if day > contracts.programme.get("issue_ends", day):
        yield "issues after the programme's last day"

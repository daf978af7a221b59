"""The auditor's closed statements: what is paid, disputed and let off of them, and where they are in their life."""

from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

from tests.model.ledger import Dict, Ledger, No

OF_TRANSACTIONS = (
    "ISSUE", "SERVICE_FEE", "REIMBURSEMENT", "EARN_REVERSAL", "SERVICE_FEE_REFUND", "BURN_REVERSAL", "BREAKAGE_SHARE",
)  # fmt: skip
"""Lines that transactions stand behind."""


@dataclass
class Balance:
    """Cents of one statement, signed from the partner's side as what is due is.

    What was let off, and what of that came in later; what the deposit and other statements gave for it.
    """

    due: int
    paid: int = 0
    let_off: int = 0
    recovered: int = 0
    secured: int = 0
    offset: int = 0


@dataclass
class Statements:
    """Balances by period and partner, and every dispute there was, in order."""

    ledger: Ledger
    balances: dict[tuple[str, str], Balance] = field(default_factory=dict)
    disputes: list[Dict] = field(default_factory=list)

    def balance(self, label: str, partner: str) -> Balance:
        """Of a closed statement. Raises No."""
        if partner not in self.ledger.closed.get(label, {"nets": {}})["nets"]:
            raise No("STATEMENT_NOT_FOUND")
        return self.balances.setdefault((label, partner), Balance(self.ledger.closed[label]["due"][partner]))

    def of_line(self, label: str, partner: str, kind: str) -> list[Dict]:
        """Its disputes."""
        line = (label, partner, kind)
        return [one for one in self.disputes if (one["label"], one["partner"], one["kind"]) == line]

    def withheld(self, label: str, partner: str) -> int:
        """What is not to be paid while it is disputed."""
        return sum(
            one["withheld"]
            for one in self.disputes
            if (one["label"], one["partner"], one["state"]) == (label, partner, "OPEN")
        )

    def left(self, label: str, partner: str) -> int:
        """What is open, negative where the partner owes."""
        one = self.balance(label, partner)
        covered = one.secured + one.offset + one.let_off - one.recovered
        return one.due - self.withheld(label, partner) - one.paid + covered

    def state(self, label: str, partner: str, now: datetime) -> str:
        """Where it is in its life."""
        _, disputable_until, due_at = self.ledger.closed[label]["dates"]
        to_pay = self.balance(label, partner).due - self.withheld(label, partner)
        if now < disputable_until:
            return "ISSUED"
        if to_pay * self.left(label, partner) <= 0:
            return "SETTLED"
        return "DUE" if now >= due_at else "FINAL"

    # ------------------------------------------------------------ what is done about them

    def pay(self, label: str, partner: str, minor: int) -> None:
        """The bank paid: what covers more than was due takes back what had been let off."""
        one = self.balance(label, partner)
        one.paid += minor
        one.recovered = min(one.let_off, max(one.due - one.paid + one.let_off + one.secured + one.offset, 0))

    def check_owed(self, label: str, partner: str, minor: int) -> None:
        """Raises No where the partner owes less."""
        if minor > max(-self.left(label, partner), 0):
            raise No("EXCEEDS_ORIGINAL")

    def dispute(self, ask: Dict, now: datetime) -> int:
        """Its number. Raises No."""
        label, partner, kind = ask["label"], ask["partner"], ask["kind"]
        closed = self.ledger.closed.get(label)
        if kind == "CARRIED_FORWARD":
            raise No("INPUT_INVALID")
        if closed is None or (partner, kind) not in closed["lines"]:
            raise No("STATEMENT_NOT_FOUND")
        billed = closed["lines"][partner, kind][-1]
        most = abs(billed)
        if ask["commands"] is not None:
            if kind not in OF_TRANSACTIONS:
                raise No("INPUT_INVALID")
            brought = [self.brought(key, label, partner, kind) for key in sorted(set(ask["commands"]))]
            most = round(Fraction(abs(sum(brought)), 10**4))
        amount = ask["minor"]
        if amount is None and billed > 0:
            raise No("INPUT_INVALID")
        amount = most if amount is None else amount
        if not 0 < amount <= most:
            raise No("EXCEEDS_ORIGINAL")
        if not ask["by_operator"] and now >= closed["dates"][1]:
            raise No("DISPUTE_WINDOW_OVER")
        before = self.of_line(label, partner, kind)
        taken = sum(one["minor"] if one["state"] == "OPEN" else one["accepted"] for one in before)
        named = {key for one in before if one["state"] in ("OPEN", "ACCEPTED") for key in one["commands"] or ()} & set(
            ask["commands"] or ()
        )
        if taken + amount > abs(billed) or named:
            raise No("EXCEEDS_ORIGINAL")
        withheld = -amount if billed < 0 and closed["left"][partner] == 0 else 0
        self.disputes.append({**ask, "minor": amount, "withheld": withheld, "state": "OPEN", "accepted": 0})
        return len(self.disputes) - 1

    def brought(self, key: tuple[str, str], label: str, partner: str, kind: str) -> int:
        """What a purchase or a burn brought into the line, in micro-units. Raises No where it brought nothing."""
        record = self.ledger.done[key]
        if kind == "REIMBURSEMENT":
            if record["kind"] != "burn" or (record["period"], key[0]) != (label, partner):
                raise No("TRANSACTION_NOT_FOUND")
            return int(record["points"] * record["price"])
        price = {"ISSUE": "price", "SERVICE_FEE": "fee"}[kind]
        awards = [
            one
            for one in record["awards"]
            if (one["funder"], one["charged_in"]) == (partner, label) and (one["release"] is None or not one["granted"])
        ]
        if not awards:
            raise No("TRANSACTION_NOT_FOUND")
        return -sum(int(one["granted"] * one[price]) for one in awards)

    def check_open(self, number: int) -> Dict:
        """Raises No once a dispute was decided."""
        one = self.disputes[number]
        if one["state"] != "OPEN":
            raise No("DISPUTE_DECIDED")
        return one

    def withdraw(self, number: int) -> None:
        """Its partner takes it back. Raises No."""
        self.check_open(number)["state"] = "WITHDRAWN"

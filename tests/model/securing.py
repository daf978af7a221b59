"""The auditor's deposits and defaults: what secures a partner's debts, and what covers what it does not pay."""

from collections import defaultdict
from datetime import datetime
from fractions import Fraction

from tests.model.auditor import Auditor
from tests.model.desk import PER_MINOR, Desk
from tests.model.ledger import Dict, No


class SecuredDesk(Desk):
    """A desk with deposits: ``held`` is each partner's, in cents."""

    def __init__(self, ledger: Auditor) -> None:
        super().__init__(ledger)
        self.held: defaultdict[str, int] = defaultdict(int)

    def owes(self, partner: str) -> int:
        """Micro-units that the partner would owe if everything were settled now, whatever is disputed."""
        settled = sum(closed["nets"].get(partner, 0) for closed in self.ledger.closed.values())
        for (_, who), one in self.statements.balances.items():
            settled += one.let_off - one.paid - one.recovered + one.secured if who == partner else 0
        to_come = sum(
            sums[2]
            for (label, who, _), sums in self.ledger.positions.items()
            if who == partner and label not in self.ledger.closed
        )
        owes: int = max(-settled * PER_MINOR - to_come, 0)
        return owes

    def required(self, partner: str) -> int:
        return int(Fraction(self.ledger.partners[partner].get("deposit_required", "0")) * 10**6)

    # ------------------------------------------------------------ deposits

    def check_free(self, ask: Dict) -> None:
        """Raises No where so much may not be paid out: what the bank took back was never there."""
        held = self.held[ask["partner"]] * PER_MINOR
        needed = 0 if ask["reason"] == "CORRECTION" else max(self.required(ask["partner"]), self.owes(ask["partner"]))
        if ask["minor"] * PER_MINOR > max(held - needed, 0):
            raise No("LIMIT_EXCEEDED")

    # ------------------------------------------------------------ default

    def due(self, label: str | None, partner: str, now: datetime) -> list[tuple[str, int]]:
        """Cents of a statement that is due, or of every one that is, the oldest first. Raises No."""
        if label is not None:
            self.statements.balance(label, partner)
        found = [
            (one, -self.statements.left(one, partner))
            for one, closed in self.ledger.closed.items()
            if label in (None, one)
            and partner in closed["nets"]
            and self.statements.left(one, partner) < 0
            and self.statements.state(one, partner, now) == "DUE"
        ]
        if not found:
            raise No("STATEMENT_NOT_DUE")
        return found

    def cover(self, proposal: Dict, now: datetime) -> None:
        """Out of what it is owed of other statements, the oldest first, then of the deposit; the rest is lost."""
        partner = proposal["partner"]
        due = self.due(proposal["label"], partner, now)
        if sum(owed for _, owed in due) > proposal["minor"]:
            raise No("EXCEEDS_ORIGINAL")
        for label, owed in due:
            one, left = self.statements.balance(label, partner), owed
            for other, closed in self.ledger.closed.items():
                if partner not in closed["nets"] or now < closed["dates"][1]:
                    continue
                credit = self.statements.left(other, partner) + self.statements.withheld(other, partner)
                part = min(left, max(credit, 0))
                self.statements.balance(other, partner).offset -= part
                one.offset += part
                left -= part
            part = min(left, self.held[partner])
            self.held[partner] -= part
            one.secured += part
            one.let_off += left - part

    # ------------------------------------------------------------ four eyes

    def propose(self, ask: Dict, now: datetime) -> int:
        """The number of the proposal. Raises No."""
        if ask["kind"] == "DEPOSIT_PAYOUT":
            self.check_free(ask)
        if ask["kind"] == "DEFAULT":
            ask = {**ask, "minor": sum(owed for _, owed in self.due(ask["label"], ask["partner"], now))}
        return super().propose(ask, now)

    def carry_out(self, proposal: Dict, now: datetime) -> None:
        if proposal["kind"] == "DEFAULT":
            self.cover(proposal, now)
        elif proposal["kind"] == "DEPOSIT_PAYOUT":
            self.check_free(proposal)
            self.held[proposal["partner"]] -= proposal["minor"]
        else:
            super().carry_out(proposal, now)

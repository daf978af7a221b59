"""The auditor's desk of the operator: floats that are filled up, and what one proposes and another one decides."""

from datetime import date, datetime

from tests.model.auditor import Auditor
from tests.model.ledger import OPERATOR, Dict, No
from tests.model.statements import Statements

PER_MINOR = 10**4


class Desk:
    """Answers as the product must, and changes the auditor's ledger; every No changes nothing."""

    def __init__(self, ledger: Auditor) -> None:
        self.ledger = ledger
        self.statements = Statements(ledger)
        self.proposals: list[Dict] = []

    # ------------------------------------------------------------ floats

    def top_up(self, partner: str, minor: int, at: datetime, now: datetime) -> None:
        """A block as old as its money; more money ends an alert, and raises none."""
        self.ledger.begin(now)
        today = self.ledger.days.day(now)
        plans = [
            plan
            for number, plan in enumerate(self.ledger.partners[partner]["budget"])
            if plan.get("funding") == "PREPAID" and today < self.ends(partner, number)
        ]
        if not plans:
            raise No("INPUT_INVALID")
        window = self.ledger.window_of(partner, plans[0])
        window["limit"] += minor * PER_MINOR
        window["blocks"].append([at, minor * PER_MINOR, 0, True])
        before = window["alerted"]
        self.ledger.draw(window, "consumed", 0)
        window["alerted"] = window["alerted"] and before

    def ends(self, partner: str, number: int) -> date:
        """The first day after a budget."""
        plans = self.ledger.partners[partner]["budget"]
        if "to" in plans[number]:
            return date.fromordinal(plans[number]["to"].toordinal() + 1)
        return plans[number + 1]["from"] if plans[number + 1 :] else date.max

    # ------------------------------------------------------------ four eyes

    def propose(self, ask: Dict, now: datetime) -> int:
        """The number of the proposal. Raises No."""
        self.ledger.begin(now)
        kind, partner = ask["kind"], ask["partner"]
        if kind == "ADJUSTMENT" and ask["label"] is not None:
            self.statements.balance(ask["label"], partner)
            if (partner, ask["line"]) not in self.ledger.closed[ask["label"]]["lines"]:
                raise No("STATEMENT_NOT_FOUND")
        elif kind == "WRITE_OFF":
            self.statements.check_owed(ask["label"], partner, ask["minor"])
        elif kind == "OVERDRAFT":
            label = ask["label"]
            day = self.ledger.days.day(now) if label is None else self.ledger.days.begins(label)
            ask = {**ask, "day": day}
            self.overdrawn(ask, now)
        elif kind == "DISPUTE":
            one = self.statements.disputes[ask["dispute"]]
            minor = 0 if not ask["accepts"] else one["minor"] if ask["minor"] is None else ask["minor"]
            if minor > one["minor"]:
                raise No("EXCEEDS_ORIGINAL")
            if any(p["state"] == "PROPOSED" and p.get("dispute") == ask["dispute"] for p in self.proposals):
                raise No("DISPUTE_DECIDED")
            self.statements.check_open(ask["dispute"])
            ask = {**ask, "minor": minor, "partner": one["partner"]}
        self.proposals.append({**ask, "state": "PROPOSED", "by": None, "decided_under": None})
        return len(self.proposals) - 1

    def overdrawn(self, ask: Dict, now: datetime) -> Dict:
        """The window that may be overdrawn. Raises No."""
        ledger, day = self.ledger, ask["day"]
        today, period = ledger.today, ledger.period
        ledger.today, ledger.period = day, ledger.days.period(day)
        window = ledger.window(ask["partner"])
        ledger.today, ledger.period = today, period
        if window is None or window["plan"].get("on_limit") != "OVERDRAFT":
            raise No("INPUT_INVALID")
        if ask["until"] is not None and ask["until"] <= now:
            raise No("INPUT_INVALID")
        return window

    def decide(self, number: int, decision: tuple[str, str, str], now: datetime) -> Dict | None:
        """What becomes of it, who says so, under which key; answers the receipt of points. Raises No."""
        self.ledger.begin(now)
        proposal, (state, by, key) = self.proposals[number], decision
        if (proposal["decided_under"], proposal["by"]) == (key, by):
            if proposal["state"] != state:
                raise No("IDEMPOTENCY_CONFLICT")
        elif proposal["state"] != "PROPOSED":
            raise No("PROPOSAL_DECIDED")
        elif (state == "WITHDRAWN") != (by == proposal["client"]):
            raise No("FOUR_EYES")
        is_new, receipt = proposal["state"] == "PROPOSED", None
        if state == "APPROVED" and proposal["kind"] == "POINTS":
            receipt = self.post_points(number, now)
        elif state == "APPROVED" and is_new:
            self.carry_out(proposal, now)
        if is_new:
            proposal |= {"state": state, "by": by, "decided_under": key}
        return receipt

    def post_points(self, number: int, now: datetime) -> Dict:
        proposal = self.proposals[number]
        command = {
            "kind": "adjust", "partner": OPERATOR, "key": f"points {number}", "card": proposal["card"],
            "points": proposal["points"], "of": proposal["partner"], "at": now,
        }  # fmt: skip
        before = self.ledger.done.get((OPERATOR, command["key"]))
        answer = self.ledger.post(command if before is None else before["command"], now)
        if isinstance(answer, str):
            raise No(answer)
        return answer

    def carry_out(self, proposal: Dict, now: datetime) -> None:
        kind, partner, minor = proposal["kind"], proposal["partner"], proposal["minor"]
        if kind == "OVERDRAFT":
            window = self.overdrawn(proposal, now)
            is_over = (
                self.ledger.days.period(proposal["day"]) < self.ledger.period
                if "every" in window["plan"]
                else window["plan"]["to"] < self.ledger.days.day(now)
            )
            if is_over:
                raise No("INPUT_INVALID")
            window["overdraft"] += minor * PER_MINOR
            window["approved"].append((minor * PER_MINOR, proposal["until"]))
            return
        if kind == "WRITE_OFF":
            self.statements.check_owed(proposal["label"], partner, minor)
            self.statements.balance(proposal["label"], partner).let_off += minor
            return
        if kind == "DISPUTE":
            one = self.statements.check_open(proposal["dispute"])
            one |= {"state": "ACCEPTED" if minor else "REJECTED", "accepted": minor}
        if minor:
            of_earlier = kind == "DISPUTE" or proposal["label"] is not None
            amount = minor * PER_MINOR
            self.ledger.add(partner, "ADJUSTMENT", [1, 0, amount, amount if of_earlier else 0])

"""A second settlement: exact lines from the exported transactions, the coalition file and the desk's book alone.

Shares no code with the product. Every row is priced again from the contract that was in force when it happened, in
fractions; the export's own money columns are only compared with that, but for the value of the lots that paid
(``pool_value``): which lots those are is the ledger's choice, and no contract says it. ``statements`` bills the lines.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from tests.generator.book import Book

OPERATOR = "operator"
AWARDS = ("EARN", "CONFIRM")
BURNS = ("BURN", "CAPTURE")
WITHOUT_MONEY = ("EARN_PENDING", "CANCEL", "HOLD", "RELEASE", "TRANSFER_OUT", "TRANSFER_IN")

Row = dict[str, str]


@dataclass
class PeriodOf:
    """What one period comes to: exact lines by (partner, kind), with what stands behind them, and the pool."""

    exact: defaultdict[tuple[str, str], Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    counted: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    """Points of a line, without sign."""
    prior: defaultdict[tuple[str, str], dict[str, Fraction]] = field(default_factory=lambda: defaultdict(dict))
    """Parts that correct what an earlier period booked, by that period."""
    by_command: defaultdict[tuple[str, str, str], Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    pool: Fraction = Fraction()
    points: int = 0
    spread: Fraction = Fraction()
    deposits: Fraction = Fraction()
    breakage: Fraction = Fraction()
    subsidy: Fraction = Fraction()

    def add(self, party: str, kind: str, money: Fraction, earlier: str | None = None) -> None:
        """Adds to a line; ``earlier``: the period that it corrects."""
        self.exact[party, kind] += money
        if earlier is not None:
            parts = self.prior[party, kind]
            parts[earlier] = parts.get(earlier, Fraction()) + money

    def billed(self, minor: Fraction) -> dict[tuple[str, str], Fraction]:
        """Every line rounded once, half to even, to whole ``minor`` units."""
        return {key: round(exact / minor) * minor for key, exact in self.exact.items()}

    def margin(self, minor: Fraction) -> Fraction:
        """Fees + spread + breakage + rounding + adjustments - subsidy (SETTLEMENT.md c.5)."""
        contra = -sum((exact for (_, kind), exact in self.exact.items() if kind in KEPT), Fraction())
        billed = self.billed(minor)
        rounding = sum((exact - billed[key] for key, exact in self.exact.items()), Fraction())
        return contra + self.spread + self.breakage + rounding - self.subsidy


KEPT = ("SERVICE_FEE", "SERVICE_FEE_REFUND", "FIXED_FEE", "ADJUSTMENT")
"""Lines that are the operator's gain or loss as they stand: fees, and the contra side of adjustments."""


CHARGED = ("ISSUE", "SERVICE_FEE", "EARN_REVERSAL", "SERVICE_FEE_REFUND")
"""Lines that draw on the budget of whom they charge."""


class SecondSettlement:
    """Statements of every period in which the export has rows, or that is named."""

    def __init__(self, coalition: dict[str, Any], rows: Iterable[Row], book: Book) -> None:
        self.programme = coalition["programme"]
        self.book = book
        self.partners: dict[str, Any] = {partner["code"]: partner for partner in coalition["partner"]}
        self.rows = list(rows)
        self.by_id = {row["id"]: row for row in self.rows}
        self.periods: defaultdict[str, PeriodOf] = defaultdict(PeriodOf)
        self.problems: list[str] = []
        for row in self.rows:
            self._count(row)

    def charge_fixed_fees(self, label: str, last_day: date) -> None:
        """The fee of everybody whose contract covers the period's last day."""
        for code in self.partners:
            terms = self._terms(code, last_day)
            if terms is not None and Fraction(terms["fixed_fee"]):
                self.periods[label].add(code, "FIXED_FEE", -Fraction(terms["fixed_fee"]))

    # ------------------------------------------------------------ floats

    def floats(self) -> list[str]:
        """Partners that pay in advance."""
        return [code for code, partner in self.partners.items() if partner["budget"][0].get("funding") == "PREPAID"]

    def credit_floats(self, label: str) -> None:
        """What a float gave is not to be paid again, and what a return gave back to it is no money."""
        period = self.periods[label]
        for code in self.floats():
            parts: defaultdict[str | None, Fraction] = defaultdict(Fraction)
            for kind in CHARGED:
                parts[None] -= period.exact.get((code, kind), Fraction())
                for earlier, part in period.prior.get((code, kind), {}).items():
                    parts[None] += part
                    parts[earlier] -= part
            for of_label, part in parts.items():
                if part:
                    period.add(code, "PREPAID", part, of_label)
                    period.deposits -= part

    def float_of(self, code: str) -> tuple[Fraction, Fraction]:
        """What a partner paid in, and what its awards and their returns drew of it: whatever the period."""
        drawn = -sum((period.exact[code, kind] for period in self.periods.values() for kind in CHARGED), Fraction())
        return Fraction(self.partners[code]["budget"][0]["limit"]) + self.book.paid_in[code], drawn

    # ------------------------------------------------------------ rows

    def _count(self, row: Row) -> None:
        kind, points, period = row["kind"], int(row["points"]), self.periods[row["period"]]
        pool = Fraction(row["pool_value"])
        if kind in WITHOUT_MONEY:
            self._expect(row, {}, 0)
            if kind.startswith("TRANSFER"):
                period.points += points
            return
        period.points += points
        period.pool += pool
        if kind in AWARDS:
            self._award(row, period, points)
        elif kind in BURNS:
            price = self._price(self._authorized_by(row), row["partner"], "reimbursement")
            self._line(row, period, row["partner"], {"REIMBURSEMENT": -points * price}, pool)
        elif kind == "BURN_REVERSAL":
            price = self._price(self._authorized_by(self.by_id[row["reverses"]]), row["partner"], "reimbursement")
            self._line(row, period, row["partner"], {"BURN_REVERSAL": -points * price}, pool)
        elif kind == "EARN_REVERSAL":
            self._taken_back(row, period, points, pool)
        elif kind == "EXPIRE":
            self._expired(row, period, pool)
        elif kind == "ADJUST":
            self._given(row, period, points, pool)
        else:
            self.problems.append(f"row {row['id']}: unknown kind {kind}")

    def _award(self, row: Row, period: PeriodOf, points: int) -> None:
        funder, first = row["funder"], self._promised_by(row)
        if funder == OPERATOR:
            value = points * self._price(first, row["partner"], "issue_price")
            period.subsidy += value
            self._expect(row, {"issue_value": -value}, value)
            return
        value = points * self._price(first, funder, "issue_price")
        fee = points * self._price(first, funder, "service_fee")
        self._line(row, period, funder, {"ISSUE": -value, "SERVICE_FEE": -fee}, value)

    def _taken_back(self, row: Row, period: PeriodOf, points: int, pool: Fraction) -> None:
        original = self.by_id[row["reverses"]]
        funder, first = original["funder"], self._promised_by(original)
        if funder == OPERATOR:
            value = -points * self._price(first, original["partner"], "issue_price")
            period.subsidy -= value
            period.spread += -pool - value
            self._expect(row, {"issue_value": value}, pool)
            return
        value = -points * self._price(first, funder, "issue_price")
        fee = -points * self._price(first, funder, "service_fee")
        self._line(row, period, funder, {"EARN_REVERSAL": value, "SERVICE_FEE_REFUND": fee}, pool)

    def _expired(self, row: Row, period: PeriodOf, pool: Fraction) -> None:
        if row["funder"] == OPERATOR:
            period.subsidy += pool
            self._expect(row, {"breakage_share": -pool}, pool)
            return
        # The lot's own contract shares; a row names no lot, but its price tells which contracts it can be.
        price = pool / int(row["points"])
        shares = {
            Fraction(round(-pool * Fraction(terms["breakage_share"]) * 10**6), 10**6)
            for terms in self.partners[row["partner"]]["terms"]
            if Fraction(terms["issue_price"]) == price
        }
        share = Fraction(row["breakage_share"])
        if share not in shares:
            self.problems.append(f"row {row['id']}: a breakage share of {share} is none of {shares}")
        self._line(row, period, row["partner"], {"BREAKAGE_SHARE": share}, pool)

    def _given(self, row: Row, period: PeriodOf, points: int, pool: Fraction) -> None:
        """At the operator's expense; what is taken, at the price of the lots that it is taken of."""
        proposer = self.book.points.get(row["idempotency_key"])
        if proposer is None or row["funder"] != OPERATOR:
            self.problems.append(f"row {row['id']}: nobody agreed to {points} points")
            return
        value = points * self._price(row, proposer, "issue_price") if points > 0 else pool
        period.subsidy += value
        self._expect(row, {"issue_value": -value}, value)

    def _line(self, row: Row, period: PeriodOf, party: str, lines: dict[str, Fraction], pool: Fraction) -> None:
        """Adds to the party's lines what the row is worth by contract, and what is left over to the operator."""
        original = self.by_id[row["reverses"]]["period"] if row["reverses"] else row["period"]
        for kind, money in lines.items():
            period.add(party, kind, money, original if original < row["period"] else None)
            period.counted[party, kind] += abs(int(row["points"]))
            period.by_command[party, kind, row["command"]] += money
        fee = sum((money for kind, money in lines.items() if kind.startswith("SERVICE_FEE")), Fraction())
        left = -(sum(lines.values(), Fraction()) - fee) - pool
        if row["kind"] == "EXPIRE":
            period.breakage += left
        else:
            period.spread += left
        self._expect(row, {COLUMN_OF[kind]: money for kind, money in lines.items()}, pool)

    def _expect(self, row: Row, columns: dict[str, Fraction], pool: Fraction | int) -> None:
        """The export says of the row what its contract says."""
        for column in ("issue_value", "service_fee", "reimbursement", "breakage_share"):
            if Fraction(row[column]) != columns.get(column, 0):
                self.problems.append(
                    f"row {row['id']} ({row['kind']}): {column} {row[column]}, not {columns.get(column)}"
                )
        if Fraction(row["pool_value"]) != pool:
            self.problems.append(f"row {row['id']} ({row['kind']}): pool_value {row['pool_value']}, not {pool}")

    # ------------------------------------------------------------ contracts

    def _authorized_by(self, row: Row) -> Row:
        """The row whose time chose a burn's contract: its own, or that of the hold that it captures."""
        if row["kind"] != "CAPTURE":
            return row
        [hold] = [
            one
            for one in self.rows
            if (one["kind"], one["partner"], one["reference"]) == ("HOLD", row["partner"], row["reference"])
        ]
        return hold

    def _promised_by(self, row: Row) -> Row:
        """The row whose time chose the award's contract: its own, or that of the pending award that it confirms."""
        if row["kind"] != "CONFIRM":
            return row
        # An export names no award; which pending ones it can be, their contracts' prices tell.
        by_operator = row["funder"] == OPERATOR
        payer = row["partner"] if by_operator else row["funder"]
        points = int(row["points"])
        asked = (-Fraction(row["issue_value"]) / points, -Fraction(row["service_fee"]) / points)
        promised = [
            one
            for one in self.rows
            if (one["kind"], one["account"], one["partner"], one["funder"])
            == ("EARN_PENDING", row["account"], row["partner"], row["funder"])
            and (self._price(one, payer, "issue_price"), 0 if by_operator else self._price(one, payer, "service_fee"))
            == asked
        ]
        if not promised:
            self.problems.append(f"row {row['id']}: nothing pending was promised at {asked}")
            return row
        return promised[0]

    def _price(self, row: Row, partner: str, name: str) -> Fraction:
        terms = self._terms(partner, self._day(row["occurred_at"]))
        assert terms is not None, f"row {row['id']} has no contract"
        return Fraction(terms[name])

    def _terms(self, partner: str, day: date) -> dict[str, Any] | None:
        found = [terms for terms in self.partners[partner]["terms"] if terms["from"] <= day]
        return found[-1] if found else None

    def day_of(self, instant: datetime) -> date:
        """The programme's local day."""
        return instant.astimezone(ZoneInfo(self.programme["timezone"])).date()

    def _day(self, instant: str) -> date:
        return self.day_of(datetime.fromisoformat(instant))


COLUMN_OF = {
    "ISSUE": "issue_value",
    "EARN_REVERSAL": "issue_value",
    "SERVICE_FEE": "service_fee",
    "SERVICE_FEE_REFUND": "service_fee",
    "REIMBURSEMENT": "reimbursement",
    "BURN_REVERSAL": "reimbursement",
    "BREAKAGE_SHARE": "breakage_share",
}

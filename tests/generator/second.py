"""A second settlement: exact lines from the exported transactions, the coalition files and the desk's book alone.

Shares no code with the product. Every row is priced again from the contract that was in force when it happened, in
fractions; the export's own money columns are only compared with that, but for the value of the lots that paid
(``pool_value``): which lots those are is the ledger's choice, and no contract says it. ``statements`` bills the lines.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from fractions import Fraction

from tests.generator.book import Book
from tests.generator.conduct import misconduct
from tests.generator.contracts import Contracts
from tests.generator.debts import misrepaid
from tests.generator.floats import Charge, Float

OPERATOR = "operator"
AWARDS = ("EARN", "CONFIRM")
BURNS = ("BURN", "CAPTURE")
TAKEN_BACK = ("EARN_REVERSAL", "OVERDRAW")
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
    spread: Fraction = Fraction()
    deposits: Fraction = Fraction()
    receivable: Fraction = Fraction()
    """By how much members owe more."""
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


CHARGED = frozenset({"ISSUE", "SERVICE_FEE", "EARN_REVERSAL", "SERVICE_FEE_REFUND"})
"""Lines that draw on the budget of whom they charge."""


class SecondSettlement:
    """Statements of every period in which the export has rows, or that is named."""

    def __init__(self, rows: Iterable[Row], book: Book) -> None:
        self.contracts = Contracts(book.files)
        self.book = book
        self.rows = sorted(rows, key=lambda row: int(row["id"]))
        self.by_id = {row["id"]: row for row in self.rows}
        self.periods: defaultdict[str, PeriodOf] = defaultdict(PeriodOf)
        self.charges: list[Charge] = []
        self.drawn: dict[tuple[str, str, str | None], Fraction] = {}
        """Of money that was paid in: by period, partner, and the earlier period that it corrects."""
        most = self.contracts.programme.get("negative_limit_points")
        self.problems: list[str] = list(misrepaid(self.rows, most))
        for row in self.rows:
            self.problems += [f"row {row['id']} ({row['kind']}) {said}" for said in misconduct(self.contracts, row)]
            self._count(row)
        self.floats = {
            code: Float(Fraction(self.contracts.partners[code]["budget"][0]["limit"]), book.floats[code])
            for code in self.contracts.floats()
        }
        self._draw_floats()

    def charge_fixed_fees(self, label: str, last_day: date) -> None:
        """The fee of everybody whose contract covers the period's last day."""
        for code in self.contracts.partners:
            fee = self.contracts.fixed_fee(code, label, last_day)
            if fee:
                self.periods[label].add(code, "FIXED_FEE", -fee)

    def _draw_floats(self) -> None:
        """What a float gave is not to be paid again, and what a return gave back to it is no money."""
        parts: defaultdict[tuple[str, str, str | None], Fraction] = defaultdict(Fraction)
        for charge in self.charges:
            if charge.partner in self.floats:
                paid = self.floats[charge.partner].draw(charge)
                parts[charge.label, charge.partner, charge.earlier] += paid
        for (label, code, earlier), part in parts.items():
            if part:
                self.drawn[label, code, earlier] = part
        for one in self.floats.values():
            self.problems += one.problems

    def credit_floats(self, label: str) -> None:
        """What a float gave stands on the statement of a period that is closed, out of the deposit."""
        for (of_period, code, earlier), part in self.drawn.items():
            if of_period == label:
                self.periods[label].add(code, "PREPAID", part, earlier)
                self.periods[label].deposits -= part

    def float_of(self, code: str) -> tuple[Fraction, Fraction, list[tuple[Fraction, Fraction]]] | None:
        """What a float holds, what awards and their returns drew of it, and both of its blocks; None without one."""
        if code not in self.floats:
            return None
        blocks = [(block.amount, block.used) for block in self.floats[code].blocks]
        return sum((amount for amount, _ in blocks), Fraction()), sum((used for _, used in blocks), Fraction()), blocks

    # ------------------------------------------------------------ rows

    def _count(self, row: Row) -> None:
        kind, points, period = row["kind"], int(row["points"]), self.periods[row["period"]]
        pool = Fraction(row["pool_value"])
        if kind in WITHOUT_MONEY:
            self._expect(row, {}, 0)
            return
        period.pool += pool
        if kind in AWARDS:
            self._award(row, period, points)
        elif kind in BURNS:
            price = self._price(self._authorized_by(row), row["partner"], "reimbursement")
            self._line(row, period, row["partner"], {"REIMBURSEMENT": -points * price}, pool)
        elif kind == "BURN_REVERSAL":
            price = self._price(self._authorized_by(self.by_id[row["reverses"]]), row["partner"], "reimbursement")
            self._line(row, period, row["partner"], {"BURN_REVERSAL": -points * price}, pool)
        elif kind in TAKEN_BACK:
            self._taken_back(row, period, points, pool)
        elif kind == "REPAY":
            self._repaid(row, period, points, pool)
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
            self._left(row, period, -pool - value)
            self._expect(row, {"issue_value": value}, pool)
            return
        value = -points * self._price(first, funder, "issue_price")
        fee = -points * self._price(first, funder, "service_fee")
        self._line(row, period, funder, {"EARN_REVERSAL": value, "SERVICE_FEE_REFUND": fee}, pool)

    def _repaid(self, row: Row, period: PeriodOf, points: int, pool: Fraction) -> None:
        """A debt of the price at which somebody was credited, out of lots of any price."""
        original = self.by_id[self.by_id[row["reverses"]]["reverses"]]
        payer = original["partner"] if original["funder"] == OPERATOR else original["funder"]
        value = -points * self._price(self._promised_by(original), payer, "issue_price")
        period.receivable -= value
        period.spread += -pool - value
        self._expect(row, {"issue_value": value}, pool)

    def _expired(self, row: Row, period: PeriodOf, pool: Fraction) -> None:
        if row["funder"] == OPERATOR:
            period.subsidy += pool
            self._expect(row, {"breakage_share": -pool}, pool)
            return
        if self.contracts.has_left(row["partner"], row["period"]):
            period.breakage -= pool
            self._expect(row, {}, pool)
            return
        # The lot's own contract shares; a row names no lot, but its price tells which contracts it can be.
        price = pool / int(row["points"])
        shares = {
            Fraction(round(-pool * Fraction(terms["breakage_share"]) * 10**6), 10**6)
            for terms in self.contracts.partners[row["partner"]]["terms"]
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
        earlier = original if original < row["period"] else None
        for kind, money in lines.items():
            period.add(party, kind, money, earlier)
            period.counted[party, kind] += abs(int(row["points"]))
            period.by_command[party, kind, row["command"]] += money
        fee = sum((money for kind, money in lines.items() if kind.startswith("SERVICE_FEE")), Fraction())
        self._left(row, period, -(sum(lines.values(), Fraction()) - fee) - pool)
        if CHARGED.intersection(lines):
            drawn_by, at = row["reverses"] or row["id"], datetime.fromisoformat(row["recorded_at"])
            amount = -sum(lines.values(), Fraction())
            self.charges.append(Charge(row["id"], at, party, amount, drawn_by, row["period"], earlier))
        self._expect(row, {COLUMN_OF[kind]: money for kind, money in lines.items()}, pool)

    def _left(self, row: Row, period: PeriodOf, left: Fraction) -> None:
        """What a movement leaves to the operator: of points that no lot gave, that members owe it."""
        if row["kind"] == "EXPIRE":
            period.breakage += left
        elif row["kind"] == "OVERDRAW":
            period.receivable -= left
        else:
            period.spread += left

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
        return self.contracts.price(partner, self.contracts.day_of(datetime.fromisoformat(row["occurred_at"])), name)


COLUMN_OF = {
    "ISSUE": "issue_value",
    "EARN_REVERSAL": "issue_value",
    "SERVICE_FEE": "service_fee",
    "SERVICE_FEE_REFUND": "service_fee",
    "REIMBURSEMENT": "reimbursement",
    "BURN_REVERSAL": "reimbursement",
    "BREAKAGE_SHARE": "breakage_share",
}

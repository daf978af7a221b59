"""The second settlement's statements: its exact lines billed, taxed, carried forward, disputed and paid."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction

from tests.generator.accounts import AccountOf, Accounts, DepositOf
from tests.generator.book import Disputed
from tests.generator.second import AWARDS, PeriodOf, Row, SecondSettlement

ZERO = Fraction()

Line = tuple[Fraction, Fraction, int | None, Fraction, dict[str, Fraction]]
"""Exact, of which prior, points, billed, and the prior part by the period that it corrects."""


@dataclass
class StatementOf:
    """A partner's statement of one period, as both settlements say it; money in units of the currency."""

    lines: dict[str, Line]
    taxes: dict[str, tuple[Fraction, Fraction, Fraction]]
    """By kind of line: rate, what is taxed, tax."""
    net: Fraction
    carried: Fraction
    withheld: Fraction
    due: Fraction
    paid: Fraction
    open: Fraction
    adjustments: list[tuple[Fraction, str | None]]
    disputes: list[tuple[str, Fraction, Fraction, str, Fraction]]
    """Kind of line, disputed, withheld, state, accepted."""
    covered: tuple[Fraction, Fraction, Fraction, Fraction] = (ZERO, ZERO, ZERO, ZERO)
    """By other statements, out of the deposit, written off, and what came in of that."""
    state: str = ""
    is_final: bool = False
    outstanding: tuple[int, Fraction] | None = None
    """Points and their value that a final statement leaves; the export says no more than that they cannot be more."""


@dataclass
class TotalsOf:
    """What the operator has of one period."""

    pool: Fraction
    margin: Fraction
    tax: Fraction
    deposits: Fraction
    receivable: Fraction
    net: Fraction


LINES_WITHOUT_POINTS = ("FIXED_FEE", "ADJUSTMENT", "PREPAID")


class SecondStatements:
    """Statements of the named periods, which are all that there are until the last of them, in order; read ``at``."""

    def __init__(
        self, second: SecondSettlement, periods: Sequence[tuple[str, date]], minor: Fraction, at: datetime
    ) -> None:
        self.second = second
        self.contracts = second.contracts
        self.book = second.book
        self.periods = periods
        self.minor = minor
        self.totals: dict[str, TotalsOf] = {}
        self.statements: dict[tuple[str, str], StatementOf] = {}
        self.left: dict[str, Fraction] = {}
        """By partner, what its last statement left to the next."""
        self.brought: dict[tuple[str, str], Fraction] = {}
        """By statement, what earlier ones left to it."""
        self.left_all: set[tuple[str, str]] = set()
        """Statements of which all is left to the next."""
        for label, last in periods:
            second.charge_fixed_fees(label, last)
            second.credit_floats(label)
            # What was agreed in this period is about earlier ones, whose statements stand by now.
            for code in self.contracts.partners:
                for amount, of_label in self._adjustments(label, code):
                    second.periods[label].add(code, "ADJUSTMENT", amount, of_label)
            self._settle(label, last, second.periods[label])
        due = {key: statement.due for key, statement in self.statements.items()}
        withheld = {place: self._withheld(one) for place, one in enumerate(self.book.disputes)}
        self.accounts = Accounts(self.contracts, self.book, due, withheld)
        for (label, code), statement in self.statements.items():
            self._settle_up(label, code, statement, self.accounts.of[label, code], at)

    def _label(self, at: datetime) -> str | None:
        """The period of an instant; None after the last of them."""
        day = self.contracts.day_of(at)
        return next((label for label, last in self.periods if day <= last), None)

    # ------------------------------------------------------------ one period

    def _settle(self, label: str, last: date, period: PeriodOf) -> None:
        billed = period.billed(self.minor)
        codes = {code for code, _ in billed}
        last_ones = {code for code in self.contracts.partners if self.contracts.final_label(code) == label}
        nets = [self._statement(label, code, last, period, billed) for code in sorted(codes | last_ones)]
        tax = -sum((sum((tax for *_, tax in one.taxes.values()), ZERO) for one in nets), ZERO)
        net = -sum((one.net for one in nets), ZERO)
        margin = period.margin(self.minor)
        # What this identity leaves over would be a cent that nobody can explain.
        assert net == period.pool + margin + tax + period.deposits - period.receivable, label
        self.totals[label] = TotalsOf(period.pool, margin, tax, period.deposits, period.receivable, net)

    def _statement(
        self, label: str, code: str, last: date, period: PeriodOf, billed: dict[tuple[str, str], Fraction]
    ) -> StatementOf:
        lines: dict[str, Line] = {}
        taxes = {}
        for (partner, kind), amount in billed.items():
            if partner == code:
                parts = {earlier: part for earlier, part in period.prior[code, kind].items() if part}
                points = None if kind in LINES_WITHOUT_POINTS else period.counted[code, kind]
                prior = sum(parts.values(), ZERO)
                lines[kind] = (period.exact[code, kind], prior, points, amount, parts)
                rate = self.contracts.tax_rate(code, kind, last)
                if rate is not None:
                    taxes[kind] = (rate, amount, self._rounded(amount * rate))
        if taxes:
            total = sum((tax for *_, tax in taxes.values()), ZERO)
            lines["TAX"] = (total, ZERO, None, total, {})
        net = sum((line[3] for line in lines.values()), ZERO)
        brought = self.brought[label, code] = self.left.get(code, ZERO)
        final = self.contracts.final_label(code)
        is_final = final is not None and label >= final
        is_too_little = abs(net + brought) < Fraction(self.contracts.programme["minimum_settlement"])
        self.left[code] = net + brought if is_too_little and not is_final else ZERO
        if self.left[code]:
            self.left_all.add((label, code))
        carried = brought - self.left[code]
        if carried:
            lines["CARRIED_FORWARD"] = (carried, ZERO, None, carried, {})
        made = StatementOf(lines, taxes, net, carried, ZERO, net + carried, ZERO, ZERO, [], [], is_final=is_final)
        self.statements[label, code] = made
        return made

    def _rounded(self, amount: Fraction) -> Fraction:
        return round(amount / self.minor) * self.minor

    # ------------------------------------------------------------ what became of it

    def _settle_up(self, label: str, code: str, statement: StatementOf, account: AccountOf, at: datetime) -> None:
        for one in self.book.disputes:
            if (one.label, one.partner) == (label, code):
                withheld = self._withheld(one) if one.state == "OPEN" else ZERO
                accepted = self._accepted(one) if one.state == "ACCEPTED" else ZERO
                statement.disputes.append((one.kind, self._disputed(one), withheld, one.state, accepted))
        statement.disputes.sort()
        statement.adjustments = sorted(self._adjustments(label, code), key=repr)
        statement.withheld = self.accounts.withheld((label, code), at)
        statement.due -= statement.withheld
        statement.paid = account.paid
        statement.covered = (account.offset, account.deposit, account.let_off, account.recovered)
        statement.open = self.accounts.open_of((label, code), at)
        statement.state = self.accounts.state_of((label, code), at)

    def deposit_of(self, code: str) -> DepositOf:
        """A partner's deposit, beside what it owes: statements, what they left, and what no statement says yet."""
        closed = {label for label, _ in self.periods}
        exact = [
            amount
            for label, period in self.second.periods.items()
            if label not in closed
            for (partner, _), amount in period.exact.items()
            if partner == code
        ]
        agreed = [amount for amount, _ in self._adjustments(None, code)]
        return self.accounts.deposit_of(code, sum([*exact, *agreed], self.left.get(code, ZERO)))

    def most_outstanding(self, label: str, code: str) -> tuple[int, Fraction]:
        """What a final statement cannot leave more of: what was issued and neither came back nor expired by then."""
        if label == self.contracts.over_label() and all(row["period"] <= label for row in self.second.rows):
            return 0, ZERO
        own = [row for row in self.second.rows if row["period"] <= label and code == _issuer(row)]
        points = sum(int(row["points"]) for row in own)
        return points, sum((Fraction(row["pool_value"]) for row in own), ZERO)

    def _withheld(self, one: Disputed) -> Fraction:
        """What a dispute withholds while it is open, signed as the charge."""
        # What stands there as a credit nobody withholds, nor anything where all is left to the next statement.
        is_charge = self.statements[one.label, one.partner].lines[one.kind][3] < 0
        return -self._disputed(one) if is_charge and (one.label, one.partner) not in self.left_all else ZERO

    def _disputed(self, one: Disputed) -> Fraction:
        """What is contested: the amount said, or else what the transactions, or the line, come to."""
        if one.asked is not None:
            return one.asked
        if one.commands is None:
            return abs(self.statements[one.label, one.partner].lines[one.kind][3])
        period = self.second.periods[one.label]
        named = sum((period.by_command[one.partner, one.kind, command] for command in one.commands), ZERO)
        return abs(self._rounded(named))

    def _accepted(self, one: Disputed) -> Fraction:
        return self._disputed(one) if one.accepted is None else one.accepted

    def _adjustments(self, label: str | None, code: str) -> list[tuple[Fraction, str | None]]:
        own = [(one.amount, one.label) for one in self.book.adjustments
               if one.partner == code and self._label(one.at) == label]  # fmt: skip
        credited = [
            (self._accepted(one), one.label)
            for one in self.book.disputes
            if one.partner == code and one.ended_at is not None and one.state == "ACCEPTED"
            and self._label(one.ended_at) == label
        ]  # fmt: skip
        return [*own, *credited]


def _issuer(row: Row) -> str:
    """Of which points the row certainly speaks: what a return takes may be out of anybody's lots."""
    return row["funder"] if row["kind"] in (*AWARDS, "EXPIRE") else ""

"""What became of the second settlement's statements: disputed, paid, written off, defaulted; and the deposits."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

from tests.generator.book import CLOSED, DEFAULTED, LET_OFF, PAID, Book, Disputed, Settled
from tests.generator.contracts import DAY, Contracts

ZERO = Fraction()

Key = tuple[str, str]
"""Label and partner: which statement."""


@dataclass
class AccountOf:
    """One statement's account, signed as the statement is: negative is what the partner owes."""

    due: Fraction
    """What is due without regard to disputes."""
    paid: Fraction = ZERO
    let_off: Fraction = ZERO
    deposit: Fraction = ZERO
    offset: Fraction = ZERO

    @property
    def covered(self) -> Fraction:
        """Due less what was paid, and with what covers it otherwise, but for what was written off and came in."""
        return self.due - self.paid + self.let_off + self.deposit + self.offset

    @property
    def recovered(self) -> Fraction:
        """What came in of what was written off."""
        return min(self.let_off, max(self.covered, ZERO))

    @property
    def left(self) -> Fraction:
        """What is left of it, disputed or not."""
        return self.covered - self.recovered


@dataclass
class DepositOf:
    """A partner's deposit, as both settlements say it."""

    balance: Fraction
    required: Fraction
    shortfall: Fraction
    owes: Fraction
    free: Fraction
    defaulted_at: datetime | None
    payments: list[Fraction] = field(default_factory=list)


class Accounts:
    """Every statement's account and every deposit, told from the book, event by event."""

    def __init__(
        self, contracts: Contracts, book: Book, due: Mapping[Key, Fraction], withheld: Mapping[int, Fraction]
    ) -> None:
        """``due``: of every statement; ``withheld``: by the place of a dispute in the book, what it withholds."""
        self.contracts = contracts
        self.book = book
        self.withheld_of = withheld
        self.of = {key: AccountOf(amount) for key, amount in due.items()}
        self.disputable_until: dict[str, datetime] = {}
        self.due_at: dict[str, datetime] = {}
        self.held: defaultdict[str, Fraction] = defaultdict(Fraction)
        self.defaulted_at: dict[str, datetime] = {}
        happened: list[tuple[datetime, int, Settled]] = [(one.at, 0, one) for one in book.statements]
        happened += [(one.at, 0, Settled(one.at, "deposit", "", one.partner, one.amount)) for one in book.deposits]
        for _, _, one in sorted(happened, key=lambda each: each[0]):
            self._happen(one)

    def _happen(self, one: Settled) -> None:
        key = (one.label, one.partner)
        if one.what == CLOSED:
            self._close(one.label, one.at)
        elif one.what == PAID:
            self.of[key].paid += one.amount
        elif one.what == LET_OFF:
            self.of[key].let_off += one.amount
        elif one.what == DEFAULTED:
            for each in [key] if one.label else sorted(self.of):
                if each[1] == one.partner and self._is_due(each, one.at):
                    self._default(each, one.at)
        else:
            self.held[one.partner] += one.amount

    def _close(self, label: str, at: datetime) -> None:
        """A statement is advised some days after its period's end, disputable for some more, and then due."""
        programme, contracts = self.contracts.programme, self.contracts
        ends = contracts.day_of(at)
        while contracts.label_of(ends - DAY) != label:  # the day after the period's last one
            ends -= DAY
        advice = max(contracts.midnight(ends + timedelta(days=programme["advice_days"])), at)
        whole = contracts.day_of(advice)
        if contracts.midnight(whole) < advice:
            whole += DAY
        until = contracts.midnight(whole + timedelta(days=programme["dispute_days"]))
        self.disputable_until[label] = until
        self.due_at[label] = max(contracts.midnight(ends + timedelta(days=programme["call_days"])), until)

    def withheld(self, key: Key, at: datetime) -> Fraction:
        """What disputes of a statement withheld then."""
        return sum((self.withheld_of[place] for place, one in enumerate(self.book.disputes)
                    if (one.label, one.partner) == key and _is_open(one, at)), ZERO)  # fmt: skip

    def _is_due(self, key: Key, at: datetime) -> bool:
        return key[0] in self.due_at and self.state_of(key, at) == "DUE" and self.open_of(key, at) < 0

    def _default(self, key: Key, at: datetime) -> None:
        """Covered by what the operator owes the partner and nobody disputes any more, then the deposit, then lost."""
        _, partner = key
        owed = self.withheld(key, at) - self.of[key].left
        for other in sorted(self.of):
            until = self.disputable_until.get(other[0])
            if other[1] == partner and other != key and until is not None and until <= at:
                part = min(owed, max(self.of[other].left, ZERO))
                self.of[other].offset -= part
                self.of[key].offset += part
                owed -= part
        part = min(owed, self.held[partner])
        self.held[partner] -= part
        self.of[key].deposit += part
        self.of[key].let_off += owed - part
        self.defaulted_at[partner] = at

    # ------------------------------------------------------------ what is read of it

    def open_of(self, key: Key, at: datetime) -> Fraction:
        """What is left to pay of a statement."""
        return self.of[key].left - self.withheld(key, at)

    def state_of(self, key: Key, at: datetime) -> str:
        """Where a closed statement is in its life."""
        left, due = self.open_of(key, at), self.of[key].due - self.withheld(key, at)
        if at < self.disputable_until[key[0]]:
            return "ISSUED"
        if left * due <= 0:
            return "SETTLED"
        return "DUE" if at >= self.due_at[key[0]] else "FINAL"

    def deposit_of(self, partner: str, unsettled: Fraction) -> DepositOf:
        """A partner's deposit; ``unsettled``: what its account holds beside the statements."""
        left = sum((account.left for (_, code), account in self.of.items() if code == partner), unsettled)
        held, required = self.held[partner], Fraction(self.contracts.partners[partner]["deposit_required"])
        owes = max(-left, ZERO)
        return DepositOf(
            held,
            required,
            max(required - held, ZERO),
            owes,
            max(held - max(required, owes), ZERO),
            self.defaulted_at.get(partner),
            [one.amount for one in self.book.deposits if one.partner == partner],
        )


def _is_open(one: Disputed, at: datetime) -> bool:
    return one.at <= at and (one.ended_at is None or one.ended_at > at)

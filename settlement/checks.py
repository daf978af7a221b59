"""The invariants by number and name, and the result of checking one."""

from collections.abc import Iterable
from dataclasses import dataclass

from settlement.places import PLACES_MAX

NAMES = {
    1: "Per unit, all entries sum to zero",
    2: "Per lot: granted + restored = remaining + reserved + burned + reversed + expired + moved + paid back",
    3: "Balances: available, held, pending, owed = what lots, holds, awards and debts have = sum of movements",
    4: "Opening + issued + restored - burned - reversed - expired - paid back = closing points",
    5: "Pool = sum over lots of (remaining + reserved) x lot price",
    6: "Nets + operator net = 0; operator net = pool change + margin + tax + deposit change - member receivable change",
    7: "Matrix: rows are what issuers' lots gave, columns what partners redeemed",
    8: "Statement = sum of its rounded lines; exact line = sum of its entries",
    9: "Each entry belongs to one period, and is as it was booked",
    10: "Reversals never exceed their original, and carry its party, terms and period",
    11: "Budget: consumed = sum of its entries, within its limit; a float's blocks add up to both, FLOAT_USED to uses",
    12: "One command per key, and each as its fingerprint says",
    13: "Awards and lot uses sum to their command",
    14: "Residue per line at most half a minor unit; ROUNDING = sum of residues",
    15: "Statements made again from the rows are byte-identical",
    16: "Payments instructed = nets due; every payment points to one statement; deposits and bad debts as approved",
    17: "A hold resolves once: captured + released = held",
    18: "No pending award is in a statement; every usable lot is",
    19: "A partner reads no entry, lot or statement of another",
}


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one invariant; ``detail`` says what was found, naming the places where it fails."""

    number: int
    name: str
    holds: bool
    detail: str


def check(number: int, problems: Iterable[str], fact: str) -> Check:
    """The result: holds when there are no problems, and then states the fact."""
    named = list(problems)
    more = "; and more" if len(named) > PLACES_MAX else ""
    detail = "; ".join(named[:PLACES_MAX]) + more if named else fact
    return Check(number, NAMES[number], not named, detail)

"""The auditor's month end: lines rounded once, tax, what is carried forward, and what the operator keeps."""

from collections import defaultdict
from datetime import date, datetime
from fractions import Fraction

from tests.model.ledger import OPERATOR, Ledger, No, micro


def next_to_close(ledger: Ledger) -> str:
    """After the last one; the first is that of the earliest booking where there is history, else of the terms."""
    dates = [terms["from"] for partner in ledger.partners.values() for terms in partner["terms"]]
    return ledger.first_open or (min(ledger.booked) if ledger.has_history else ledger.days.period(min(dates)))


def close(ledger: Ledger, label: str, now: datetime) -> str | None:
    """A refusal's code; else the period is in ``closed`` with its lines, nets, pool and what the operator keeps."""
    ledger.begin(now)
    try:
        if label not in ledger.closed:
            close_next(ledger, label)
    except No as refusal:
        return str(refusal)
    return None


def close_next(ledger: Ledger, label: str) -> None:
    first, following = next_to_close(ledger), ledger.days.ends(label)
    if label < first:
        raise No("PERIOD_NOT_FOUND")
    if ledger.now < ledger.days.midnight(following):
        raise No("PERIOD_NOT_ENDED")
    if label > first:
        raise No("EARLIER_PERIOD_OPEN")
    ledger.period = label
    for code in ledger.partners:
        due = [micro(one.get("fixed_fee", "0")) for one in ledger.partners[code]["terms"] if one["from"] < following]
        if fee := (due or [0])[-1]:
            ledger.add(code, "FIXED_FEE", [1, 0, -fee, 0])
    lines: dict[tuple[str, str], list[int]] = {
        key[1:]: [*sums, round(Fraction(sums[2], 10**4))]
        for key, sums in ledger.positions.items()
        if key[0] == label and key[1] != OPERATOR
    }
    tax = sum(add_tax(ledger, code, following, lines) for code in ledger.partners)
    nets: defaultdict[str, int] = defaultdict(int)
    for (partner, _), figures in lines.items():
        nets[partner] += figures[-1]
    dues = {code: carry(ledger, code, net, lines) for code, net in nets.items()}
    pools = {key[0]: sums[2] for key, sums in ledger.positions.items() if key[2] == "POOL" and key[0] <= label}
    lent = ledger.positions.get((label, OPERATOR, "MEMBER_RECEIVABLE"), [0, 0, 0])[2]
    margin = (-sum(nets.values()) + tax) * 10**4 - pools.get(label, 0) + lent
    ledger.closed[label] = {"lines": lines, "nets": dict(nets), "due": dues, "pool": sum(pools.values()),
                            "margin": margin, "lent": lent}  # fmt: skip
    ledger.first_open = ledger.days.period(following)


def add_tax(ledger: Ledger, code: str, following: date, lines: dict[tuple[str, str], list[int]]) -> int:
    """A line for all taxes of the partner, of the rates of the period's last day; answers its sum in cents."""
    rates = {one["kind"]: Fraction(one["rate"]) for one in ledger.partners[code].get("tax", [])
             if one["from"] < following}  # fmt: skip
    parts = [round(figures[-1] * rates[kind]) for (partner, kind), figures in lines.items()
             if partner == code and kind in rates]  # fmt: skip
    if parts:
        lines[code, "TAX"] = [len(parts), 0, sum(parts) * 10**4, 0, sum(parts)]
    return sum(parts)


def carry(ledger: Ledger, partner: str, net: int, lines: dict[tuple[str, str], list[int]]) -> int:
    """What is due after what earlier statements left and what this one leaves, both too small to be paid."""
    before = ledger.carried.get(partner, 0)
    total = net + before
    left = total if abs(total) < Fraction(ledger.programme.get("minimum_settlement", "0")) * 100 else 0
    ledger.carried[partner] = left
    if before != left:
        lines[partner, "CARRIED_FORWARD"] = [1, 0, (before - left) * 10**4, 0, before - left]
    return total - left

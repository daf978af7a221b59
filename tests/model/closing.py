"""The auditor's month end: lines rounded once, tax, what is carried forward, and what the operator keeps."""

from collections import defaultdict
from datetime import date, datetime, timedelta
from fractions import Fraction

from tests.model.leaving import is_charged, is_final, outstanding
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
    last = ledger.ends.programme_final()
    if last is not None and label >= last and has_points(ledger):
        raise No("POINTS_OPEN")
    if label > first:
        raise No("EARLIER_PERIOD_OPEN")
    ledger.period = label
    for code in ledger.partners:
        if not is_charged(ledger, code, following):
            continue
        due = [micro(one.get("fixed_fee", "0")) for one in ledger.partners[code]["terms"] if one["from"] < following]
        if fee := (due or [0])[-1]:
            ledger.add(code, "FIXED_FEE", [1, 0, -fee, 0])
    credit_floats(ledger, label)
    lines: dict[tuple[str, str], list[int]] = {
        key[1:]: [*sums, round(Fraction(sums[2], 10**4))]
        for key, sums in ledger.positions.items()
        if key[0] == label and key[1] != OPERATOR
    }
    tax = sum(add_tax(ledger, code, following, lines) for code in ledger.partners)
    finals = {code: outstanding(ledger, code, label) for code in ledger.partners if is_final(ledger, code, label)}
    nets: defaultdict[str, int] = defaultdict(int, dict.fromkeys(finals, 0))
    for (partner, _), figures in lines.items():
        nets[partner] += figures[-1]
    dues = {code: carry(ledger, code, net, lines, is_last=code in finals) for code, net in nets.items()}
    pools = {key[0]: sums[2] for key, sums in ledger.positions.items() if key[2] == "POOL" and key[0] <= label}
    lent = ledger.positions.get((label, OPERATOR, "MEMBER_RECEIVABLE"), [0, 0, 0])[2]
    used = sum(figures[2] for (_, kind), figures in lines.items() if kind == "PREPAID")
    margin = (-sum(nets.values()) + tax) * 10**4 - pools.get(label, 0) + used + lent
    ledger.closed[label] = {
        "lines": lines, "nets": dict(nets), "due": dues, "left": {code: ledger.carried[code] for code in nets},
        "pool": sum(pools.values()), "margin": margin, "lent": lent, "dates": clearing_dates(ledger, following),
        "finals": finals,
    }  # fmt: skip
    ledger.first_open = ledger.days.period(following)


def credit_floats(ledger: Ledger, label: str) -> None:
    """What awards drew on money that was paid in before is credited; what they gave back of earlier periods beside."""
    for (period, partner, is_prior), used in sorted(ledger.float_used.items()):
        if period == label and used:
            ledger.add(partner, "PREPAID", [1, 0, used, used if is_prior else 0])


def clearing_dates(ledger: Ledger, following: date) -> tuple[datetime, datetime, datetime]:
    """When the statements are advised, until when they may be disputed, when they are due: never before both."""
    programme, days = ledger.programme, ledger.days
    advised = max(days.midnight(following + timedelta(days=programme.get("advice_days", 0))), ledger.now)
    whole_day = days.day(advised)
    if days.midnight(whole_day) < advised:
        whole_day += timedelta(days=1)
    disputable = days.midnight(whole_day + timedelta(days=programme.get("dispute_days", 7)))
    due = days.midnight(following + timedelta(days=programme.get("call_days", 14)))
    return advised, disputable, max(due, disputable)


def has_points(ledger: Ledger) -> bool:
    """Whether any member has any left, of whichever kind."""
    return any(lot["left"] or lot["held"] for lot in ledger.lots) or any(award["open"] for award in ledger.awards)


def add_tax(ledger: Ledger, code: str, following: date, lines: dict[tuple[str, str], list[int]]) -> int:
    """A line for all taxes of the partner, of the rates of the period's last day; answers its sum in cents."""
    begun = {one["kind"]: one for one in ledger.partners[code].get("tax", []) if one["from"] < following}
    last_day = following - timedelta(days=1)
    rates = {kind: Fraction(one["rate"]) for kind, one in begun.items() if last_day <= one.get("to", last_day)}
    parts = {key: (figures[-1], round(figures[-1] * rates[key[1]])) for key, figures in lines.items()
             if key[0] == code and key[1] in rates}  # fmt: skip
    tax = sum(part for _, part in parts.values())
    ledger.taxes.setdefault(ledger.period, {}).update(parts)
    if parts:
        lines[code, "TAX"] = [len(parts), 0, tax * 10**4, 0, tax]
    return tax


def carry(ledger: Ledger, partner: str, net: int, lines: dict[tuple[str, str], list[int]], *, is_last: bool) -> int:
    """What is due after what earlier statements left and what this one leaves, both too small to be paid."""
    before = ledger.carried.get(partner, 0)
    total = net + before
    minimum = 0 if is_last else Fraction(ledger.programme.get("minimum_settlement", "0")) * 100
    left = total if abs(total) < minimum else 0
    ledger.carried[partner] = left
    if before != left:
        lines[partner, "CARRIED_FORWARD"] = [1, 0, (before - left) * 10**4, 0, before - left]
    return total - left

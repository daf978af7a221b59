"""The auditor's purchases: points of rules and campaigns, and who pays for them."""

from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from math import floor
from typing import Any

from tests.model.leaving import check
from tests.model.ledger import OPERATOR, Dict, Ledger, No, micro


def eligible(record: Dict, counts: Callable[[str, Any], bool]) -> int:
    """Cents of what the member keeps in lines that count; what came back without lines is taken off in proportion."""
    total, kept, unnamed = record["command"]["amount_minor"], record["kept"], record["unnamed_minor"]
    found = total
    if kept is not None:
        total = sum(minor for _, _, minor in kept.values())
        found = sum(minor for sku, (category, _, minor) in kept.items() if counts(sku, category))
    return found * (total - unnamed) // total if unnamed and total else int(found)


def kept_minor(record: Dict) -> int:
    kept = record["kept"]
    total = record["command"]["amount_minor"] if kept is None else sum(minor for _, _, minor in kept.values())
    return int(total - record["unnamed_minor"])


def rule_points(rule: Dict, record: Dict) -> int:
    """Points of a rule for what the member keeps."""
    cents = eligible(record, lambda _, category: category not in rule.get("exclude_categories", ()))
    points = floor(Fraction(cents, 100) * Fraction(rule["points_per_unit"]))
    return min(points, int(rule.get("max_points", 10**9)))


def rules_of(ledger: Ledger, partner: str) -> list[Dict]:
    return sorted(ledger.partners[partner]["earn_rule"], key=lambda rule: bool(rule["code"] != "base"))


def campaign_points(ledger: Ledger, campaign: Dict, record: Dict) -> int:
    """The whole bonus for what the member keeps."""
    if "multiplier" in campaign:
        base = rule_points(rules_of(ledger, record["command"]["partner"])[0], record)
        points = floor(base * (Fraction(campaign["multiplier"]) - 1))
    elif "bonus_points" in campaign:
        reached = 0 < kept_minor(record) >= Fraction(campaign.get("min_amount", "0")) * 100
        points = campaign["bonus_points"] if reached else 0
    else:
        categories = campaign.get("include_categories")
        cents = eligible(record, lambda _, category: categories is None or category in categories)
        nobody_knows = record["kept"] is None and categories is not None
        points = 0 if nobody_knows else floor(Fraction(cents, 100) * Fraction(campaign["points_per_unit"]))
    return min(points, int(campaign.get("max_points", 10**9)))


def payers(campaign: Dict) -> list[tuple[str, Fraction]]:
    """By code; the shares sum to one."""
    return sorted((one.get("partner", OPERATOR), Fraction(one.get("share", "1"))) for one in campaign["funding"])


def split(campaign: Dict, points: int) -> dict[str, int]:
    """Largest remainder, ties by code."""
    exact = {code: points * share for code, share in payers(campaign)}
    parts = {code: floor(part) for code, part in exact.items()}
    by_rest = sorted(exact, key=lambda code: (parts[code] - exact[code], code))
    for code in by_rest[: points - sum(parts.values())]:
        parts[code] += 1
    return parts


def earn(ledger: Ledger, record: Dict) -> None:
    command = record["command"]
    partner, lines = command["partner"], command["lines"]
    terms = ledger.terms(partner, command["at"])
    if lines is not None:
        record["kept"] = {sku: (category, quantity, minor) for sku, category, quantity, minor in lines}
    asked = [(rule, rule_points(rule, record)) for rule in rules_of(ledger, partner)]
    window = ledger.window(partner)
    left = 0 if window is None else ledger.free(window)
    granted = own_awards(asked, partner, window, micro(terms["issue_price"]) + micro(terms["service_fee"]), left)
    bonuses = [(campaign, campaign_points(ledger, campaign, record)) for campaign in running(ledger, command)]
    ledger.roll(record["account"], command["at"])
    for (rule, wanted), (points, funder) in zip(asked, granted, strict=True):
        award(ledger, record, rule, (funder, partner), (wanted, points), (terms, window if funder == partner else None))
    for campaign, points in bonuses:
        for payer, part in split(campaign, points).items():
            if part:
                bonus(ledger, record, campaign, payer, part, terms)
    record["points"] = sum(one["granted"] for one in record["awards"])
    record["declined"] = sum(one["asked"] for one in record["awards"]) - record["points"]


def waits_until(ledger: Ledger, command: Dict, funder: str) -> tuple[Any, bool]:
    """When the return window ends, or None where points are usable at once; whether they wait for money too."""
    at, days = command["at"], ledger.terms(command["partner"], command["at"]).get("pending_days", 0)
    who = {command["partner"], funder} - {OPERATOR}
    waits = any(ledger.partners[partner].get("risk") == "PAID_FIRST" for partner in who)
    release = ledger.days.midnight(ledger.days.day(at) + timedelta(days=days + 1)) if days else at
    return (release if waits or (days and release > ledger.then) else None), waits


def own_awards(
    asked: list[tuple[Dict, int]], partner: str, window: Dict | None, price: int, left: int
) -> list[tuple[int, str]]:
    """What each rule grants, and who pays."""
    total = sum(points for _, points in asked)
    if total * price <= max(left, 0) and (window is not None or total == 0):
        return [(points, partner) for _, points in asked]
    behaviour = "DECLINE" if window is None else window["plan"].get("on_limit", "DECLINE")
    granted = []
    for rule, points in asked:
        if behaviour == "PARTIAL":
            granted.append((min(points, max(left, 0) // price), partner))
        elif behaviour == "OPERATOR_FUNDED":
            granted.append((points, partner if points * price <= left else OPERATOR))
        elif behaviour == "BASE_ONLY":
            granted.append((points if rule["code"] == "base" else 0, partner))
        else:
            raise No("BUDGET_EXHAUSTED")
        left -= granted[-1][0] * price if granted[-1][1] == partner else 0
    if behaviour == "BASE_ONLY" and left < 0:
        raise No("BUDGET_EXHAUSTED")
    return granted


def running(ledger: Ledger, command: Dict) -> list[Dict]:
    day = ledger.days.day(command["at"])
    return [
        campaign
        for campaign in ledger.campaigns
        if campaign["from"] <= day <= campaign["to"]
        and command["partner"] in campaign.get("partners", [command["partner"]])
    ]


def bonus(ledger: Ledger, record: Dict, campaign: Dict, payer: str, asked: int, till_terms: Dict) -> None:
    """One funder's part of a campaign's bonus."""
    terms, window, funder, granted = till_terms, None, payer, asked
    if payer != OPERATOR:
        window = ledger.window(payer)
        try:
            check(ledger, "earn", payer, record["command"]["at"])
            terms = ledger.terms(payer, record["command"]["at"])
        except No:
            window, granted = None, 0
    if "budget" in campaign and granted:
        window = ledger.window_of(f"campaign {campaign['code']}", campaign["budget"])
    if window is None and payer != OPERATOR:
        granted = 0
    if window is not None:
        price = micro(terms["issue_price"]) + (micro(terms["service_fee"]) if payer != OPERATOR else 0)
        left = max(ledger.free(window), 0)
        behaviour = window["plan"].get("on_limit", "DECLINE")
        if asked * price > left and behaviour == "OPERATOR_FUNDED":
            terms, window, funder = till_terms, None, OPERATOR
        elif asked * price > left:
            granted = left // price if behaviour == "PARTIAL" else 0
    award(ledger, record, campaign, (funder, payer), (asked, granted), (terms, window))


def award(
    ledger: Ledger,
    record: Dict,
    rule: Dict,
    who: tuple[str, str],
    points: tuple[int, int],
    paid: tuple[Dict, Dict | None],
) -> None:
    """Books one award: usable at once, or pending."""
    (funder, payer), (asked, granted), (terms, window) = who, points, paid
    partner, at = record["command"]["partner"], record["command"]["at"]
    release, waits = waits_until(ledger, record["command"], funder)
    price, fee = micro(terms["issue_price"]), 0 if funder == OPERATOR else micro(terms["service_fee"])
    lot = {"account": record["account"], "issuer": partner if funder == OPERATOR else funder, "funder": funder,
           "price": price, "share": Fraction(terms.get("breakage_share", "0")), "earned": at, "parent": None,
           "number": next(ledger.numbers)}  # fmt: skip
    one = {"rule": rule, "funder": funder, "payer": payer, "asked": asked, "granted": granted, "price": price,
           "fee": fee, "window": window, "lot": lot, "open": granted, "account": record["account"], "earned": at,
           "person": record["person"], "seller": partner, "release": release, "waits": waits,
           "charged_in": None}  # fmt: skip
    record["awards"].append(one)
    if window is not None and granted:
        ledger.draw(window, "reserved", granted * (price + fee))
    if release is not None and granted:
        ledger.awards.append(one)
        ledger.note_row()
    elif granted:
        ledger.confirm(one)
    else:
        ledger.book(funder, 0, 0, {"ISSUE": 0, "SERVICE_FEE": 0})
        one["charged_in"] = record["period"]

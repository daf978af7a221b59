"""Random coalitions: a coalition file as a dict, and as the text that ``apply`` reads."""

import json
from collections.abc import Sequence
from datetime import date
from random import Random  # noqa: TID251 (seeded: invented data)
from typing import Any, TypeVar

CATEGORIES = ("food", "tobacco", "fuel", "gift")
BEGINS = {"month": date(2017, 1, 1), "half_month": date(2017, 1, 1), "week": date(2017, 1, 2)}
"""First day of the contracts, by the kind of period: budgets begin with one."""

CODES = ("grocer", "fuel", "restaurant", "pharmacy", "florist", "bakery")
CURRENCIES = (
    ("EUR", 2, "Europe/Berlin"),
    ("JPY", 0, "Asia/Tokyo"),
    ("JOD", 3, "Asia/Amman"),
    ("USD", 2, "America/New_York"),
)
"""Clocks change on 26 March, never, at the midnight before 31 March, which nobody sees, and on 12 March."""

CLAW_BACKS: tuple[dict[str, Any], ...] = (
    {"claw_back": "negative_balance"},
    {"claw_back": "own_lot_then_issuer"},
    {"claw_back": "negative_balance", "negative_limit_points": 120},
    {"claw_back": "all_lots"},
)
ENDINGS = ("leaves", "ends", "both", "none")
SUSPENDED_BURNS = ("REFUSE", "CAPTURE", "ALLOW")
Option = TypeVar("Option")
DIGITS = {code: digits for code, digits, _ in CURRENCIES}
CAMPAIGN_LIMITS = ("DECLINE", "PARTIAL", "OPERATOR_FUNDED")
TAXED = ("ISSUE", "SERVICE_FEE", "SERVICE_FEE_REFUND", "REIMBURSEMENT", "BREAKAGE_SHARE", "FIXED_FEE", "ADJUSTMENT")
EASY_AND_AWKWARD_PRICES = ("0.01", "0.010001", "0.012347", "0.0105", "0.015", "0.009995", "0.0333335", "0.5")


def in_turn(seed: int, what: str, options: Sequence[Option]) -> Option:
    """One of the options, so that so many seeds as there are options see each of them, in an order of their own."""
    order = list(options)
    Random(f"{what} {seed // len(order)}").shuffle(order)  # noqa: S311 (no secret)
    return order[seed % len(order)]


def random_coalition(random: Random, seed: int) -> dict[str, Any]:
    """Two to six partners whose prices change, budgets that run out, and points that soon expire."""
    currency, digits, zone = in_turn(seed, "currency", CURRENCIES)
    period = in_turn(seed, "period", tuple(BEGINS))
    partners = [_partner(random, code, digits, period) for code in random.sample(CODES, random.randint(2, len(CODES)))]
    if random.random() < 0.7:
        _make_even(partners[0], digits)
    codes = [partner["code"] for partner in partners]
    prepaid = {partner["code"] for partner in partners if partner["budget"][0].get("funding") == "PREPAID"}
    return {
        "programme": {
            "name": "Generated Coalition",
            "currency": currency,
            "timezone": zone,
            "point_value": "0.01",
            "period": period,
            **_expiry(random, seed),
            "grace_days": random.choice((0, 4, 30)),
            "max_backdate_days": 60,
            "hold_minutes": in_turn(seed, "hold", (90, 3_000, 20_000)),
            **in_turn(seed, "claw back", CLAW_BACKS),
            **_calendar(random, digits),
        },
        "partner": partners,
        "campaign": [_campaign(random, number, codes, prepaid, digits) for number in range(random.randint(0, 3))],
    }


def _make_even(partner: dict[str, Any], digits: int) -> None:
    """A partner whose small budget its awards can spend to the last minor unit."""
    for terms in partner["terms"]:
        terms |= {"issue_price": "0.01", "service_fee": "0"}
    [budget] = partner["budget"]
    budget["on_limit"] = "PARTIAL"
    budget.pop("approved_overdraft", None)
    if "every" in budget:
        budget["limit"] = _money(5 * 10**digits, digits)


def _calendar(random: Random, digits: int) -> dict[str, Any]:
    """Days after a period's end, and the smallest amount that is paid."""
    advice, dispute = random.choice((0, 2)), random.choice((0, 7, 30))
    minimum = {"minimum_settlement": _money(random.choice((0, 1, 2_000, 6_000)), digits)}
    return {"advice_days": advice, "dispute_days": dispute, "call_days": advice + dispute + 3} | minimum


def _expiry(random: Random, seed: int) -> dict[str, Any]:
    """Where a partner leaves, mostly soon: so that some of its points do after its final statement."""
    if in_turn(seed, "ending", ENDINGS) == "leaves":
        return {"expiry": "months", "expiry_months": 1}
    policy = in_turn(seed, "expiry", ("months", "rolling", "year_end"))
    if policy == "year_end":
        return {"expiry": policy, "expiry_years": random.choice((0, 1))}
    return {"expiry": policy, "expiry_months": random.choice((1, 1, 2, 24))}


def toml_text(coalition: dict[str, Any]) -> str:
    """The coalition file."""
    lines = ["[programme]", *_keys(coalition["programme"])]
    for partner in coalition["partner"]:
        lines += ["[[partner]]", *_keys(partner)]
        for section in ("terms", "budget", "earn_rule", "tax"):
            for version in partner[section]:
                lines += [f"[[partner.{section}]]", *_keys(version)]
    for campaign in coalition["campaign"]:
        lines += ["[[campaign]]", *_keys(campaign), f"funding = [{', '.join(map(_inline, campaign['funding']))}]"]
        if "budget" in campaign:
            lines += ["[campaign.budget]", *_keys(campaign["budget"])]
    return "\n".join(lines) + "\n"


def _keys(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items() if not _is_section(value)]


def _inline(table: dict[str, Any]) -> str:
    return f"{{ {', '.join(_keys(table))} }}"


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value: Any) -> str:
    return str(value) if isinstance(value, date) else json.dumps(value)


def _partner(random: Random, code: str, digits: int, period: str) -> dict[str, Any]:
    starts = [BEGINS[period], *sorted(date(2017, month, random.randint(1, 28)) for month in random.sample((3, 4), 1))]
    return {
        "code": code,
        "name": code.title(),
        "category": code,
        "risk": random.choice(("NORMAL", "NORMAL", "PAID_FIRST")),
        "deposit_required": _money(random.choice((0, 0, 900)), digits),
        "suspended_burns": random.choice(SUSPENDED_BURNS),
        "stores": [],
        "terms": [_terms(random, start, digits) for start in starts],
        "budget": [_budget(random, digits, period)],
        "earn_rule": _rules(random, BEGINS[period]),
        "tax": _taxes(random, BEGINS[period]),
    }


def _terms(random: Random, start: date, digits: int) -> dict[str, Any]:
    return {
        "from": start,
        "issue_price": _price(random),
        "service_fee": random.choice(("0", "0.001", "0.001003", "0.0015")),
        "reimbursement": _price(random),
        "breakage_share": random.choice(("0", "0.25", "0.333333", "0.5", "1")),
        "pending_days": random.choice((0, 0, 3, 30)),
        "fixed_fee": _money(random.choice((0, 7, 2_000, 5_001)), digits),
    }


def _money(minor: int, digits: int) -> str:
    return f"{minor / 10**digits:.{digits}f}"


def _price(random: Random) -> str:
    return random.choice(EASY_AND_AWKWARD_PRICES)[:8]


def _campaign(random: Random, number: int, codes: list[str], prepaid: set[str], digits: int) -> dict[str, Any]:
    """A bonus that one pays, or several in shares, of which the operator may have one.

    A budget of its own spares its payers' floats, and no export says which a row drew on: none where one has a float.
    """
    payers: list[dict[str, Any]] = [{"partner": code} for code in random.sample(codes, random.randint(1, len(codes)))]
    if random.random() < 0.4:
        payers[-1] = {"operator": True}
    shares = [random.randint(1, 9) * 100_000 // len(payers) for _ in payers[1:]]
    for payer, share in zip(payers, [1_000_000 - sum(shares), *shares], strict=True):
        payer["share"] = f"{share / 1_000_000:.6f}"
    gives = random.choice(
        (
            {"multiplier": "1.5"},
            {"bonus_points": 101, "min_amount": _money(2_000, digits)},
            {"points_per_unit": "0.333"},
        )
    )
    spared = prepaid & {payer.get("partner") for payer in payers}
    budget = {"limit": _money(random.choice((300, 5_000)), digits), "on_limit": random.choice(CAMPAIGN_LIMITS)}
    return {
        "code": f"campaign-{number}",
        "name": f"Campaign {number}",
        "from": date(2017, random.randint(1, 3), 1),
        "to": date(2017, random.randint(3, 5), 28),
        "partners": random.sample(codes, random.randint(1, len(codes))),
        **gives,
        "funding": payers,
        **({"budget": budget} if random.random() < 0.3 and not spared else {}),
    }


def _budget(random: Random, digits: int, period: str) -> dict[str, Any]:
    limit = _money(random.choice((500, 2_500, 10_000_000)), digits)
    on_limit = random.choice(("DECLINE", "PARTIAL", "BASE_ONLY", "OPERATOR_FUNDED"))
    begins: dict[str, Any] = {"from": BEGINS[period]}
    after = {"after_period": random.choice(("CREDIT_CURRENT", "USE_OR_LOSE")), "alert_at": "0.80"}
    kind = random.choice(("prepaid", "overdraft", "limit", "limit"))
    if kind == "prepaid":
        opening = _money(random.choice((0, 300, 1_500)), digits)
        return begins | {"limit": opening, "on_limit": on_limit, "funding": "PREPAID"} | after
    if kind == "overdraft":
        overdraft = _money(random.choice((1, 700)), digits)
        return (
            begins | {"every": period, "limit": limit, "on_limit": "OVERDRAFT", "approved_overdraft": overdraft} | after
        )
    return begins | {"every": period, "limit": limit, "on_limit": on_limit} | after


def _taxes(random: Random, begins: date) -> list[dict[str, Any]]:
    """Rates of some kinds of lines, which change on any day, or end."""
    taxes = []
    for kind in random.sample(TAXED, random.choice((0, 0, 2, 4))):
        changes = date(2017, random.randint(2, 4), random.randint(1, 28))
        first = {"kind": kind, "from": begins, "rate": random.choice(("0", "0.19", "0.125", "0.5", "0.333333"))}
        taxes += random.choice(
            ([first], [first | {"to": changes}], [first, {"kind": kind, "from": changes, "rate": "0.21"}])
        )
    return taxes


def _rules(random: Random, begins: date) -> list[dict[str, Any]]:
    base = {"code": "base", "from": begins, "points_per_unit": random.choice(("1", "1.5", "2"))}
    bonus = {
        "code": "bonus",
        "from": begins,
        "points_per_unit": "0.75",
        "max_points": random.choice((10, 90)),
        "exclude_categories": ["tobacco"],
    }
    return [base, bonus] if random.random() < 0.5 else [base]

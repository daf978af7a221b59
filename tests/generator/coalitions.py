"""Random coalitions: a coalition file as a dict, and as the text that ``apply`` reads."""

import json
from datetime import date
from random import Random  # noqa: TID251 (seeded: invented data)
from typing import Any

CATEGORIES = ("food", "tobacco", "fuel", "gift")
CODES = ("grocer", "fuel", "restaurant", "pharmacy", "florist", "bakery")
CURRENCIES = (
    ("EUR", 2, "Europe/Berlin"),
    ("JPY", 0, "Asia/Tokyo"),
    ("BHD", 3, "Asia/Bahrain"),
    ("USD", 2, "America/New_York"),
)
DIGITS = {code: digits for code, digits, _ in CURRENCIES}
EASY_AND_AWKWARD_PRICES = ("0.01", "0.010001", "0.012347", "0.0105", "0.015", "0.009995", "0.0333335", "0.5")


def random_coalition(random: Random) -> dict[str, Any]:
    """Two to six partners whose prices change, budgets that run out, and points that soon expire."""
    currency, digits, zone = random.choice(CURRENCIES)
    return {
        "programme": {
            "name": "Generated Coalition",
            "currency": currency,
            "timezone": zone,
            "point_value": "0.01",
            "period": "month",
            "expiry_months": random.choice((1, 2, 3, 24)),
            "grace_days": random.choice((0, 10, 30)),
            "max_backdate_days": 60,
            "claw_back": random.choice(("own_lot_then_issuer", "all_lots")),
        },
        "partner": [_partner(random, code, digits) for code in random.sample(CODES, random.randint(2, len(CODES)))],
    }


def toml_text(coalition: dict[str, Any]) -> str:
    """The coalition file."""
    lines = ["[programme]", *_keys(coalition["programme"])]
    for partner in coalition["partner"]:
        lines += ["[[partner]]", *_keys(partner)]
        for section in ("terms", "budget", "earn_rule"):
            for version in partner[section]:
                lines += [f"[[partner.{section}]]", *_keys(version)]
    return "\n".join(lines) + "\n"


def _keys(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items() if not _is_section(value)]


def _is_section(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _value(value: Any) -> str:
    return str(value) if isinstance(value, date) else json.dumps(value)


def _partner(random: Random, code: str, digits: int) -> dict[str, Any]:
    starts = [date(2017, 1, 1), *sorted(date(2017, month, random.randint(1, 28)) for month in random.sample((3, 4), 1))]
    return {
        "code": code,
        "name": code.title(),
        "category": code,
        "risk": random.choice(("NORMAL", "NORMAL", "PAID_FIRST")),
        "stores": [],
        "terms": [_terms(random, start, digits) for start in starts],
        "budget": [_budget(random, digits)],
        "earn_rule": _rules(random),
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


def _budget(random: Random, digits: int) -> dict[str, Any]:
    return {
        "from": date(2017, 1, 1),
        "every": "month",
        "limit": _money(random.choice((500, 2_500, 10_000_000)), digits),
        "on_limit": random.choice(("DECLINE", "PARTIAL", "BASE_ONLY", "OPERATOR_FUNDED")),
        "after_period": random.choice(("CREDIT_CURRENT", "USE_OR_LOSE")),
        "alert_at": "0.80",
    }


def _rules(random: Random) -> list[dict[str, Any]]:
    base = {"code": "base", "from": date(2017, 1, 1), "points_per_unit": random.choice(("1", "1.5", "2"))}
    bonus = {
        "code": "bonus",
        "from": date(2017, 1, 1),
        "points_per_unit": "0.75",
        "max_points": random.choice((10, 90)),
        "exclude_categories": ["tobacco"],
    }
    return [base, bonus] if random.random() < 0.5 else [base]

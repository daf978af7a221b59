"""Coalitions to be drawn: budgets of all kinds that soon run out, campaigns, taxes, calendars, the smallest amount."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from tests.generator.coalitions import toml_text

Table = dict[str, Any]
Draw = st.DrawFn

STARTS = datetime(2017, 2, 22, 9, tzinfo=UTC)
BEGINS = {"month": date(2017, 2, 1), "half_month": date(2017, 2, 16), "week": date(2017, 2, 13)}
"""The first day of the first period, by their kind; and of a second one in which budgets and prices change."""
CHANGES = {"month": date(2017, 3, 1), "half_month": date(2017, 3, 16), "week": date(2017, 3, 13)}

# Odd points at these prices are half a cent or half a micro-unit: ties, which are rounded to the even neighbour.
PRICES = ("0.010001", "0.012347", "0.015", "0.009995", "0.0105", "0.02")
LIMITS = ("6.01", "3.00", "20.00", "0.90", "500.00")
RATES = ("0.19", "0.5", "0.125", "0.333333", "0")
# Ties, what does not divide, and shares of which a smaller bonus can give one payer more.
SHARES = (("0.5", "0.5"), ("0.02", "0.49", "0.49"), ("0.333334", "0.333333", "0.333333"), ("0.6", "0.4"), ("1",))
TAXED = (
    "ISSUE", "SERVICE_FEE", "REIMBURSEMENT", "EARN_REVERSAL", "BURN_REVERSAL", "BREAKAGE_SHARE", "FIXED_FEE",
    "ADJUSTMENT",
)  # fmt: skip
ON_LIMIT = ("PARTIAL", "OPERATOR_FUNDED", "PARTIAL", "BASE_ONLY", "DECLINE")


@st.composite
def coalitions(draw: Draw) -> str:
    """A coalition file of three partners."""
    period = draw(st.sampled_from(("month", "week", "half_month")))
    codes = ("grocer", "fuel", "restaurant")
    advice, dispute = draw(st.sampled_from(((0, 7), (2, 0), (1, 20))))
    programme = {
        "name": "Drawn Coalition",
        "currency": "EUR",
        "timezone": draw(st.sampled_from(("Europe/Berlin", "America/New_York"))),
        "point_value": "0.01",
        "period": period,
        **draw(
            st.sampled_from(({"expiry_months": 1}, {"expiry_months": 24}, {"expiry": "rolling", "expiry_months": 1}))
        ),
        "grace_days": 10,
        "max_backdate_days": 30,
        "hold_minutes": 3000,
        "claw_back": draw(st.sampled_from(("own_lot_then_issuer", "all_lots", "negative_balance"))),
        "minimum_settlement": draw(st.sampled_from(("2.00", "0", "0.01", "30.00"))),
        "advice_days": advice,
        "dispute_days": dispute,
        "call_days": advice + dispute + draw(st.sampled_from((0, 5))),
    }
    return toml_text(
        {
            "programme": programme,
            "partner": [_partner(draw, code, period, kind) for code, kind in zip(codes, _kinds(draw), strict=True)],
            "campaign": [_campaign(draw, number, codes) for number in range(draw(st.integers(1, 3)))],
        }
    )


def _kinds(draw: Draw) -> list[str]:
    """The kinds of the three budgets, in any order: what the rules look for is there, mostly."""
    kinds = [
        draw(st.sampled_from(one))
        for one in (("float", "float, then a limit"), ("overdraft", "single"), ("limit", "float", "single"))
    ]
    return list(draw(st.permutations(kinds)))


def _partner(draw: Draw, code: str, period: str, kind: str) -> Table:
    begins = BEGINS[period]
    starts = [begins, *draw(st.sampled_from(((), (CHANGES[period] + timedelta(days=2),))))]
    rules = [{"code": "base", "from": begins, "points_per_unit": draw(st.sampled_from(("1", "1.5", "2")))}]
    if draw(st.booleans()):
        bonus = {"code": "bonus", "from": begins, "points_per_unit": "0.75", "max_points": 90}
        rules.append(bonus | {"exclude_categories": ["tobacco"]})
    return {
        "code": code,
        "name": code.title(),
        "category": code,
        "risk": draw(st.sampled_from(("NORMAL", "NORMAL", "NORMAL", "PAID_FIRST"))),
        "stores": [],
        "terms": [_terms(draw, start) for start in starts],
        "budget": _budgets(draw, period, kind),
        "earn_rule": rules,
        "tax": [tax for kind in draw(st.lists(st.sampled_from(TAXED), unique=True, max_size=4))
                for tax in _taxes(draw, kind, period)],
    }  # fmt: skip


def _terms(draw: Draw, start: date) -> Table:
    return {
        "from": start,
        "issue_price": draw(st.sampled_from(PRICES)),
        "service_fee": draw(st.sampled_from(("0.001003", "0.005", "0"))),
        "reimbursement": draw(st.sampled_from(("0.009007", "0.0095", "0.015"))),
        "breakage_share": draw(st.sampled_from(("0.5", "0.333333", "0", "1"))),
        "pending_days": draw(st.sampled_from((0, 0, 3))),
        "fixed_fee": draw(st.sampled_from(("0", "0.07", "1.99"))),
    }


def _budgets(draw: Draw, period: str, kind: str) -> list[Table]:
    first = {"from": BEGINS[period], **_alert(draw)}
    if kind.startswith("float"):
        opening = {"limit": draw(st.sampled_from(("0", "0.90", "3.00")))}
        budget = first | opening | {"funding": "PREPAID", "on_limit": draw(st.sampled_from(ON_LIMIT))}
        return [budget, _limit(draw, CHANGES[period], period)] if kind != "float" else [budget]
    if kind == "overdraft":
        extra = {"on_limit": "OVERDRAFT", "approved_overdraft": draw(st.sampled_from(("0", "0.50")))}
        return [first | {"every": period, "limit": draw(st.sampled_from(("6.01", "1.00")))} | extra | _after(draw)]
    if kind == "single":
        last = {"to": CHANGES[period] + timedelta(days=draw(st.sampled_from((-1, 6))))}
        on_limit = {"on_limit": draw(st.sampled_from((*ON_LIMIT, "OVERDRAFT")))}
        return [first | last | {"limit": draw(st.sampled_from(LIMITS))} | on_limit | _after(draw)]
    return [_limit(draw, BEGINS[period], period)]


def _limit(draw: Draw, begins: date, period: str) -> Table:
    on_limit = {"on_limit": draw(st.sampled_from(ON_LIMIT))}
    return (
        {"from": begins, "every": period, "limit": draw(st.sampled_from(LIMITS))}
        | on_limit
        | _after(draw)
        | _alert(draw)
    )


def _after(draw: Draw) -> Table:
    return {"after_period": draw(st.sampled_from(("CREDIT_CURRENT", "USE_OR_LOSE")))}


def _alert(draw: Draw) -> Table:
    return draw(st.sampled_from(({}, {"alert_at": "0.5"}, {"alert_at": "0.80"}, {"alert_at": "1"})))


def _taxes(draw: Draw, kind: str, period: str) -> list[Table]:
    """One rate, one that ends, or one after the other."""
    first = {"kind": kind, "from": BEGINS[period], "rate": draw(st.sampled_from(RATES))}
    changes = CHANGES[period] + timedelta(days=draw(st.sampled_from((-1, 0, 3))))
    return draw(
        st.sampled_from(([first], [first | {"to": changes}], [first, {"kind": kind, "from": changes, "rate": "0.5"}]))
    )


def _campaign(draw: Draw, number: int, codes: tuple[str, ...]) -> Table:
    """A bonus that one pays, or several in shares, of which the operator may have one."""
    shares = draw(st.sampled_from(SHARES))
    payers: list[Table] = [{"partner": code} for code in draw(st.permutations(codes))[: len(shares)]]
    if draw(st.booleans()):
        payers[-1] = {"operator": True}
    gives: Table = draw(
        st.sampled_from(
            (
                {"multiplier": "1.5"},
                {"multiplier": "2.25", "max_points": 77},
                {"bonus_points": 101, "min_amount": "20.00"},
                {"points_per_unit": "0.35"},
                {"points_per_unit": "0.7", "include_categories": ["food"]},
            )
        )
    )
    budget: Table = {
        "limit": draw(st.sampled_from(("0.70", "2.00", "9.99"))),
        "on_limit": draw(st.sampled_from(("PARTIAL", "DECLINE", "OPERATOR_FUNDED"))),
        **_alert(draw),
    }
    where: tuple[Table, ...] = ({}, {"partners": ["grocer"]}, {"partners": ["fuel", "restaurant"]})
    return {
        "code": f"campaign-{number}",
        "name": f"Campaign {number}",
        "from": draw(st.sampled_from((date(2017, 2, 13), date(2017, 2, 22)))),
        "to": draw(st.sampled_from((date(2017, 5, 31), date(2017, 2, 27)))),
        **draw(st.sampled_from(where)),
        **gives,
        "funding": [payer | {"share": share} for payer, share in zip(payers, shares, strict=True)],
        **({"budget": budget} if draw(st.booleans()) else {}),
    }  # fmt: skip

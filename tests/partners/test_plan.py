"""What a file would change, in words, and what it is warned about."""

from datetime import date

import pytest

from partners.advice import uncovered
from partners.coalition_file import TermsSection, parse_coalition
from partners.plan import plan
from tests.factories import COALITION_TOML

PROGRAMME = """
[programme]
name = "Harbour Coalition"
currency = "EUR"
timezone = "Europe/Berlin"
point_value = "0.01"
"""


def a_partner(code: str, *, issue: str = "0.010", reimbursement: str = "0.009", day: str = "2017-01-01") -> str:
    return f"""
[[partner]]
code = "{code}"
name = "{code}"
[[partner.terms]]
from = {day}
issue_price = "{issue}"
service_fee = "0.001"
reimbursement = "{reimbursement}"
[[partner.budget]]
from = 2017-01-01
every = "month"
limit = "1500"
[[partner.earn_rule]]
code = "base"
from = 2017-01-01
points_per_unit = "1"
"""


def warnings(text: str) -> list[str]:
    return plan(None, parse_coalition(text)).warnings


def test_a_first_file_creates_everything() -> None:
    first = plan(None, parse_coalition(PROGRAMME + a_partner("grocer")))

    programme, partner, terms, budget, rule, rest = first.lines()
    assert programme == (
        "create programme: name Harbour Coalition, currency EUR, currency_digits 2, timezone Europe/Berlin,"
        " region DE, point_value 0.010000, period month, expiry months, expiry_months 24, expiry_years none,"
        " grace_days 30, max_backdate_days 30, member_transfers false, transfer_max_points none,"
        " transfer_max_points_per_day none, claw_back own_lot_then_issuer, negative_limit_points none,"
        " hold_minutes 10080,"
        " advice_days 0,"
        " dispute_days 7, call_days 14, minimum_settlement 0"
    )
    assert partner == (
        "create partner grocer: name grocer, category other, state ACTIVE, reference_unique true, hold_minutes none,"
        " risk NORMAL, deposit_required 0, suspended_burns CAPTURE"
    )
    assert terms == (
        "create terms of grocer from 2017-01-01: to open, issue_price 0.010000, service_fee 0.001000,"
        " reimbursement 0.009000, breakage_share 0, fixed_fee 0, pending_days 0"
    )
    assert budget == (
        "create budget of grocer from 2017-01-01: to open, every period, limit 1500, approved_overdraft 0,"
        " on_limit DECLINE, after_period CREDIT_CURRENT, alert_at none, funding POSTPAID"
    )
    assert rule == (
        "create earn rule base of grocer from 2017-01-01: to open, points_per_unit 1, max_points none,"
        " exclude_categories none, exclude_products none"
    )
    assert rest == "0 unchanged"
    assert first.changes
    assert first.warnings == []


def test_programs_read_the_same_plan() -> None:
    text = PROGRAMME + '[[partner]]\ncode = "web"\nname = "Web shop"\n'

    assert plan(None, parse_coalition(text)).as_json() == {
        "changes": [
            {
                "action": "create",
                "subject": "programme",
                "values": {
                    "name": {"old": None, "new": "Harbour Coalition"},
                    "currency": {"old": None, "new": "EUR"},
                    "currency_digits": {"old": None, "new": "2"},
                    "timezone": {"old": None, "new": "Europe/Berlin"},
                    "region": {"old": None, "new": "DE"},
                    "point_value": {"old": None, "new": "0.010000"},
                    "period": {"old": None, "new": "month"},
                    "expiry": {"old": None, "new": "months"},
                    "expiry_months": {"old": None, "new": "24"},
                    "expiry_years": {"old": None, "new": "none"},
                    "grace_days": {"old": None, "new": "30"},
                    "max_backdate_days": {"old": None, "new": "30"},
                    "member_transfers": {"old": None, "new": "false"},
                    "transfer_max_points": {"old": None, "new": "none"},
                    "transfer_max_points_per_day": {"old": None, "new": "none"},
                    "claw_back": {"old": None, "new": "own_lot_then_issuer"},
                    "negative_limit_points": {"old": None, "new": "none"},
                    "hold_minutes": {"old": None, "new": "10080"},
                    "advice_days": {"old": None, "new": "0"},
                    "dispute_days": {"old": None, "new": "7"},
                    "call_days": {"old": None, "new": "14"},
                    "minimum_settlement": {"old": None, "new": "0"},
                },
            },
            {
                "action": "create",
                "subject": "partner web",
                "values": {
                    "name": {"old": None, "new": "Web shop"},
                    "category": {"old": None, "new": "other"},
                    "state": {"old": None, "new": "ACTIVE"},
                    "reference_unique": {"old": None, "new": "true"},
                    "risk": {"old": None, "new": "NORMAL"},
                    "hold_minutes": {"old": None, "new": "none"},
                    "deposit_required": {"old": None, "new": "0"},
                    "suspended_burns": {"old": None, "new": "CAPTURE"},
                },
            },
        ],
        "unchanged": 0,
        "warnings": ["partner web has no terms: its purchases and burns will be refused"],
    }


def test_the_worked_example_has_nothing_to_warn_about() -> None:
    assert warnings(COALITION_TOML) == []


def test_a_reimbursement_above_an_issue_price_is_warned_about() -> None:
    text = PROGRAMME + a_partner("grocer") + a_partner("fuel", issue="0.0095", reimbursement="0.0101")

    (warning,) = warnings(text + a_partner("cafe", issue="0.0102"))
    assert warning == (
        "terms of fuel from 2017-01-01: reimbursement 0.010100 exceeds the issue price 0.009500 of fuel"
        " and those of 1 more: each such burn loses money"
    )


@pytest.mark.parametrize(("burned_from", "warned"), [("2019-03-31", True), ("2019-04-01", False)])
def test_a_lot_meets_reimbursements_until_it_expires(burned_from: str, warned: bool) -> None:
    cheap = a_partner("grocer").replace("from = 2017-01-01\nissue", "from = 2017-01-01\nto = 2017-03-31\nissue")
    dear = a_partner("fuel", issue="0.020", reimbursement="0.015", day=burned_from)

    losing = [warning for warning in warnings(PROGRAMME + cheap + dear) if "reimbursement" in warning]

    expected = (
        f"terms of fuel from {burned_from}: reimbursement 0.015000 exceeds the issue price 0.010000 of grocer:"
        " each such burn loses money"
    )
    assert losing == ([expected] if warned else [])


def without(text: str, first: str, last: str) -> str:
    """The text without the lines from ``first`` to before ``last``."""
    head, rest = text.split(first, 1)
    return head + (last + rest.split(last, 1)[1] if last else "")


def test_a_partner_that_cannot_earn_is_warned_about() -> None:
    no_budget = without(a_partner("a"), "[[partner.budget]]", "[[partner.earn_rule]]")
    no_rule = without(a_partner("b"), "[[partner.earn_rule]]", "")
    late_budget = a_partner("c").replace('from = 2017-01-01\nevery = "month"', "from = 2017-02-01\nto = 2017-02-28")
    overdraft = a_partner("d").replace('limit = "1500"', 'limit = "1500"\non_limit = "OVERDRAFT"')

    assert warnings(PROGRAMME + no_budget + no_rule + late_budget + overdraft) == [
        "partner a has terms but no budget: every award will be declined",
        "partner b has no earn rule: purchases will earn nothing",
        "partner c has terms but no budget from 2017-01-01 to 2017-01-31: every award will be declined",
        "partner c has terms but no budget from 2017-03-01 on: every award will be declined",
        "budget of d from 2017-01-01 says OVERDRAFT: it declines at its limit until an overdraft is approved",
    ]


def on(first: int, after: int | None) -> TermsSection:
    return TermsSection(date(2017, first, 1), None if after is None else date(2017, after, 1), 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("wanted", "covering", "gaps"),
    [
        ([on(1, None)], [on(1, None)], []),
        ([on(1, 3), on(3, None)], [on(2, 4)], [(1, 2), (4, None)]),
        ([on(1, 3), on(3, 5)], [], [(1, 5)]),
        ([on(1, 3), on(5, 7)], [on(2, 6)], [(1, 2), (6, 7)]),
        ([on(1, 3)], [on(4, None)], [(1, 3)]),
        ([on(4, 6)], [on(1, 2), on(2, 5), on(5, None)], []),
    ],
)
def test_days_without_cover(
    wanted: list[TermsSection], covering: list[TermsSection], gaps: list[tuple[int, int | None]]
) -> None:
    assert uncovered(wanted, covering) == [
        (date(2017, first, 1), None if after is None else date(2017, after, 1)) for first, after in gaps
    ]

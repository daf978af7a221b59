"""Reading a coalition file: what it means, and every way in which it is refused."""

from datetime import date

import pytest

from domain.errors import ConfigurationError
from partners.coalition_file import (
    BudgetSection,
    EarnRuleSection,
    PartnerSection,
    ProgrammeSection,
    StoreSection,
    TermsSection,
    parse_coalition,
)
from tests.factories import COALITION_TOML

SMALL = """
[programme]
name = "Harbour Coalition"
currency = "EUR"
timezone = "Europe/Berlin"
point_value = "0.01"

[[partner]]
code = "grocer"
name = "Harvest Market"
[[partner.terms]]
from = 2017-01-01
issue_price = "0.010000"
service_fee = "0.001000"
reimbursement = "0.009000"
[[partner.budget]]
from = 2017-01-01
every = "month"
limit = "1500.00"
[[partner.earn_rule]]
code = "base"
from = 2017-01-01
points_per_unit = "1"
"""

TERMS = 'partner "grocer", terms from 2017-01-01: '
BUDGET = 'partner "grocer", budget from 2017-01-01: '
RULE = 'partner "grocer", earn rule "base" from 2017-01-01: '

CALL_DAYS = (
    "programme: call_days = 10 lies within the dispute window: it must be at least advice_days + dispute_days = 11"
)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_coalition(text)
    return str(caught.value).split("\n")


def with_change(old: str, new: str) -> str:
    assert SMALL.count(old) == 1, f"{old!r} must name one place"
    return SMALL.replace(old, new)


def test_the_worked_example_is_read_exactly() -> None:
    file = parse_coalition(COALITION_TOML)

    assert file.programme == ProgrammeSection(
        name="Harbour Coalition",
        currency="EUR",
        currency_digits=2,
        timezone="Europe/Berlin",
        region="DE",
        point_value_micro=10_000,
        period="month",
        expiry="months",
        expiry_months=24,
        expiry_years=None,
        grace_days=30,
        max_backdate_days=30,
        member_transfers=False,
        transfer_max_points=None,
        transfer_max_points_per_day=None,
        claw_back="own_lot_then_issuer",
        negative_limit_points=None,
        hold_minutes=10_080,
        advice_days=0,
        dispute_days=7,
        call_days=14,
        minimum_settlement_micro=0,
    )
    assert [partner.code for partner in file.partners] == ["grocer", "fuel", "restaurant"]
    assert file.partners[0] == PartnerSection(
        code="grocer",
        name="Harvest Market",
        category="supermarket",
        state="ACTIVE",
        reference_unique=True,
        hold_minutes=None,
        stores=(StoreSection("s1", "Quay Street"), StoreSection("s2", "Mill Road")),
        terms=(
            TermsSection(date(2017, 1, 1), date(2017, 4, 1), 10_000, 1_000, 9_000, 500_000, 50_000_000),
            TermsSection(date(2017, 4, 1), None, 10_200, 1_000, 9_000, 500_000, 50_000_000),
        ),
        budgets=(
            BudgetSection(
                starts=date(2017, 1, 1),
                ends=None,
                per_period=True,
                limit_micro=1_500_000_000,
                overdraft_micro=0,
                on_limit="PARTIAL",
                after_period="CREDIT_CURRENT",
                alert_at_ppm=800_000,
                funding="POSTPAID",
            ),
        ),
        earn_rules=(EarnRuleSection("base", date(2017, 1, 1), None, 1_000_000, None, [], []),),
    )


def test_what_a_file_leaves_out_has_a_default() -> None:
    file = parse_coalition(SMALL)

    assert (file.programme.expiry_months, file.programme.grace_days, file.programme.max_backdate_days) == (24, 30, 30)
    (partner,) = file.partners
    assert (partner.category, partner.state, partner.reference_unique, partner.stores) == ("other", "ACTIVE", True, ())
    assert (partner.terms[0].breakage_share_ppm, partner.terms[0].fixed_fee_micro) == (0, 0)
    budget = partner.budgets[0]
    assert (budget.on_limit, budget.after_period, budget.funding) == ("DECLINE", "CREDIT_CURRENT", "POSTPAID")
    assert (budget.alert_at_ppm, budget.overdraft_micro) == (None, 0)


@pytest.mark.parametrize(
    ("currency", "digits", "limit", "limit_micro"),
    [
        ("JPY", 0, '"1500"', 1_500_000_000),
        ("EUR", 2, '"1500.25"', 1_500_250_000),
        ("BHD", 3, '"1500.125"', 1_500_125_000),
        ("EUR", 2, "1500", 1_500_000_000),
        ("JPY", 0, '"1500.00"', 1_500_000_000),
    ],
)
def test_money_has_the_currency_s_decimals(currency: str, digits: int, limit: str, limit_micro: int) -> None:
    file = parse_coalition(SMALL.replace('"EUR"', f'"{currency}"').replace('"1500.00"', limit))

    assert file.programme.currency_digits == digits
    assert file.partners[0].budgets[0].limit_micro == limit_micro


@pytest.mark.parametrize(
    ("timezone", "region"), [("America/New_York", "US"), ("Europe/Kyiv", "UA"), ("Asia/Kolkata", "IN"), ("UTC", "ZZ")]
)
def test_national_phone_numbers_are_those_of_the_time_zone(timezone: str, region: str) -> None:
    assert parse_coalition(with_change("Europe/Berlin", timezone)).programme.region == region


def test_the_region_can_be_given() -> None:
    text = with_change('point_value = "0.01"', 'point_value = "0.01"\nregion = "AT"')

    assert parse_coalition(text).programme.region == "AT"


def test_a_single_budget_lasts_to_the_end_of_its_last_day() -> None:
    text = with_change('from = 2017-01-01\nevery = "month"', "from = 2017-01-10\nto = 2017-01-20")

    budget = parse_coalition(text).partners[0].budgets[0]

    assert (budget.starts, budget.ends, budget.per_period) == (date(2017, 1, 10), date(2017, 1, 21), False)


def test_versions_end_at_their_own_day_or_where_the_next_begins() -> None:
    rules = """
[[partner.earn_rule]]
code = "summer"
from = 2017-06-01
to = 2017-06-30
points_per_unit = "0.5"
max_points = 100
exclude_categories = ["tobacco", "stamps", "tobacco"]
[[partner.earn_rule]]
code = "summer"
from = 2017-07-01
points_per_unit = 2
exclude_products = ["4711"]
[[partner.earn_rule]]
code = "base"
from = 2017-02-01
points_per_unit = "1.5"
"""
    days = date(2017, 1, 1), date(2017, 2, 1), date(2017, 6, 1), date(2017, 7, 1)

    assert parse_coalition(SMALL + rules).partners[0].earn_rules == (
        EarnRuleSection("base", days[0], days[1], 1_000_000, None, [], []),
        EarnRuleSection("base", days[1], None, 1_500_000, None, [], []),
        EarnRuleSection("summer", days[2], days[3], 500_000, 100, ["stamps", "tobacco"], []),
        EarnRuleSection("summer", days[3], None, 2_000_000, None, [], ["4711"]),
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"EUR"', '"EURO"', 'programme: currency = "EURO" is no currency of three capital letters, such as "EUR"'),
        (
            "Europe/Berlin",
            "Europe/Berln",
            'programme: timezone = "Europe/Berln" is no name of a time zone, such as "Europe/Berlin"',
        ),
        (
            'point_value = "0.01"',
            "point_value = 0.01",
            'programme: point_value = 0.01 is a binary fraction; write it in quotes: point_value = "0.01"',
        ),
        ('point_value = "0.01"\n', "", "programme: point_value is missing"),
        (
            'point_value = "0.01"',
            'point_value = "0.01"\nperiod = "day"',
            'programme: period = "day" must be one of month, half_month, week',
        ),
        (
            'point_value = "0.01"',
            'point_value = "0.01"\nexpiry_month = 24',
            'programme: unknown key "expiry_month"; did you mean "expiry_months"?',
        ),
        (
            'point_value = "0.01"',
            'point_value = "0.01"\nadvice_days = 4\ncall_days = 10',
            CALL_DAYS,
        ),
        (
            'point_value = "0.01"',
            'point_value = "0.01"\nminimum_settlement = "5.001"',
            'programme: minimum_settlement = "5.001" must have at most 2 decimals',
        ),
        (
            'point_value = "0.01"',
            'point_value = "0.01"\nexpiry_months = 0',
            "programme: expiry_months = 0 must be a whole number from 1 to 1200, without quotes",
        ),
        (
            'point_value = "0.01"',
            'point_value = "0.01"\nexpiry = "never"',
            'programme: expiry = "never" must be one of months, rolling, year_end',
        ),
        (
            'point_value = "0.01"',
            'point_value = "0.01"\nexpiry = "year_end"',
            "programme: expiry_years is missing",
        ),
        (
            'point_value = "0.01"',
            'point_value = "0.01"\nexpiry = "year_end"\nexpiry_years = 101',
            "programme: expiry_years = 101 must be a whole number from 0 to 100, without quotes",
        ),
        (
            'point_value = "0.01"',
            'point_value = "0.01"\nexpiry = "year_end"\nexpiry_years = 1\nexpiry_months = 12',
            'programme: expiry = "year_end" counts whole years: give expiry_years, and no expiry_months',
        ),
        (
            'point_value = "0.01"',
            'point_value = "0.01"\nexpiry = "rolling"\nexpiry_years = 1',
            'programme: expiry = "rolling" counts months: give expiry_months, and no expiry_years',
        ),
        (
            'point_value = "0.01"',
            'point_value = "0.01"\nregion = "Germany"',
            'programme: region = "Germany" must be a country of two capital letters, such as "DE"',
        ),
        (
            'code = "grocer"',
            'code = "corner shop"',
            'partner "corner shop": code = "corner shop" must be 1 to 64 letters, digits, dots, dashes or underscores',
        ),
        ('code = "grocer"\n', "", "partner number 1: code is missing"),
        (
            'name = "Harvest Market"',
            'name = "Harvest\\u0000Market"',
            'partner "grocer": name must have 1 to 200 printable characters and no blanks around them',
        ),
        (
            'name = "Harvest Market"',
            'name = "Harvest Market"\nstate = "CLOSED"',
            'partner "grocer": state = "CLOSED" must be one of ACTIVE, SUSPENDED',
        ),
        (
            'code = "grocer"',
            'code = "operator"',
            'partner "operator": code "operator" means the operator wherever partners are listed: take another',
        ),
        (
            'name = "Harvest Market"',
            'name = "Harvest Market"\nreference_unique = "no"',
            'partner "grocer": reference_unique must be true or false, without quotes',
        ),
        (
            'name = "Harvest Market"',
            'name = "Harvest Market"\nstores = [{ code = "s1", name = "A" }, { code = "s1", name = "B" }]',
            'partner "grocer": store "s1" stands there more than once',
        ),
        (
            'issue_price = "0.010000"',
            "issue_price = 0.01",
            TERMS + 'issue_price = 0.01 is a binary fraction; write it in quotes: issue_price = "0.01"',
        ),
        (
            'issue_price = "0.010000"',
            'issue_price = "0.0100001"',
            TERMS + 'issue_price = "0.0100001" must have at most 6 decimals',
        ),
        (
            'issue_price = "0.010000"',
            'issue_price = "1000.000001"',
            TERMS + 'issue_price = "1000.000001" must be from 0 to 1000',
        ),
        ('issue_price = "0.010000"', 'issue_price = "-1"', TERMS + 'issue_price = "-1" must be from 0 to 1000'),
        (
            'issue_price = "0.010000"',
            'issue_price = "1e-2"',
            TERMS + 'issue_price = "1e-2" must be an amount in quotes, such as "12.50"',
        ),
        (
            'issue_price = "0.010000"',
            "issue_price = true",
            TERMS + 'issue_price = true must be an amount in quotes, such as "12.50"',
        ),
        ('reimbursement = "0.009000"\n', "", TERMS + "reimbursement is missing"),
        (
            'reimbursement = "0.009000"',
            'reimbursement = "0.009000"\nbreakage_share = "1.1"',
            TERMS + 'breakage_share = "1.1" must be from 0 to 1',
        ),
        (
            'reimbursement = "0.009000"',
            'reimbursement = "0.009000"\nfixed_fee = "50.005"',
            TERMS + 'fixed_fee = "50.005" must have at most 2 decimals',
        ),
        (
            'reimbursement = "0.009000"',
            'reimbursement = "0.009000"\npending_days = 4000',
            TERMS + "pending_days = 4000 must be a whole number from 0 to 3660, without quotes",
        ),
        (
            'name = "Harvest Market"',
            'name = "Harvest Market"\nrisk = "HIGH"',
            'partner "grocer": risk = "HIGH" must be one of NORMAL, PAID_FIRST',
        ),
        (
            'from = 2017-01-01\nissue_price = "0.010000"',
            'from = 2017-01-01\nto = 2016-12-31\nissue_price = "0.010000"',
            TERMS + "to lies before from",
        ),
        (
            'from = 2017-01-01\nissue_price = "0.010000"',
            'from = "2017-01-01"\nissue_price = "0.010000"',
            TERMS.replace("from 2017-01-01", "number 1")
            + 'from = "2017-01-01" must be a date without quotes, such as from = 2017-01-01',
        ),
        (
            'limit = "1500.00"',
            'limit = "1500.00"\nfunding = "PREPAID"',
            BUDGET + "every: what was paid in does not end with a period; leave it out where funding is PREPAID",
        ),
        (
            'every = "month"\nlimit = "1500.00"',
            'on_limit = "OVERDRAFT"\nfunding = "PREPAID"',
            BUDGET + 'on_limit = "OVERDRAFT" is credit, which a PREPAID budget does not have: top it up',
        ),
        ('limit = "1500.00"', 'limit = "1500.001"', BUDGET + 'limit = "1500.001" must have at most 2 decimals'),
        ('limit = "1500.00"', 'limit = "1500.00"\nlimt = "1"', BUDGET + 'unknown key "limt"; did you mean "limit"?'),
        (
            'limit = "1500.00"',
            'limit = "1500.00"\non_limit = "PARTIALLY"',
            BUDGET + 'on_limit = "PARTIALLY" must be one of DECLINE, PARTIAL, BASE_ONLY, OPERATOR_FUNDED, OVERDRAFT',
        ),
        (
            'limit = "1500.00"',
            'limit = "1500.00"\non_limit = "PARTIAL"\napproved_overdraft = "10"',
            BUDGET + 'approved_overdraft needs on_limit = "OVERDRAFT"',
        ),
        (
            'limit = "1500.00"',
            'limit = "1500.00"\nalert_at = "80"',
            BUDGET + 'alert_at = "80" must be from 0 to 1',
        ),
        (
            'limit = "1500.00"',
            'limit = "1500.00"\nto = 2017-12-31',
            BUDGET + 'needs either every = "month" (one budget per period) or to = DATE (a single one)',
        ),
        (
            'every = "month"\n',
            "",
            BUDGET + 'needs either every = "month" (one budget per period) or to = DATE (a single one)',
        ),
        (
            'from = 2017-01-01\nevery = "month"',
            'from = 2017-01-15\nevery = "month"',
            BUDGET.replace("01-01", "01-15")
            + "a budget per month starts on the first day of a month, not on 2017-01-15",
        ),
        (
            'every = "month"',
            'every = "week"',
            BUDGET + 'every = "week" must be one of month',
        ),
        (
            'points_per_unit = "1"',
            'points_per_unit = "1000000.000001"',
            RULE + 'points_per_unit = "1000000.000001" must be from 0 to 1000000',
        ),
        (
            'points_per_unit = "1"',
            'points_per_unit = "1"\nmax_points = "10"',
            RULE + 'max_points = "10" must be a whole number from 0 to 1000000000, without quotes',
        ),
        (
            'points_per_unit = "1"',
            'points_per_unit = "1"\nexclude_categories = "tobacco"',
            RULE + 'exclude_categories must be a list of texts, such as exclude_categories = ["…", "…"]',
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(old: str, new: str, problem: str) -> None:
    assert problems(with_change(old, new)) == [problem]


LATER_TERMS = """
[[partner.terms]]
from = {day}
issue_price = "0.010200"
service_fee = "0.001000"
reimbursement = "0.009000"
"""


@pytest.mark.parametrize(
    ("own_end", "day", "problem"),
    [
        ("", "2017-01-01", "another one starts on the same day"),
        ("", "2016-07-01", "stands after the one from 2017-01-01; list them in the order of their dates"),
        ("to = 2017-03-31", "2017-03-31", "overlaps the one from 2017-01-01, which lasts to 2017-03-31"),
    ],
)
def test_versions_stand_in_order_and_apart(own_end: str, day: str, problem: str) -> None:
    text = with_change('issue_price = "0.010000"', f'issue_price = "0.010000"\n{own_end}')
    text = text.replace("[[partner.budget]]", LATER_TERMS.format(day=day) + "[[partner.budget]]")

    assert problems(text) == [f'partner "grocer", terms from {day}: {problem}']


@pytest.mark.parametrize(
    ("kind", "good", "bad", "problem"),
    [
        ("half_month", "2017-01-16", "2017-01-17", "a budget per half month starts on the 1st or the 16th of a month"),
        ("week", "2017-01-02", "2017-01-01", "a budget per week starts on a Monday"),
    ],
)
def test_budgets_follow_the_programmes_periods(kind: str, good: str, bad: str, problem: str) -> None:
    text = with_change('point_value = "0.01"', f'point_value = "0.01"\nperiod = "{kind}"')
    line = 'from = 2017-01-01\nevery = "month"'
    budget = parse_coalition(text.replace(line, f'from = {good}\nevery = "{kind}"')).partners[0].budgets[0]
    assert (budget.per_period, str(budget.starts)) == (True, good)
    assert problems(text.replace(line, f'from = {bad}\nevery = "{kind}"')) == [
        f"{BUDGET.replace('2017-01-01', bad)}{problem}, not on {bad}"
    ]


def test_every_problem_is_told_at_once() -> None:
    text = SMALL.replace('"EUR"', '"XYZ"').replace('limit = "1500.00"', "limit = 1500.5").replace('"1"', '"one"')

    assert problems(text + '[[partner]]\ncode = "grocer"\nname = ""\n[other]\n') == [
        'file: unknown key "other"; known here: programme, partner, campaign',
        'programme: currency = "XYZ" is no currency of three capital letters, such as "EUR"',
        BUDGET + 'limit = 1500.5 is a binary fraction; write it in quotes: limit = "1500.5"',
        RULE + 'points_per_unit = "one" must be an amount in quotes, such as "12.50"',
        'partner "grocer": name must have 1 to 200 printable characters and no blanks around them',
        'file: partner "grocer" stands there more than once',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[programme\n", "the file is not TOML: "),
        ("", "file: a [programme] table is missing"),
        (SMALL.replace("[[partner]]", "[partner]"), "file: partner must be a list of tables, written [[partner]]"),
    ],
)
def test_a_file_of_another_shape_is_refused(text: str, problem: str) -> None:
    assert problems(text)[0].startswith(problem)


def test_a_prepaid_budget_needs_neither_a_limit_nor_an_end() -> None:
    text = with_change('every = "month"\nlimit = "1500.00"', 'funding = "PREPAID"')

    budget = parse_coalition(text).partners[0].budgets[0]

    assert (budget.funding, budget.limit_micro, budget.per_period, budget.ends) == ("PREPAID", 0, False, None)

"""The coalitions that the auditor looks at: points that soon expire, and budgets that soon run out."""

from datetime import UTC, datetime

from tests.factories import COALITION_TOML

# Points whose expiry moves with use, a partner that pays less for a burn from April, and members who may owe points.
HARBOUR = (
    COALITION_TOML.replace("expiry_months = 24", 'expiry = "rolling"\nexpiry_months = 1')
    .replace("[[partner]]", 'claw_back = "negative_balance"\n[[partner]]', 1)
    .replace("max_backdate_days = 30", "max_backdate_days = 75\nhold_minutes = 10080")
    .replace('"0.010200"\nservice_fee = "0.001000"\nreimbursement = "0.009000"',
             '"0.010200"\nservice_fee = "0.001000"\nreimbursement = "0.008800"')
)  # fmt: skip

# Odd points at these prices are half a cent or half a micro-unit: ties, which are rounded to the even neighbour.
TIGHT = """
[programme]
name = "Tight Coalition"
currency = "EUR"
timezone = "Europe/Berlin"
point_value = "0.01"
period = "month"
expiry_months = 1
grace_days = 10
max_backdate_days = 45
hold_minutes = 10080

[[partner]]
code = "grocer"
name = "Harvest Market"
category = "supermarket"
stores = []
[[partner.terms]]
from = 2017-01-01
issue_price = "0.010001"
service_fee = "0.001003"
reimbursement = "0.009007"
breakage_share = "0.50"
fixed_fee = "50.01"
[[partner.terms]]
from = 2017-03-02
issue_price = "0.012347"
service_fee = "0.001000"
reimbursement = "0.008999"
breakage_share = "0.25"
fixed_fee = "0"
[[partner.budget]]
from = 2017-01-01
every = "month"
limit = "6.00"
on_limit = "PARTIAL"
[[partner.earn_rule]]
code = "base"
from = 2017-01-01
points_per_unit = "1.5"
exclude_categories = ["tobacco"]
[[partner.earn_rule]]
code = "bonus"
from = 2017-01-01
points_per_unit = "0.75"
max_points = 90

[[partner]]
code = "fuel"
name = "Beacon Fuel"
category = "fuel station"
hold_minutes = 4000
stores = []
[[partner.terms]]
from = 2017-01-01
issue_price = "0.015000"
service_fee = "0.005000"
reimbursement = "0.009200"
breakage_share = "0.333333"
fixed_fee = "30.00"
[[partner.budget]]
from = 2017-01-01
every = "month"
limit = "4.00"
on_limit = "OPERATOR_FUNDED"
after_period = "USE_OR_LOSE"
[[partner.earn_rule]]
code = "base"
from = 2017-01-01
points_per_unit = "1"
[[partner.earn_rule]]
code = "double"
from = 2017-01-01
points_per_unit = "1"
exclude_categories = ["tobacco"]

[[partner]]
code = "restaurant"
name = "Pier Kitchen"
category = "restaurant"
stores = []
[[partner.terms]]
from = 2017-01-01
issue_price = "0.009995"
service_fee = "0.001500"
reimbursement = "0.009500"
breakage_share = "0.50"
fixed_fee = "20.00"
[[partner.budget]]
from = 2017-01-01
every = "month"
limit = "5.00"
on_limit = "DECLINE"
after_period = "USE_OR_LOSE"
[[partner.earn_rule]]
code = "base"
from = 2017-01-01
points_per_unit = "2"
"""

# Return windows, payments, holds that soon end, points whose expiry moves with use; bonuses fall away at the limit.
PATIENT = (
    TIGHT.replace("expiry_months = 1", 'expiry = "rolling"\nexpiry_months = 1')
    .replace("10080", "3000")
    .replace('"Harvest Market"', '"Harvest Market"\nhold_minutes = 1200')
    .replace('"Beacon Fuel"', '"Beacon Fuel"\nrisk = "PAID_FIRST"')
    .replace('"Pier Kitchen"', '"Pier Kitchen"\nrisk = "PAID_FIRST"')
    .replace('fixed_fee = "50.01"', 'fixed_fee = "50.01"\npending_days = 20')
    .replace('fixed_fee = "30.00"', 'fixed_fee = "30.00"\npending_days = 4')
    .replace('on_limit = "PARTIAL"', 'on_limit = "BASE_ONLY"\nalert_at = "0.5"')
)
# The last month of a year, with whose end points expire; returns take from whichever lots there are.
YEARLY = (
    TIGHT.replace("expiry_months = 1", 'expiry = "year_end"\nexpiry_years = 0\nclaw_back = "all_lots"')
    .replace("2017-01-01", "2017-12-01")
    .replace("2017-03-02", "2018-01-02")
    .replace('fixed_fee = "30.00"', 'fixed_fee = "30.00"\npending_days = 4')
)
# Members may give points away, but only so many in a day.
HOUSEHOLD = (
    TIGHT.replace("hold_minutes = 10080", "hold_minutes = 3000\nmember_transfers = true")
    .replace(
        "member_transfers = true",
        "member_transfers = true\ntransfer_max_points = 300\ntransfer_max_points_per_day = 400",
    )
    .replace('fixed_fee = "30.00"', 'fixed_fee = "30.00"\npending_days = 4')
)
# Members may owe some points, not many.
CLAN = HOUSEHOLD.replace(
    "expiry_months = 1",
    'expiry = "rolling"\nexpiry_months = 1\nclaw_back = "negative_balance"\nnegative_limit_points = 60',
).replace('code = "grocer"', 'code = "grocer"\nrisk = "PAID_FIRST"')

# Partners come and go: return windows that outlast them, a bonus that one pays at the others' tills, small balances.
ENDS = (
    (
        TIGHT.replace(
            "hold_minutes = 10080", 'hold_minutes = 3000\nminimum_settlement = "2.00"\nmember_transfers = true'
        )
        .replace('"Pier Kitchen"', '"Pier Kitchen"\nrisk = "PAID_FIRST"\ndeposit_required = "1.00"')
        .replace('fixed_fee = "50.01"', 'fixed_fee = "1.01"\npending_days = 20')
        .replace('fixed_fee = "30.00"', 'fixed_fee = "0.30"')
        .replace('fixed_fee = "20.00"', 'fixed_fee = "0.20"')
        .replace('on_limit = "DECLINE"', 'on_limit = "PARTIAL"')
    )
    + """
[[campaign]]
code = "neighbours"
name = "Neighbours"
from = 2017-01-01
to = 2017-12-31
points_per_unit = "0.25"
funding = [{ partner = "restaurant", share = "0.7" }, { partner = "fuel", share = "0.3" }]
"""
)

LIVES = ("harbour", "tight", "patient", "yearly")
"""Those in which points live; in the others accounts change hands."""

COALITIONS = {
    "harbour": HARBOUR,
    "tight": TIGHT,
    "patient": PATIENT,
    "yearly": YEARLY,
    "household": HOUSEHOLD,
    "clan": CLAN,
    "ends": ENDS,
}
STARTS = {"yearly": datetime(2017, 12, 10, 9, tzinfo=UTC)}
START = datetime(2017, 2, 20, 9, tzinfo=UTC)

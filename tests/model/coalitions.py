"""The coalitions that the auditor looks at: points that soon expire, and budgets that soon run out."""

from tests.factories import COALITION_TOML

HARBOUR = COALITION_TOML.replace("expiry_months = 24", "expiry_months = 1").replace(
    "max_backdate_days = 30", "max_backdate_days = 75"
)

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

COALITIONS = {"harbour": HARBOUR, "tight": TIGHT}
PARTNERS = ("grocer", "fuel", "restaurant")

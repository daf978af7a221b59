"""What tests start from: the coalition of the worked example (SETTLEMENT.md c.6), and how to apply a file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal

from domain.commands import Amount, Burn, Earn, Enroll, MemberRef
from domain.database import Database
from domain.periods import Clock
from domain.queue import PostingQueue
from domain.terms import Configuration, ConfigurationCache, load_configuration
from partners.apply import apply_coalition
from partners.coalition_file import parse_coalition

COALITION_TOML = """
[programme]
name = "Harbour Coalition"
currency = "EUR"
timezone = "Europe/Berlin"
point_value = "0.01"
period = "month"
expiry_months = 24
max_backdate_days = 30

[[partner]]
code = "grocer"
name = "Harvest Market"
category = "supermarket"
stores = [{ code = "s1", name = "Quay Street" }, { code = "s2", name = "Mill Road" }]
[[partner.terms]]
from = 2017-01-01
issue_price = "0.010000"
service_fee = "0.001000"
reimbursement = "0.009000"
breakage_share = "0.50"
fixed_fee = "50.00"
[[partner.terms]]
from = 2017-04-01
issue_price = "0.010200"
service_fee = "0.001000"
reimbursement = "0.009000"
breakage_share = "0.50"
fixed_fee = "50.00"
[[partner.budget]]
from = 2017-01-01
every = "month"
limit = "1500.00"
on_limit = "PARTIAL"
after_period = "CREDIT_CURRENT"
alert_at = "0.80"
funding = "POSTPAID"
[[partner.earn_rule]]
code = "base"
from = 2017-01-01
points_per_unit = "1"

[[partner]]
code = "fuel"
name = "Beacon Fuel"
category = "fuel station"
stores = [{ code = "ring", name = "Ring Road" }]
[[partner.terms]]
from = 2017-01-01
issue_price = "0.010500"
service_fee = "0.001200"
reimbursement = "0.009200"
breakage_share = "0"
fixed_fee = "30.00"
[[partner.budget]]
from = 2017-01-01
every = "month"
limit = "600.00"
on_limit = "PARTIAL"
after_period = "CREDIT_CURRENT"
alert_at = "0.80"
funding = "POSTPAID"
[[partner.earn_rule]]
code = "base"
from = 2017-01-01
points_per_unit = "1"

[[partner]]
code = "restaurant"
name = "Pier Kitchen"
category = "restaurant"
stores = [{ code = "pier", name = "Old Pier" }]
[[partner.terms]]
from = 2017-01-01
issue_price = "0.012000"
service_fee = "0.001500"
reimbursement = "0.009500"
breakage_share = "0.25"
fixed_fee = "20.00"
[[partner.budget]]
from = 2017-01-01
every = "month"
limit = "250.00"
on_limit = "PARTIAL"
after_period = "CREDIT_CURRENT"
alert_at = "0.80"
funding = "POSTPAID"
[[partner.earn_rule]]
code = "base"
from = 2017-01-01
points_per_unit = "1"
"""

MID_MARCH = datetime(2017, 3, 15, 12, tzinfo=UTC)
"""A moment in the worked example's first month."""


def fixed_clock(instant: datetime = MID_MARCH) -> Clock:
    """A clock that stands still."""
    return lambda: instant


async def apply_toml(database: Database, toml_text: str = COALITION_TOML) -> Configuration:
    """Applies a coalition file; the configuration that stands after it."""
    await apply_coalition(database, parse_coalition(toml_text), clock=fixed_clock())
    async with database.posting() as connection:
        configuration = await load_configuration(connection)
    assert configuration is not None
    return configuration


@asynccontextmanager
async def open_till(database: Database, instant: datetime = MID_MARCH) -> AsyncIterator[PostingQueue]:
    """A posting queue at work, whose clock stands still; it posts what it has before it ends."""
    queue = PostingQueue(database, ConfigurationCache(database), fixed_clock(instant))
    queue.start()
    yield queue
    await queue.stop()


def an_enrolment(configuration: Configuration, *, partner: str = "grocer", card: str = "card-1") -> Enroll:
    """The partner enrols whoever carries the card."""
    partner_id = configuration.partners_by_code[partner].id
    return Enroll(partner_id, f"enrol-{card}", card=card, email=None, phone=None)


def a_purchase(
    configuration: Configuration,
    key: str,
    *,
    partner: str = "grocer",
    amount: str = "100.00",
    occurred_at: datetime = MID_MARCH,
    card: str = "card-1",
) -> Earn:
    """A purchase by the member with the card; its reference is its key."""
    return Earn(
        configuration.partners_by_code[partner].id,
        key,
        MemberRef(identifier=("card", card)),
        Amount(Decimal(amount), configuration.programme.currency),
        occurred_at,
        reference=key,
    )


def a_burn(
    configuration: Configuration,
    key: str,
    *,
    partner: str = "grocer",
    points: int = 10,
    occurred_at: datetime = MID_MARCH,
    card: str = "card-1",
) -> Burn:
    """Points spent by the member with the card; the reference is the key."""
    member = MemberRef(identifier=("card", card))
    return Burn(configuration.partners_by_code[partner].id, key, member, points, occurred_at, reference=key)

"""Performance reports over GraphQL: whose, for which days, and what they say."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.database import Database
from settlement.performance import MINIMUM_CELL_MEMBERS
from tests.api.graphql_shop import Caller, Shop, Time, open_shop

REPORT = """query ($from: Date!, $to: Date!, $partner: ID) {
  performanceReport(from: $from, to: $to, partnerId: $partner) {
    partner { code } from to sales { amount currency } purchases activeMembers averageOrderValue { amount } frequency
    repurchaseRate pointsIssued pointsBurned pointsReversed pointsRestored redemptionRate grossCharge { amount }
    effectiveRewardRate newMembers trafficGiven trafficReceived suppressed
    matrix { issuer { code } redeemer { code } points value { amount currency } }
    budget { limit { amount } consumed { amount } } } }"""
REVERSE = """mutation ($input: ReverseInput!) { reverse(input: $input) { __typename } }"""
MARCH = {"from": "2017-03-01", "to": "2017-03-31"}
HIDDEN = ["trafficGiven", "trafficReceived", "matrix"]


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def shop(database: Database, time: Time) -> AsyncIterator[Shop]:
    async with open_shop(database, time) as opened:
        yield opened


async def report(caller: Caller, **changes: Any) -> Any:
    return (await caller.run(REPORT, {**MARCH, **changes}))["performanceReport"]


async def some_trade(shop: Shop) -> tuple[Caller, Caller, Caller]:
    """Two members of the grocer: three purchases, part of one returned, and burns at both partners."""
    grocer, fuel, operator = await shop.caller(), await shop.caller("fuel"), await shop.caller(None)
    for card in ("card-1", "card-2"):
        await grocer.enroll(card)
    await grocer.earn("k1")
    await grocer.earn("k2", amount={"amount": "33.99", "currency": "EUR"})
    await fuel.earn("k3", member={"card": "card-2"}, amount={"amount": "20.00", "currency": "EUR"})
    returned = {"idempotencyKey": "r1", "originalKey": "k1", "amount": {"amount": "40.00", "currency": "EUR"}}
    answer = await grocer.run(REVERSE, {"input": {**returned, "occurredAt": "2017-03-15T12:00:00Z"}})
    assert answer["reverse"]["__typename"] == "ReversalReceipt"
    await fuel.burn("b1", 50)
    await grocer.burn("b2", 5, member={"card": "card-2"})
    return grocer, fuel, operator


async def partner_ids(caller: Caller) -> dict[str, str]:
    nodes = (await caller.run("{ partners { nodes { id code } } }"))["partners"]["nodes"]
    return {node["code"]: node["id"] for node in nodes}


async def test_a_partner_reads_its_own_figures(shop: Shop) -> None:
    grocer, fuel, _ = await some_trade(shop)
    assert await report(grocer) == {
        "partner": {"code": "grocer"},
        "from": "2017-03-01",
        "to": "2017-03-31",
        "sales": {"amount": "93.99", "currency": "EUR"},
        "purchases": 2,
        "activeMembers": 1,
        "averageOrderValue": {"amount": "47.00"},
        "frequency": "2.0000",
        "repurchaseRate": "1.0000",
        "pointsIssued": 133,
        "pointsBurned": 5,
        "pointsReversed": 40,
        "pointsRestored": 0,
        "redemptionRate": "0.0376",
        "grossCharge": {"amount": "1.463000"},
        "effectiveRewardRate": "0.0156",
        "newMembers": 2,
        "trafficGiven": 0,
        "trafficReceived": 0,
        "suppressed": HIDDEN,
        "matrix": [],
        "budget": {"limit": {"amount": "1500.000000"}, "consumed": {"amount": "1.023000"}},
    }
    own = await report(fuel)
    assert (own["partner"], own["sales"]["amount"], own["newMembers"]) == ({"code": "fuel"}, "20.00", 0)
    assert (own["pointsBurned"], own["budget"]["limit"]["amount"]) == (50, "600.000000")


async def test_the_operator_reads_any_partner_or_the_coalition(shop: Shop) -> None:
    _, _, operator = await some_trade(shop)
    ids = await partner_ids(operator)
    whole = await report(operator)
    assert (whole["partner"], whole["budget"], whole["suppressed"]) == (None, None, [])
    assert (whole["sales"]["amount"], whole["purchases"], whole["activeMembers"]) == ("113.99", 3, 2)
    assert (whole["newMembers"], whole["trafficGiven"], whole["trafficReceived"]) == (2, 1, 0)
    assert whole["matrix"] == [
        {
            "issuer": {"code": "grocer"},
            "redeemer": {"code": "fuel"},
            "points": 50,
            "value": {"amount": "0.460000", "currency": "EUR"},
        },
        {
            "issuer": {"code": "fuel"},
            "redeemer": {"code": "grocer"},
            "points": 5,
            "value": {"amount": "0.045000", "currency": "EUR"},
        },
    ]
    grocer = await report(operator, partner=ids["grocer"])
    assert (grocer["partner"], grocer["trafficGiven"], grocer["suppressed"]) == ({"code": "grocer"}, 1, [])
    assert grocer["budget"]["consumed"] == {"amount": "1.023000"}
    assert len(grocer["matrix"]) == 2
    nobody = await report(operator, partner=ids["restaurant"])
    assert (nobody["purchases"], nobody["matrix"]) == (0, [])


async def test_without_trade_there_are_no_rates(shop: Shop) -> None:
    found = await report(await shop.caller())
    rates = ("averageOrderValue", "frequency", "repurchaseRate", "redemptionRate", "effectiveRewardRate")
    assert [found[name] for name in rates] == [None] * 5
    assert (found["sales"], found["grossCharge"]) == ({"amount": "0.00", "currency": "EUR"}, {"amount": "0.000000"})


async def test_another_partners_report_is_forbidden(shop: Shop) -> None:
    _, fuel, operator = await some_trade(shop)
    ids = await partner_ids(operator)
    assert await report(fuel, partner=ids["fuel"]) == await report(fuel)
    for partner in (ids["grocer"], "nonsense"):
        (error,) = await fuel.errors(REPORT, {**MARCH, "partner": partner})
        assert error["extensions"]["code"] == "FORBIDDEN"
        assert error["message"] == "a partner may read its own report only: leave partnerId out"
    (error,) = await operator.errors(REPORT, {**MARCH, "partner": "nonsense"})
    assert (error["extensions"]["code"], error["extensions"]["field"]) == ("BAD_USER_INPUT", "partnerId")
    unscoped = await shop.caller(scopes=["partner:read", "settlement:read"])
    (error,) = await unscoped.errors(REPORT, MARCH)
    assert error["message"] == "Query.performanceReport needs scope reports:read"


@pytest.mark.parametrize(
    ("first", "last", "field"),
    [
        ("2017-03-02", "2017-03-01", "to"),
        ("1899-12-31", "1900-01-01", "from"),
        ("9999-12-30", "9999-12-31", "from"),
        ("2007-01-01", "2017-03-01", "from"),
    ],
)
async def test_days_that_make_no_report(shop: Shop, first: str, last: str, field: str) -> None:
    caller = await shop.caller()
    (error,) = await caller.errors(REPORT, {"from": first, "to": last})
    assert (error["extensions"]["code"], error["extensions"]["field"]) == ("BAD_USER_INPUT", field)


async def test_the_budget_is_the_last_days_or_todays(shop: Shop, time: Time) -> None:
    await some_trade(shop)
    time.now = datetime(2017, 4, 2, 12, tzinfo=UTC)
    grocer = await shop.caller()
    for days, consumed in ((MARCH, "1.023000"), ({"from": "2017-03-01", "to": "2017-12-31"}, "0.000000")):
        assert (await report(grocer, **days))["budget"]["consumed"] == {"amount": consumed}
    before = await report(grocer, **{"from": "2016-11-01", "to": "2016-12-31"})
    assert before["budget"] is None


async def test_traffic_shows_once_enough_members_stand_behind_it(shop: Shop) -> None:
    grocer, fuel = await shop.caller(), await shop.caller("fuel")
    for number in range(MINIMUM_CELL_MEMBERS):
        member = {"card": f"card-{number}"}
        await grocer.enroll(member["card"])
        await fuel.earn(f"f{number}", member=member)
        seen = await report(grocer)
        is_crowd = number + 1 == MINIMUM_CELL_MEMBERS
        assert seen["newMembers"] == number + 1
        assert seen["trafficGiven"] == (MINIMUM_CELL_MEMBERS if is_crowd else 0)
        assert ("trafficGiven" in seen["suppressed"]) is not is_crowd


async def test_statements_do_not_grow_with_the_report(shop: Shop) -> None:
    grocer, _, operator = await some_trade(shop)
    counts = []
    for caller in (grocer, operator):
        await report(caller)
        with shop.statements() as few:
            await report(caller, **{"from": "2017-03-01", "to": "2017-03-02"})
        with shop.statements() as many:
            await report(caller)
        counts.append((len(few), len(many)))
    # Periods to store, periods not stored, totals, members, matrix, partner ids, partners; a partner's budget window.
    assert counts == [(8, 8), (6, 7)]

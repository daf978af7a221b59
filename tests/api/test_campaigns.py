"""Campaigns through the API: what is listed to whom, what a receipt says, what a funder sees of a rival's purchase."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text

from api.campaigning import campaigns_table, describe_campaigns
from api.runtime import Runtime
from domain import reading
from domain.database import Database
from domain.errors import ConfigurationError
from domain.terms import ConfigurationCache
from domain.values import OPERATOR_ID
from tests.api.graphql_shop import Shop, open_shop
from tests.factories import COALITION_TOML, apply_toml, fixed_clock

GROCER, FUEL, RESTAURANT = 1, 2, 3
CAMPAIGNS = """
[[campaign]]
code = "spring"
name = "Spring"
from = 2017-03-01
to = 2017-03-31
partners = ["grocer"]
multiplier = "1.5"
funding = [{ partner = "grocer", share = "0.6" }, { partner = "restaurant", share = "0.4" }]

[[campaign]]
code = "pump"
name = "At the pump"
from = 2017-03-10
to = 2017-03-20
partners = ["fuel"]
bonus_points = 20
min_amount = "30.00"
funding = [{ partner = "restaurant" }]
[campaign.budget]
limit = "1.00"
on_limit = "PARTIAL"

[[campaign]]
code = "joint"
name = "Together"
from = 2017-04-01
to = 2017-04-30
points_per_unit = "0.5"
include_categories = ["wine"]
max_points = 10
funding = [{ operator = true, share = "0.75" }, { partner = "fuel", share = "0.25" }]
[campaign.budget]
limit = "50.00"
"""
LISTING = """{ campaigns { nodes { code name from to partners { code } multiplier bonusPoints minAmount { amount }
    pointsPerUnit includeCategories includeProducts maxPoints funding { funder { code } share }
    budget { limit { amount } consumed { amount } available { amount } } } } }"""


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    await apply_toml(database, COALITION_TOML + CAMPAIGNS)
    async with open_shop(database, is_applied=False) as opened:
        yield opened


async def test_campaigns_are_listed_to_who_takes_part_or_pays(shop: Shop) -> None:
    grocer, fuel, operator = await shop.caller(), await shop.caller("fuel"), await shop.caller(None)
    dinner = await shop.caller("restaurant")
    await fuel.enroll()
    await fuel.earn("k1")
    found = {}
    for name, caller in (("grocer", grocer), ("fuel", fuel), ("restaurant", dinner), ("operator", operator)):
        nodes = (await caller.run(LISTING))["campaigns"]["nodes"]
        found[name] = {node["code"]: node["budget"] and node["budget"]["consumed"]["amount"] for node in nodes}
    # The budget of a joint campaign tells what the others' points cost; one that pays alone knows anyway.
    assert found == {
        "grocer": {"spring": None, "joint": None},
        "fuel": {"pump": None, "joint": None},
        "restaurant": {"spring": None, "pump": "0.270000", "joint": None},
        "operator": {"spring": None, "pump": "0.270000", "joint": "0.000000"},
    }
    spring, pump, joint = (await operator.run(LISTING))["campaigns"]["nodes"]
    nothing = dict.fromkeys(("multiplier", "bonusPoints", "minAmount", "pointsPerUnit", "maxPoints", "budget"))
    nothing |= {"includeCategories": [], "includeProducts": [], "partners": None}
    assert spring == nothing | {
        "code": "spring", "name": "Spring", "from": "2017-03-01", "to": "2017-03-31", "multiplier": "1.500000",
        "partners": [{"code": "grocer"}],
        "funding": [
            {"funder": {"code": "grocer"}, "share": "0.600000"},
            {"funder": {"code": "restaurant"}, "share": "0.400000"},
        ],
    }  # fmt: skip
    assert pump["budget"] == {
        "limit": {"amount": "1.000000"}, "consumed": {"amount": "0.270000"}, "available": {"amount": "0.730000"},
    }  # fmt: skip
    assert (pump["bonusPoints"], pump["minAmount"]) == (20, {"amount": "30.000000"})
    assert (joint["pointsPerUnit"], joint["includeCategories"], joint["maxPoints"]) == ("0.500000", ["wine"], 10)
    assert joint["funding"][1] == {"funder": {"code": "operator"}, "share": "0.750000"}


async def test_the_list_of_campaigns_is_read_in_pages(shop: Shop) -> None:
    operator = await shop.caller(None)
    page = """query ($after: String) { campaigns(first: 2, after: $after) {
        nodes { code } pageInfo { hasNextPage endCursor } } }"""
    first = (await operator.run(page))["campaigns"]
    assert ([node["code"] for node in first["nodes"]], first["pageInfo"]["hasNextPage"]) == (["spring", "pump"], True)
    second = (await operator.run(page, {"after": first["pageInfo"]["endCursor"]}))["campaigns"]
    assert ([node["code"] for node in second["nodes"]], second["pageInfo"]["hasNextPage"]) == (["joint"], False)


EARN = """mutation ($input: EarnInput!) { earn(input: $input) { ... on EarnReceipt { points
    awards { rule campaign funder { code } requested granted }
    transaction { id movements { rule campaign funder { code } issueValue } } } } }"""


def purchase(key: str, amount: str = "100.00") -> dict[str, Any]:
    return {
        "input": {
            "idempotencyKey": key,
            "member": {"card": "card-1"},
            "amount": {"amount": amount, "currency": "EUR"},
            "occurredAt": "2017-03-15T12:00:00Z",
            "reference": f"receipt-{key}",
            "storeCode": "s1",
            "channel": "APP",
        }
    }


async def test_a_receipt_names_the_campaign_and_its_funders(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    receipt = (await grocer.run(EARN, purchase("k1")))["earn"]

    by_grocer, by_restaurant = {"funder": {"code": "grocer"}}, {"funder": {"code": "restaurant"}}
    assert receipt["awards"] == [
        {"rule": "base", "campaign": None, **by_grocer, "requested": 100, "granted": 100},
        {"rule": None, "campaign": "spring", **by_grocer, "requested": 30, "granted": 30},
        {"rule": None, "campaign": "spring", **by_restaurant, "requested": 20, "granted": 20},
    ]
    # What another funder pays is its own business.
    assert receipt["transaction"]["movements"] == [
        {"rule": "base", "campaign": None, **by_grocer, "issueValue": "-1.000000"},
        {"rule": None, "campaign": "spring", **by_grocer, "issueValue": "-0.300000"},
        {"rule": None, "campaign": "spring", **by_restaurant, "issueValue": None},
    ]


SEEN = """transactions(first: 10) { nodes { id kind partner { code } points amount { amount } reference
    idempotencyKey store { code } channel declinedPoints reason member { id } occurredAt recordedAt periodLabel
    reverses { kind reference } movements { kind points campaign funder { code } party { code } issueValue
    serviceFee poolValue } } }"""
LINES = f'{{ settlementStatement(label: "2017-03") {{ lines {{ kind exact {SEEN} }} }} }}'
REVERSE = "mutation ($input: ReverseInput!) { reverse(input: $input) { __typename ... on Refusal { code } } }"


async def test_a_funder_sees_its_own_part_of_another_s_purchase_and_nothing_else(shop: Shop) -> None:
    grocer, dinner = await shop.caller(), await shop.caller("restaurant")
    await grocer.enroll()
    await grocer.run(EARN, purchase("k1"))
    back = {"idempotencyKey": "v1", "originalKey": "k1", "amount": {"amount": "50.00", "currency": "EUR"},
            "occurredAt": "2017-03-15T12:00:00Z", "reason": "torn"}  # fmt: skip
    assert (await grocer.run(REVERSE, {"input": back}))["reverse"] == {"__typename": "ReversalReceipt"}

    lines = {line["kind"]: line for line in (await dinner.run(LINES))["settlementStatement"]["lines"]}
    assert {kind: line["exact"] for kind, line in lines.items()} == {
        "ISSUE": "-0.240000",
        "SERVICE_FEE": "-0.030000",
        "EARN_REVERSAL": "0.120000",
        "SERVICE_FEE_REFUND": "0.015000",
    }
    [bought], [returned] = lines["ISSUE"]["transactions"]["nodes"], lines["EARN_REVERSAL"]["transactions"]["nodes"]
    masked = dict.fromkeys(
        ("amount", "reference", "idempotencyKey", "store", "channel", "declinedPoints", "reason", "member")
    )
    times = {"occurredAt": "2017-03-15T12:00:00Z", "recordedAt": "2017-03-15T12:00:00Z", "periodLabel": "2017-03"}
    own = {"campaign": "spring", "funder": {"code": "restaurant"}, "party": {"code": "restaurant"}}
    assert bought == {
        "id": bought["id"], "kind": "EARN", "partner": {"code": "grocer"}, "points": 20, "reverses": None,
        **masked, **times,
        "movements": [
            {"kind": "EARN", "points": 20, **own, "issueValue": "-0.240000", "serviceFee": "-0.030000",
             "poolValue": "0.240000"}
        ],
    }  # fmt: skip
    assert returned == {
        "id": returned["id"], "kind": "REVERSAL", "partner": {"code": "grocer"}, "points": -10,
        "reverses": {"kind": "EARN", "reference": None}, **masked, **times,
        "movements": [
            {"kind": "EARN_REVERSAL", "points": -10, **own, "issueValue": "0.120000", "serviceFee": "0.015000",
             "poolValue": "-0.120000"}
        ],
    }  # fmt: skip
    # The statement led here, and the id leads back; but nothing can be done with it, and no list shows it.
    node = "query ($id: ID!) { node(id: $id) { ... on Transaction { points reference } } }"
    assert await dinner.run(node, {"id": bought["id"]}) == {"node": {"points": 20, "reference": None}}
    attempt = {"idempotencyKey": "v2", "transactionId": bought["id"], "occurredAt": "2017-03-15T12:00:00Z"}
    assert (await dinner.run(REVERSE, {"input": attempt}))["reverse"]["code"] == "TRANSACTION_NOT_FOUND"
    assert await dinner.run("{ transactions { nodes { id } } }") == {"transactions": {"nodes": []}}
    # The till's partner sees what it sent, and what its customer got; not the other's money.
    [mine] = (await grocer.run(f"{{ {SEEN.replace('first: 10', 'filter: {kind: EARN}')} }}"))["transactions"]["nodes"]
    assert (mine["points"], mine["amount"], mine["reference"]) == (150, {"amount": "100.00"}, "receipt-k1")
    assert [each["issueValue"] for each in mine["movements"]] == ["-1.000000", "-0.300000", None]
    fuel = await shop.caller("fuel")
    assert (await fuel.run(LINES))["settlementStatement"] in (None, {"lines": []})


async def test_row_level_security_shows_a_funder_those_rows_alone(shop: Shop) -> None:
    """The reads of the reading role, without any condition of ours."""
    grocer, fuel = await shop.caller(), await shop.caller("fuel")
    await grocer.enroll()
    await grocer.earn("k1")
    await fuel.earn("k2", amount={"amount": "29.99", "currency": "EUR"})
    found = {}
    for viewer in (GROCER, FUEL, RESTAURANT, reading.NOBODY_ID, OPERATOR_ID):
        async with shop.services.database.reading(viewer) as connection:
            rows = await reading.transactions_page(connection, {}, 10)
            movements = await reading.movements_of(connection, [row.id for row in rows])
            parties = sorted(each.party_id for of_one in movements.values() for each in of_one)
            campaigns = (await connection.execute(text("SELECT count(*) FROM campaign"))).scalar_one()
            plans = (await connection.execute(text("SELECT count(*) FROM budget_plan"))).scalar_one()
            found[viewer] = ([row.key for row in rows], parties, campaigns, plans)
    assert found == {
        GROCER: (["k1"], [1, 1, 3], 2, 1),
        FUEL: (["k2"], [2], 2, 1),
        RESTAURANT: (["k1"], [3], 3, 2),
        reading.NOBODY_ID: ([], [], 0, 0),
        OPERATOR_ID: (["k2", "k1"], [1, 1, 2, 3], 3, 5),
    }


async def test_a_partner_s_own_list_asks_no_movement_whose_it_is(shop: Shop) -> None:
    """The policy decides by the command itself first: the look-up of movements is for other partners' rows."""
    grocer = await shop.caller()
    await grocer.enroll()
    for number in range(5):
        await grocer.earn(f"k{number}")
    query = "EXPLAIN (ANALYZE, FORMAT JSON) SELECT id, amount_minor FROM command AS c WHERE c.partner_id = 1"
    async with shop.services.database.reading(GROCER) as connection:
        plan = (await connection.execute(text(query))).scalar_one()
    nodes = _nodes(plan if isinstance(plan, list) else json.loads(plan))
    subplans = [one for one in nodes if one.get("Relation Name") == "transaction"]
    assert subplans
    assert {one["Actual Loops"] for one in subplans} == {0}


def _nodes(plan: Any) -> list[dict[str, Any]]:
    if isinstance(plan, list):
        return [one for part in plan for one in _nodes(part)]
    if isinstance(plan, dict):
        return [plan, *(one for part in plan.values() if isinstance(part, list | dict) for one in _nodes(part))]
    return []


async def test_the_command_line_lists_what_graphql_lists_to_an_operator(shop: Shop) -> None:
    fuel = await shop.caller("fuel")
    await fuel.enroll()
    await fuel.earn("k1")
    services = shop.services
    described = await describe_campaigns(Runtime(services.database, services.configuration, services.clock))

    assert [(one["code"], one["partners"], one["gives"], one["max_points"]) for one in described] == [
        ("spring", ["grocer"], "1.5 x base points", None),
        ("pump", ["fuel"], "20 points from 30", None),
        ("joint", None, "0.5 per unit of wine", 10),
    ]
    assert [(one["from"], one["to"]) for one in described][1] == ("2017-03-10", "2017-03-20")
    assert [one["funding"] for one in described] == [
        {"grocer": "0.600000", "restaurant": "0.400000"},
        {"restaurant": "1.000000"},
        {"fuel": "0.250000", "operator": "0.750000"},
    ]
    left = {"limit": "1.000000", "reserved": "0.000000", "consumed": "0.270000", "available": "0.730000"}
    assert [one["budget"] for one in described][:2] == [None, left]
    table = campaigns_table(described)
    assert [list(column.cells)[1] for column in table.columns] == [
        "pump", "2017-03-10 to 2017-03-20", "fuel", "20 points from 30", "restaurant 1", "0.730000 of 1.000000",
    ]  # fmt: skip


async def test_without_a_programme_there_is_nothing_to_list(database: Database) -> None:
    runtime = Runtime(database, ConfigurationCache(database), fixed_clock())
    with pytest.raises(ConfigurationError, match="no programme yet"):
        await describe_campaigns(runtime)

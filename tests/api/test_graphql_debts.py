"""Balances below zero over GraphQL: what a till sees of them, and what only the operator does."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.debtors import list_debtors
from api.runtime import Runtime
from domain.database import Database
from domain.terms import ConfigurationCache
from tests.api.graphql_shop import Caller, Shop, open_shop
from tests.domain.books import check_books
from tests.factories import COALITION_TOML, apply_toml, fixed_clock

AT = {"occurredAt": "2017-03-15T12:00:00Z"}
REVERSE = """mutation ($input: ReverseInput!) { reverse(input: $input) { ... on ReversalReceipt {
  points shortfall balance { available value { amount } }
  transaction { kind points movements { kind points issueValue serviceFee poolValue } } } ... on Refusal { code } } }"""
MEMBER = 'query { member(by: {card: "card-1"}) { balance { available value { amount } } } }'
MOVEMENTS = """query { transactions(first: 10) { nodes { kind points partner { code } reverses { idempotencyKey }
  movements { kind points issueValue poolValue } } } }"""
PERIOD = """query { settlementPeriod(label: "2017-03") { operatorNet { amount } poolChange { amount } margin { amount }
  memberReceivableChange { amount } } }"""
LINE = """query { settlementStatement(label: "2017-03") { lines { kind points exact
  transactions(first: 10) { nodes { kind movements { kind } } } } } }"""


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    await apply_toml(database, COALITION_TOML.replace("[programme]", '[programme]\nclaw_back = "negative_balance"', 1))
    async with open_shop(database, is_applied=False) as opened:
        till = await opened.caller()
        await till.enroll()
        await till.earn("k")
        await till.burn("b", 100)
        yield opened
    await check_books(database)


async def returned(till: Caller) -> Any:
    given = {"idempotencyKey": "v", "originalKey": "k", "amount": {"amount": "90.00", "currency": "EUR"}, **AT}
    return (await till.run(REVERSE, {"input": given}))["reverse"]


async def test_a_till_sees_the_balance_and_its_own_movements(shop: Shop) -> None:
    till = await shop.caller()
    assert await returned(till) == {
        "points": 90,
        "shortfall": 0,
        "balance": {"available": -90, "value": {"amount": "-0.90"}},
        "transaction": {
            "kind": "REVERSAL",
            "points": -90,
            "movements": [
                {"kind": "EARN_REVERSAL", "points": 0, "issueValue": "0.000000", "serviceFee": "0.000000",
                 "poolValue": "0.000000"},
                {"kind": "OVERDRAW", "points": -90, "issueValue": "0.900000", "serviceFee": "0.090000",
                 "poolValue": "0.000000"},
            ],
        },
    }  # fmt: skip
    assert (await till.run(MEMBER))["member"] == {"balance": {"available": -90, "value": {"amount": "-0.90"}}}
    assert (await till.burn("b2", 1))["code"] == "INSUFFICIENT_POINTS"
    await (await shop.caller("fuel")).earn("k2")
    assert (await till.run(MEMBER))["member"]["balance"]["available"] == 10
    # Neither of them sees that the points of the one paid for the return of the other; the line shows what it sums.
    for caller in (till, await shop.caller("fuel")):
        kinds = {node["kind"] for node in (await caller.run(MOVEMENTS))["transactions"]["nodes"]}
        assert "REPAYMENT" not in kinds
    [line] = [
        one
        for one in (await (await shop.caller(scopes=("settlement:read",))).run(LINE))["settlementStatement"]["lines"]
        if one["kind"] == "EARN_REVERSAL"
    ]
    assert (line["points"], line["exact"]) == (90, "0.900000")
    assert [node["kind"] for node in line["transactions"]["nodes"]] == ["REVERSAL"]


async def test_the_operator_sees_who_paid_back_what(shop: Shop) -> None:
    await returned(await shop.caller())
    await (await shop.caller("fuel")).earn("k2", amount={"amount": "60.00", "currency": "EUR"})
    operator = await shop.caller(None, ("audit:read", "settlement:operate"))
    node = (await operator.run(MOVEMENTS))["transactions"]["nodes"][0]
    assert node == {
        "kind": "REPAYMENT",
        "points": -60,
        "partner": {"code": "operator"},
        "reverses": {"idempotencyKey": "v"},
        "movements": [{"kind": "REPAY", "points": -60, "issueValue": "0.600000", "poolValue": "-0.630000"}],
    }
    period = (await operator.run(PERIOD))["settlementPeriod"]
    assert period["memberReceivableChange"] == {"amount": "0.300000"}
    assert [error["extensions"]["code"] for error in await (await shop.caller()).errors(PERIOD)] == ["FORBIDDEN"] * 4


DEBTORS = """query ($first: Int, $after: String) { debtors(first: $first, after: $after) {
  nodes { member { id } since points originalPoints issuer { code } funder { code } value { amount currency }
    transaction { idempotencyKey } }
  pageInfo { hasNextPage endCursor } } }"""


async def test_the_operator_lists_who_owes_since_when_and_to_whom(shop: Shop, database: Database) -> None:
    till, fuel = await shop.caller(), await shop.caller("fuel")
    operator = await shop.caller(None, ("members:admin",))
    assert (await operator.run(DEBTORS))["debtors"]["nodes"] == []
    await fuel.earn("f")
    await fuel.burn("bf", 100)
    await till.earn("k3", amount={"amount": "5.00", "currency": "EUR"})
    await returned(till)
    back = {"idempotencyKey": "vf", "originalKey": "f", "occurredAt": "2017-03-14T12:00:00Z"}
    await fuel.run(REVERSE, {"input": back})
    await fuel.earn("f2", amount={"amount": "25.00", "currency": "EUR"})

    # 100 earned and burned at each; 5 more at the grocer. Of 90 returned there 85 are owed, and 25 of them paid back.
    # What the fuel station took back the day before was sent later.
    page = (await operator.run(DEBTORS, {"first": 1}))["debtors"]
    [first] = page["nodes"]
    member_id = first["member"]["id"]
    at_fuel = {"member": {"id": member_id}, "since": "2017-03-14T12:00:00Z", "points": 100, "originalPoints": 100,
               "issuer": {"code": "fuel"}, "funder": {"code": "fuel"},
               "value": {"amount": "1.050000", "currency": "EUR"}}  # fmt: skip
    assert first == at_fuel | {"transaction": {"idempotencyKey": "vf"}}
    assert page["pageInfo"]["hasNextPage"]
    rest = (await operator.run(DEBTORS, {"first": 5, "after": page["pageInfo"]["endCursor"]}))["debtors"]
    at_grocer = {"member": {"id": member_id}, "since": "2017-03-15T12:00:00Z", "points": 60, "originalPoints": 85,
                 "issuer": {"code": "grocer"}, "funder": {"code": "grocer"},
                 "value": {"amount": "0.600000", "currency": "EUR"}}  # fmt: skip
    assert rest["nodes"] == [at_grocer | {"transaction": {"idempotencyKey": "v"}}]
    assert not rest["pageInfo"]["hasNextPage"]
    assert [error["path"] for error in await operator.errors(DEBTORS, {"after": "x"})] == [["debtors"]]

    # The command line says the same, and of two that one of them was left out.
    runtime = Runtime(database, ConfigurationCache(database), fixed_clock())
    rows, is_cut = await list_debtors(runtime, 10)
    assert is_cut is False
    assert [row | {"since": row["since"].replace("+00:00", "Z")} for row in rows] == [at_fuel, at_grocer]
    assert await list_debtors(runtime, 1) == (rows[:1], True)


async def test_no_partner_lists_debtors(shop: Shop) -> None:
    await returned(await shop.caller())
    for caller in (await shop.caller(), await shop.caller("fuel")):
        assert {error["extensions"]["code"] for error in await caller.errors(DEBTORS)} == {"FORBIDDEN"}
    for scope in ("audit:read", "settlement:operate"):
        operator = await shop.caller(None, (scope,))
        assert [one["points"] for one in (await operator.run(DEBTORS))["debtors"]["nodes"]] == [90]
    planner = await shop.caller(None, ("program:write",))
    assert {error["extensions"]["code"] for error in await planner.errors(DEBTORS)} == {"FORBIDDEN"}

"""Two-phase burns over GraphQL: authorizing, capturing, voiding, listing; and many burns and reversals at once."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from domain.database import Database
from tests.api.graphql_shop import Caller, Shop, Time, open_shop

FIELDS = """
id points captured released state expiresAt idempotencyKey replayed
transaction { kind points reference } resolution { kind points idempotencyKey }
"""
BALANCE = "balance { available held pending }"
AUTHORIZE = f"""mutation ($input: BurnInput!) {{ authorizeBurn(input: $input) {{
  ... on BurnHold {{ {FIELDS} {BALANCE} }} ... on Refusal {{ code field refusedKey: idempotencyKey }} }} }}"""
CAPTURE = """mutation ($input: CaptureBurnInput!) { captureBurn(input: $input) {
  ... on BurnReceipt { points replayed value { amount } balance { available held }
    transaction { id kind points reference reverses { kind }
      movements { kind points reimbursement poolValue lots { points price } } } }
  ... on Refusal { code field refusedKey: idempotencyKey } } }"""
VOID = f"""mutation ($input: VoidBurnInput!) {{ voidBurn(input: $input) {{
  ... on BurnHold {{ {FIELDS} {BALANCE} }} ... on Refusal {{ code field refusedKey: idempotencyKey }} }} }}"""
HOLDS = f"""query ($filter: HoldFilter, $first: Int, $after: String) {{
  holds(filter: $filter, first: $first, after: $after) {{
  nodes {{ {FIELDS} }} pageInfo {{ hasNextPage endCursor }} }} }}"""
AT = {"occurredAt": "2017-03-15T12:00:00Z"}


def burn_input(key: str, points: int, **changes: Any) -> dict[str, Any]:
    return {
        "idempotencyKey": key,
        "member": {"card": "card-1"},
        "points": points,
        "reference": key,
        **AT,
        **changes,
    }


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        yield opened


@pytest.fixture
async def till(shop: Shop) -> Caller:
    """The grocer's, with a member of 100 points."""
    caller = await shop.caller()
    await caller.enroll()
    await caller.earn("k")
    return caller


async def authorized(till: Caller, key: str, points: int, **changes: Any) -> Any:
    return (await till.run(AUTHORIZE, {"input": burn_input(key, points, **changes)}))["authorizeBurn"]


async def test_a_hold_from_authorization_to_capture(till: Caller) -> None:
    held = await authorized(till, "a", 60)
    assert held == {
        "id": held["id"],
        "points": 60,
        "captured": 0,
        "released": 0,
        "state": "OPEN",
        "expiresAt": "2017-03-22T12:00:00Z",
        "idempotencyKey": "a",
        "replayed": False,
        "transaction": {"kind": "AUTHORIZATION", "points": -60, "reference": "a"},
        "resolution": None,
        "balance": {"available": 40, "held": 60, "pending": 0},
    }
    captured = (await till.run(CAPTURE, {"input": {"idempotencyKey": "c", "holdId": held["id"], "points": 50, **AT}}))[
        "captureBurn"
    ]
    assert captured == {
        "points": 50,
        "replayed": False,
        "value": {"amount": "0.50"},
        "balance": {"available": 50, "held": 0},
        "transaction": {
            "id": captured["transaction"]["id"],
            "kind": "CAPTURE",
            "points": -50,
            "reference": "a",
            "reverses": {"kind": "AUTHORIZATION"},
            "movements": [
                {
                    "kind": "CAPTURE",
                    "points": -50,
                    "reimbursement": "0.450000",
                    # It would tell the prices of the others whose points were burned.
                    "poolValue": None,
                    "lots": [{"points": 50, "price": "0.010000"}],
                },
                {
                    "kind": "RELEASE",
                    "points": 10,
                    "reimbursement": "0.000000",
                    "poolValue": "0.000000",
                    "lots": [{"points": 10, "price": "0.010000"}],
                },
            ],
        },
    }
    node = await till.run(f"query ($id: ID!) {{ node(id: $id) {{ ... on BurnHold {{ {FIELDS} {BALANCE} }} }} }}", held)
    assert node["node"] == held | {
        "captured": 50,
        "released": 10,
        "state": "CAPTURED",
        "resolution": {"kind": "CAPTURE", "points": -50, "idempotencyKey": "c"},
        "balance": {"available": 50, "held": 0, "pending": 0},
    }
    again = await authorized(till, "a", 60)
    assert again == node["node"] | {"replayed": True}
    refused = (await till.run(CAPTURE, {"input": {"idempotencyKey": "d", "holdId": held["id"], **AT}}))["captureBurn"]
    assert refused == {"code": "HOLD_RESOLVED", "field": None, "refusedKey": "d"}


async def test_a_void_by_reference_and_what_is_refused(till: Caller) -> None:
    await authorized(till, "a", 60, storeCode="s1")
    by_reference = {"idempotencyKey": "v", "reference": "a", "storeCode": "s1", "reason": "called off", **AT}
    voided = (await till.run(VOID, {"input": by_reference}))["voidBurn"]
    assert (voided["state"], voided["released"], voided["idempotencyKey"]) == ("VOIDED", 60, "v")
    assert voided["resolution"] == {"kind": "VOID", "points": 60, "idempotencyKey": "v"}
    assert voided["balance"] == {"available": 100, "held": 0, "pending": 0}
    assert (await till.run(VOID, {"input": by_reference}))["voidBurn"] == voided | {"replayed": True}
    for changes, code, field in (
        ({}, "INPUT_INVALID", "holdId"),
        ({"originalKey": "a", "reference": "a"}, "INPUT_INVALID", "holdId"),
        ({"originalKey": "none"}, "TRANSACTION_NOT_FOUND", None),
        ({"holdId": "none"}, "TRANSACTION_NOT_FOUND", None),
        ({"originalKey": "a"}, "HOLD_RESOLVED", None),
    ):
        refused = (await till.run(VOID, {"input": {"idempotencyKey": "w", **AT, **changes}}))["voidBurn"]
        assert refused == {"code": code, "field": field, "refusedKey": "w"}
    assert (await authorized(till, "b", 101))["code"] == "INSUFFICIENT_POINTS"
    reverse = """mutation ($input: ReverseInput!) { reverse(input: $input) { ... on Refusal { code message } } }"""
    answer = await till.run(reverse, {"input": {"idempotencyKey": "r", "originalKey": "a", **AT}})
    assert answer["reverse"]["code"] == "NOT_REVERSIBLE"


async def test_a_capture_is_refunded_by_reference_and_by_id(till: Caller) -> None:
    reverse = "mutation ($input: ReverseInput!) { reverse(input: $input) { ... on ReversalReceipt { points } } }"
    await authorized(till, "a", 60)
    captured = (await till.run(CAPTURE, {"input": {"idempotencyKey": "c", "reference": "a", **AT}}))["captureBurn"]
    for number, named in enumerate(
        (
            {"reference": "a", "kind": "BURN"},
            {"originalKey": "c"},
            {"transactionId": captured["transaction"]["id"]},
        )
    ):
        given = {"idempotencyKey": f"r{number}", "points": 10, **named, **AT}
        assert (await till.run(reverse, {"input": given}))["reverse"] == {"points": 10}


async def test_holds_are_listed_to_whom_they_belong(shop: Shop, till: Caller) -> None:
    fuel, operator = await shop.caller("fuel"), await shop.caller(None)
    for number in range(3):
        await authorized(till, f"a{number}", 10)
    other = await authorized(fuel, "f", 5)
    await till.run(VOID, {"input": {"idempotencyKey": "v", "originalKey": "a1", **AT}})

    async def keys(caller: Caller, **variables: Any) -> list[str]:
        found = await caller.run(HOLDS, variables)
        return [node["idempotencyKey"] for node in found["holds"]["nodes"]]

    assert await keys(till) == ["a2", "a1", "a0"]
    assert await keys(fuel) == ["f"]
    assert await keys(operator) == ["f", "a2", "a1", "a0"]
    assert await keys(till, filter={"state": "OPEN"}) == ["a2", "a0"]
    assert await keys(till, filter={"reference": "a0"}) == ["a0"]
    assert await keys(till, filter={"expiresBefore": "2017-03-22T12:00:00Z"}) == []
    member = (await till.run('{ member(by: { card: "card-1" }) { id } }'))["member"]["id"]
    assert await keys(till, filter={"member": member, "expiresBefore": "2017-03-23T00:00:00Z"}) == ["a2", "a1", "a0"]
    page = (await till.run(HOLDS, {"first": 2}))["holds"]["pageInfo"]
    assert page["hasNextPage"]
    assert await keys(till, first=2, after=page["endCursor"]) == ["a0"]
    [error] = await till.errors(HOLDS, {"filter": {"member": other["id"]}})
    assert error["extensions"] == {"code": "BAD_USER_INPUT", "field": "member"}
    # Another partner's hold is nobody's here, by whatever id.
    node = "query ($id: ID!) { node(id: $id) { ... on BurnHold { points } } }"
    assert await till.run(node, {"id": other["id"]}) == {"node": None}
    refused = (await till.run(VOID, {"input": {"idempotencyKey": "w", "holdId": other["id"], **AT}}))["voidBurn"]
    assert refused["code"] == "TRANSACTION_NOT_FOUND"


async def test_a_time_out_is_the_platform_s(database: Database) -> None:
    time = Time()
    async with open_shop(database, time) as shop:
        till = await shop.caller()
        await till.enroll()
        await till.earn("k")
        await authorized(till, "a", 60)
        time.now += timedelta(days=7)
        till = await shop.caller()
        at = {"occurredAt": time.now.isoformat()}
        refused = (await till.run(CAPTURE, {"input": {"idempotencyKey": "c", "originalKey": "a", **at}}))["captureBurn"]
        assert refused["code"] == "HOLD_EXPIRED"
        [hold] = (await till.run(HOLDS))["holds"]["nodes"]
        assert (hold["state"], hold["released"]) == ("EXPIRED", 60)
        assert hold["resolution"] == {"kind": "VOID", "points": 60, "idempotencyKey": None}


BURN_MANY = """mutation ($inputs: [BurnInput!]!) { burnMany(inputs: $inputs) {
  ... on BurnReceipt { points idempotencyKey balance { available } }
  ... on Refusal { code refusedKey: idempotencyKey } } }"""
REVERSE_MANY = """mutation ($inputs: [ReverseInput!]!) { reverseMany(inputs: $inputs) {
  ... on ReversalReceipt { points idempotencyKey } ... on Refusal { code refusedKey: idempotencyKey } } }"""


async def test_many_burns_and_reversals_in_order_each_on_its_own(till: Caller) -> None:
    burns = [burn_input(f"b{number}", points) for number, points in enumerate((60, 50, 30))]
    late = burn_input("b3", 5, occurredAt="2017-02-20T12:00:00Z")
    too_late = burn_input("b4", 1, occurredAt="2017-01-01T00:00:00Z")
    answer = await till.run(BURN_MANY, {"inputs": [*burns, late, too_late]})
    assert answer["burnMany"] == [
        {"points": 60, "idempotencyKey": "b0", "balance": {"available": 40}},
        {"code": "INSUFFICIENT_POINTS", "refusedKey": "b1"},
        {"points": 30, "idempotencyKey": "b2", "balance": {"available": 10}},
        {"points": 5, "idempotencyKey": "b3", "balance": {"available": 5}},
        {"code": "OCCURRED_TOO_LONG_AGO", "refusedKey": "b4"},
    ]
    reversals = [
        {"idempotencyKey": f"r{number}", "originalKey": key, **AT} for number, key in enumerate(("b0", "b1", "k", "b0"))
    ]
    assert (await till.run(REVERSE_MANY, {"inputs": reversals}))["reverseMany"] == [
        {"points": 60, "idempotencyKey": "r0"},
        {"code": "TRANSACTION_NOT_FOUND", "refusedKey": "r1"},
        {"points": 65, "idempotencyKey": "r2"},
        {"code": "ALREADY_REVERSED", "refusedKey": "r3"},
    ]


async def test_five_hundred_and_no_more(till: Caller) -> None:
    inputs = [burn_input(f"b{number}", 1) for number in range(501)]
    [error] = await till.errors(BURN_MANY, {"inputs": inputs})
    assert error["message"] == "inputs has 501 items, at most 500: send the rest in further requests"
    reversals = [{"idempotencyKey": f"r{number}", "originalKey": "k", **AT} for number in range(501)]
    [error] = await till.errors(REVERSE_MANY, {"inputs": reversals})
    assert error["message"] == "inputs has 501 items, at most 500: send the rest in further requests"
    posted = (await till.run(BURN_MANY, {"inputs": inputs[:500]}))["burnMany"]
    assert [one.get("points") for one in posted] == [1] * 100 + [None] * 400


EARLY = """mutation ($inputs: [ReverseInput!]!) { reverseMany(inputs: $inputs) { __typename
  ... on ReversalReceipt { points } ... on Refusal { code }
  ... on ParkedReversal { idempotencyKey originalKey reference kind state refusalCode expiresAt replayed
    partner { code } transaction { id } } } }"""
PARKED = """query ($filter: ParkedReversalFilter, $first: Int, $after: String) {
  parkedReversals(filter: $filter, first: $first, after: $after) {
    nodes { idempotencyKey state refusalCode transaction { kind points } } pageInfo { endCursor } } }"""


async def test_a_reversal_before_its_original_waits_for_it(shop: Shop, till: Caller) -> None:
    named = {"reference": "p", "kind": "EARN", "amount": {"amount": "40.00", "currency": "EUR"}}
    inputs = [
        {"idempotencyKey": "r1", **named, "awaitOriginal": True, **AT},
        {"idempotencyKey": "r2", "originalKey": "p", **AT},
        {"idempotencyKey": "r3", "originalKey": "p", "points": 1, "awaitOriginal": True, **AT},
        {"idempotencyKey": "r4", "originalKey": "k", "awaitOriginal": True, **AT},
    ]
    waits = {
        "__typename": "ParkedReversal",
        "idempotencyKey": "r1",
        "originalKey": None,
        "reference": "p",
        "kind": "EARN",
        "state": "WAITING",
        "refusalCode": None,
        "expiresAt": "2017-04-14T12:00:00Z",
        "replayed": False,
        "partner": {"code": "grocer"},
        "transaction": None,
    }
    first, second, third, fourth = (await till.run(EARLY, {"inputs": inputs}))["reverseMany"]
    assert first == waits
    assert second == {"__typename": "Refusal", "code": "TRANSACTION_NOT_FOUND"}
    assert (third["__typename"], fourth) == ("ParkedReversal", {"__typename": "ReversalReceipt", "points": 100})
    [again] = (await till.run(EARLY, {"inputs": inputs[:1]}))["reverseMany"]
    assert again == waits | {"replayed": True}

    assert (await till.earn("p"))["balance"] == {"available": 60}
    [posted] = (await till.run(EARLY, {"inputs": inputs[:1]}))["reverseMany"]
    assert posted == {"__typename": "ReversalReceipt", "points": 40}

    async def listed(caller: Caller, **variables: Any) -> Any:
        return (await caller.run(PARKED, variables))["parkedReversals"]["nodes"]

    refused = {"idempotencyKey": "r3", "state": "REFUSED", "refusalCode": "INPUT_INVALID", "transaction": None}
    reversed_ = {"kind": "REVERSAL", "points": -40}
    done = {"idempotencyKey": "r1", "state": "POSTED", "refusalCode": None, "transaction": reversed_}
    assert await listed(till) == await listed(await shop.caller(None)) == [refused, done]
    assert await listed(await shop.caller("fuel")) == []
    assert await listed(till, filter={"state": "POSTED"}) == await listed(till, filter={"reference": "p"}) == [done]
    assert await listed(till, filter={"originalKey": "p"}) == [refused]
    page = (await till.run(PARKED, {"first": 1}))["parkedReversals"]
    assert await listed(till, after=page["pageInfo"]["endCursor"]) == [done]

"""Members as they are found, and their points as they stand: expired ones never count."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.database import Database
from tests.api.graphql_shop import ENROLL, Caller, Shop, Time, open_shop

BALANCE = """{ member(by: {card: "card-1"}) {
    balance { available value { amount } expiringNext { points at } } } }"""


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def shop(database: Database, time: Time) -> AsyncIterator[Shop]:
    async with open_shop(database, time) as opened:
        yield opened


async def at(shop: Shop, time: Time, instant: datetime) -> Caller:
    """The grocer's client at another moment."""
    time.now = instant
    return await shop.caller()


async def balance(caller: Caller) -> Any:
    return (await caller.run(BALANCE))["member"]["balance"]


async def test_expired_points_are_never_counted(shop: Shop, time: Time) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    await grocer.earn("k1")
    await grocer.earn("k2", amount={"amount": "20", "currency": "EUR"})
    grocer = await at(shop, time, datetime(2018, 1, 10, 12, tzinfo=UTC))
    await grocer.earn("k3", occurredAt="2018-01-10T12:00:00Z", amount={"amount": "5", "currency": "EUR"})
    first, last = "2019-03-15T23:00:00Z", "2020-01-10T23:00:00Z"
    next_ = {"points": 120, "at": first}
    assert await balance(grocer) == {"available": 125, "value": {"amount": "1.25"}, "expiringNext": next_}
    grocer = await at(shop, time, datetime(2019, 3, 15, 22, 59, 59, tzinfo=UTC))
    assert (await balance(grocer))["available"] == 125
    grocer = await at(shop, time, datetime(2019, 3, 15, 23, tzinfo=UTC))
    next_ = {"points": 5, "at": last}
    assert await balance(grocer) == {"available": 5, "value": {"amount": "0.05"}, "expiringNext": next_}
    members = (await grocer.run("{ members { nodes { balance { available } } } }"))["members"]["nodes"]
    assert members == [{"balance": {"available": 5}}]
    refused = await grocer.burn("b1", 6, occurredAt="2019-03-15T23:00:00Z")
    assert refused["code"] == "INSUFFICIENT_POINTS"
    burned = await grocer.burn("b2", 5, occurredAt="2019-03-15T23:00:00Z")
    assert burned["balance"] == {"available": 0}
    assert await balance(grocer) == {"available": 0, "value": {"amount": "0.00"}, "expiringNext": None}


async def test_points_given_back_after_their_expiry_count_as_long_as_they_may_be_used(shop: Shop, time: Time) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    await grocer.earn("k1")
    grocer = await at(shop, time, datetime(2019, 3, 10, 12, tzinfo=UTC))
    await grocer.burn("b1", 40, occurredAt="2019-03-10T12:00:00Z")
    grocer = await at(shop, time, datetime(2019, 3, 20, 12, tzinfo=UTC))
    assert (await balance(grocer))["available"] == 0
    reverse = """mutation { reverse(
        input: {idempotencyKey: "r1", originalKey: "b1", occurredAt: "2019-03-20T12:00:00Z"}) {
        ... on ReversalReceipt { points balance { available expiringNext { points at } } } } }"""
    receipt = (await grocer.run(reverse))["reverse"]
    shown = await balance(grocer)
    assert receipt == {
        "points": 40,
        "balance": {"available": shown["available"], "expiringNext": shown["expiringNext"]},
    }


@pytest.mark.parametrize(
    "by",
    [
        {"card": "Card-7"},
        {"email": "SOMEBODY@example.COM"},
        {"email": " somebody@example.com "},
        {"phone": "+49 30 1234567"},
        {"phone": "030 1234567"},
        {"phone": "0049-30-1234567"},
    ],
)
async def test_a_member_is_found_however_the_identifier_is_typed(shop: Shop, by: dict[str, str]) -> None:
    grocer = await shop.caller()
    given = {"card": "Card-7", "email": "Somebody@example.com", "phone": "+49301234567"}
    member = (await grocer.run(ENROLL, {"input": {"idempotencyKey": "e1", **given}}))["enrollMember"]["member"]
    query = "query ($by: MemberRef!) { member(by: $by) { id } }"
    assert await grocer.run(query, {"by": by}) == {"member": member}


@pytest.mark.parametrize("by", [{"card": "card-7"}, {"email": "nobody"}, {"phone": "12"}, {"id": "x"}, {"card": ""}])
async def test_what_names_nobody_finds_nobody(shop: Shop, by: dict[str, str]) -> None:
    grocer = await shop.caller()
    await grocer.enroll("Card-7")
    assert await grocer.run("query ($by: MemberRef!) { member(by: $by) { id } }", {"by": by}) == {"member": None}


@pytest.mark.parametrize("by", [{}, {"card": "a", "email": "b"}, {"card": None}, {"card": "a", "phone": None}, None])
async def test_a_member_is_named_in_exactly_one_way(shop: Shop, by: Any) -> None:
    grocer = await shop.caller()
    errors = await grocer.errors("query ($by: MemberRef!) { member(by: $by) { id } }", {"by": by})
    assert {error["extensions"]["code"] for error in errors} == {"BAD_USER_INPUT"}
    assert "$by" in errors[0]["message"]


async def test_enrolling_somebody_again_finds_the_member(shop: Shop) -> None:
    grocer, fuel = await shop.caller(), await shop.caller("fuel")
    first = (await grocer.run(ENROLL, {"input": {"idempotencyKey": "e1", "card": "card-1"}}))["enrollMember"]
    again = (await grocer.run(ENROLL, {"input": {"idempotencyKey": "e2", "card": "card-1"}}))["enrollMember"]
    assert (first["created"], again) == (True, {**first, "created": False})
    other = (await fuel.run(ENROLL, {"input": {"idempotencyKey": "e1", "card": "card-1"}}))["enrollMember"]
    assert other["created"] is False
    nobody = (await grocer.run(ENROLL, {"input": {"idempotencyKey": "e3"}}))["enrollMember"]
    assert nobody["code"] == "INPUT_INVALID"


async def test_members_are_filtered_and_paged(shop: Shop, time: Time) -> None:
    grocer = await shop.caller()
    for number in range(3):
        await grocer.enroll(f"card-{number}")
    grocer = await at(shop, time, datetime(2017, 3, 16, 12, tzinfo=UTC))
    await grocer.enroll("card-9")
    query = """query ($filter: MemberFilter, $after: String) { members(filter: $filter, first: 2, after: $after) {
        nodes { id enrolledAt } pageInfo { hasNextPage endCursor } } }"""
    first = (await grocer.run(query))["members"]
    second = (await grocer.run(query, {"after": first["pageInfo"]["endCursor"]}))["members"]
    assert (first["pageInfo"]["hasNextPage"], second["pageInfo"]["hasNextPage"]) == (True, False)
    assert len({node["id"] for page in (first, second) for node in page["nodes"]}) == 4
    for given, count in (
        ({"enrolledFrom": "2017-03-16T12:00:00Z"}, 1),
        ({"enrolledTo": "2017-03-16T12:00:00Z"}, 2),
        ({"enrolledFrom": "2017-03-15T12:00:00Z", "enrolledTo": "2017-03-15T12:00:00Z"}, 0),
        ({"state": "CLOSED"}, 0),
    ):
        assert len((await grocer.run(query, {"filter": given}))["members"]["nodes"]) == count

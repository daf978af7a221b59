"""The notice list: whose points expire before a date, soonest first, to each viewer what it may see."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.database import Database
from tests.api.graphql_shop import Caller, Shop, Time, open_shop
from tests.api.processes import a_database
from tests.domain.coalitions import coalition, partner

QUERY = """query ($before: DateTime!, $first: Int, $after: String) {
  expiringPoints(before: $before, first: $first, after: $after) {
    nodes { member { id } points expiries { points at } }
    pageInfo { hasNextPage endCursor } } }"""
FIRST, SECOND = "2019-03-15T23:00:00Z", "2019-04-02T22:00:00Z"
"""When points of 15 March and of 2 April 2017 are past, after 24 months in Berlin."""


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def shop(database: Database, time: Time) -> AsyncIterator[Shop]:
    async with open_shop(database, time) as opened:
        yield opened


async def page(caller: Caller, before: str, **variables: Any) -> Any:
    """One page of the list."""
    return (await caller.run(QUERY, {"before": before, **variables}))["expiringPoints"]


async def three_members(shop: Shop, time: Time) -> None:
    """card-1 and card-2 bought in March, card-1 again in April, card-3 in April at the fuel station only."""
    grocer, fuel = await shop.caller(), await shop.caller("fuel")
    for card in ("card-1", "card-2"):
        await grocer.enroll(card)
        await grocer.earn(f"k-{card}", member={"card": card})
    time.now = datetime(2017, 4, 2, 12, tzinfo=UTC)
    grocer, fuel = await shop.caller(), await shop.caller("fuel")
    await fuel.enroll("card-3")
    april = {"occurredAt": "2017-04-02T12:00:00Z", "amount": {"amount": "7", "currency": "EUR"}}
    await grocer.earn("again", **april)
    await fuel.earn("fuel", member={"card": "card-3"}, **april)


async def test_the_operator_sees_all_members_soonest_first(shop: Shop, time: Time) -> None:
    await three_members(shop, time)
    operator = await shop.caller(None)
    ids = {
        card: (await operator.run(f'{{ member(by: {{card: "{card}"}}) {{ id }} }}'))["member"]["id"]
        for card in ("card-1", "card-2", "card-3")
    }
    nodes = (await page(operator, "2019-05-01T00:00:00Z"))["nodes"]
    assert nodes == [
        {
            "member": {"id": ids["card-1"]},
            "points": 107,
            "expiries": [{"points": 100, "at": FIRST}, {"points": 7, "at": SECOND}],
        },
        {"member": {"id": ids["card-2"]}, "points": 100, "expiries": [{"points": 100, "at": FIRST}]},
        {"member": {"id": ids["card-3"]}, "points": 7, "expiries": [{"points": 7, "at": SECOND}]},
    ]
    # The bound itself is not before; what is past already is nobody's notice.
    assert [node["points"] for node in (await page(operator, SECOND))["nodes"]] == [100, 100]
    assert (await page(operator, FIRST))["nodes"] == []
    time.now = datetime(2019, 3, 15, 23, tzinfo=UTC)
    operator = await shop.caller(None)
    assert [node["points"] for node in (await page(operator, "2019-05-01T00:00:00Z"))["nodes"]] == [7, 7]


async def test_the_list_is_read_page_by_page(shop: Shop, time: Time) -> None:
    await three_members(shop, time)
    operator = await shop.caller(None)
    found, after, more = [], None, True
    while more:
        read = await page(operator, "2019-05-01T00:00:00Z", first=1, after=after)
        found += [node["points"] for node in read["nodes"]]
        after, more = read["pageInfo"]["endCursor"], read["pageInfo"]["hasNextPage"]
    assert found == [107, 100, 7]
    # A cursor is its viewer's, and of this list.
    grocer = await shop.caller()
    for caller, cursor in ((grocer, after), (operator, "x")):
        [error] = await caller.errors(QUERY, {"before": FIRST, "after": cursor})
        assert (error["extensions"]["code"], error["extensions"]["field"]) == ("BAD_USER_INPUT", "after")


async def test_a_partner_sees_members_who_have_dealt_with_it(shop: Shop, time: Time) -> None:
    await three_members(shop, time)
    seen = {}
    for code in ("grocer", "fuel", "restaurant"):
        caller = await shop.caller(code)
        seen[code] = [node["points"] for node in (await page(caller, "2019-05-01T00:00:00Z"))["nodes"]]
    assert seen == {"grocer": [107, 100], "fuel": [7], "restaurant": []}


async def test_closed_members_and_spent_points_are_not_listed(
    shop: Shop, time: Time, tamper: Callable[[str], Awaitable[None]]
) -> None:
    await three_members(shop, time)
    grocer = await shop.caller()
    await grocer.burn("b", 100, member={"card": "card-2"}, occurredAt="2017-04-02T12:00:00Z")
    await tamper(
        "UPDATE member SET state = 'CLOSED' FROM member_identifier AS i"
        " WHERE i.member_id = member.id AND i.value = 'card-3'"
    )
    operator = await shop.caller(None)
    assert [node["points"] for node in (await page(operator, "2019-05-01T00:00:00Z"))["nodes"]] == [107]


async def test_held_points_are_not_listed(shop: Shop, time: Time) -> None:
    await three_members(shop, time)
    grocer = await shop.caller()
    hold = {"idempotencyKey": "h", "member": {"card": "card-2"}, "points": 60, "reference": "h"}
    await grocer.run(
        "mutation ($input: BurnInput!) { authorizeBurn(input: $input) { __typename } }",
        {"input": {**hold, "occurredAt": "2017-04-02T12:00:00Z"}},
    )
    assert [node["points"] for node in (await page(grocer, "2019-05-01T00:00:00Z"))["nodes"]] == [107, 40]


@pytest.mark.slow
def test_the_command_lists_what_graphql_does() -> None:
    with a_database() as (shop, _):
        shop.apply(coalition(partner("grocer"), expiry="year_end", expiry_years=100))
        at = "2017-03-15T12:00:00Z"
        rows = ["kind,idempotency_key,partner,store,member_kind,member,occurred_at,amount,currency,points,reference"]
        for number in range(3):
            rows.append(f"enroll,n-{number},grocer,,card,c-{number},{at},,,,")
            rows.append(f"earn,k-{number},grocer,,card,c-{number},{at},{number + 1}.00,EUR,,k-{number}")
        shop.run("import", "-", "--booking", "occurred", given="\n".join(rows))
        listed = json.loads(shop.run("expiring", "--before", "2118-01-01", "--json"))
        assert [row["points"] for row in listed] == [1, 2, 3]
        assert listed[0]["expiries"] == [{"points": 1, "at": "2117-12-31T23:00:00+00:00"}]
        assert json.loads(shop.run("expiring", "--before", "2117-12-31", "--json")) == []
        assert len(json.loads(shop.run("expiring", "--before", "2118-01-01", "--first", "2", "--json"))) == 2
        assert "more than 2 members" in shop.last_error
        assert listed[2]["member"]["id"] in shop.run("expiring", "--before", "2118-01-01")

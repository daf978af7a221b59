"""What the schema says of a partner that leaves: its state, its days, refusals by their code, its final statement."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.database import Database
from tests.api.graphql_shop import Caller, Shop, Time, open_shop
from tests.api.processes import a_database
from tests.api.test_graphql_settlement import CLOSE
from tests.factories import COALITION_TOML, apply_toml

LEAVING = COALITION_TOML.replace(
    'name = "Harvest Market"', 'name = "Harvest Market"\nleaves_on = 2017-03-20\nrun_off_until = 2017-04-10'
)
PARTNER = '{ partner(code: "grocer") { state leavesOn runOffUntil } }'
STATEMENTS = """query ($label: String!) { settlementPeriod(label: $label) { statements {
  partner { code } isFinal outstanding { points value } due { amount } } } }"""


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def shop(database: Database, time: Time) -> AsyncIterator[Shop]:
    async with open_shop(database, time) as opened:
        yield opened


async def caller_at(shop: Shop, time: Time, month: int, day: int, partner: str | None = "grocer") -> Caller:
    """A caller with a token of that day."""
    time.now = datetime(2017, month, day, 12, tzinfo=UTC)
    return await shop.caller(partner)


async def test_a_partner_leaves_in_sight_of_everybody(shop: Shop, time: Time) -> None:
    stays = {"state": "ACTIVE", "leavesOn": None, "runOffUntil": None}
    assert (await (await shop.caller("fuel")).run(PARTNER))["partner"] == stays
    await apply_toml(shop.services.database, LEAVING)
    states: dict[Any, str] = {}
    for month, day in ((3, 20), (3, 21), (4, 10), (4, 11)):
        fuel = await caller_at(shop, time, month, day, "fuel")
        found = (await fuel.run(PARTNER))["partner"]
        assert (found["leavesOn"], found["runOffUntil"]) == ("2017-03-20", "2017-04-10")
        states[month, day] = found["state"]
    assert states == {(3, 20): "ACTIVE", (3, 21): "RUN_OFF", (4, 10): "RUN_OFF", (4, 11): "LEFT"}


async def test_its_final_statement_says_what_it_leaves(shop: Shop, time: Time) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    await grocer.earn("k1")
    await apply_toml(shop.services.database, LEAVING)
    refused = await (await caller_at(shop, time, 3, 21)).earn("k2", occurredAt="2017-03-21T12:00:00Z")
    assert (refused["code"], refused["retryable"]) == ("PARTNER_LEFT", False)
    operator = await caller_at(shop, time, 5, 1, partner=None)
    for label in ("2017-01", "2017-02", "2017-03", "2017-04"):
        await operator.run(CLOSE, {"label": label, "key": label})
    statements = (await operator.run(STATEMENTS, {"label": "2017-04"}))["settlementPeriod"]["statements"]
    nothing = {"isFinal": False, "outstanding": None}
    assert statements == [
        {
            "partner": {"code": "grocer"},
            "isFinal": True,
            "outstanding": {"points": 100, "value": "1.000000"},
            "due": {"amount": "0.00"},
        },
        {"partner": {"code": "fuel"}, **nothing, "due": {"amount": "-30.00"}},
        {"partner": {"code": "restaurant"}, **nothing, "due": {"amount": "-20.00"}},
    ]
    own = (await (await shop.caller()).run(STATEMENTS, {"label": "2017-04"}))["settlementPeriod"]["statements"]
    assert own == statements[:1]


def test_the_command_line_lists_what_is_outstanding() -> None:
    with a_database() as (shop, _):
        shop.apply(LEAVING)
        assert json.loads(shop.run("outstanding", "--json")) == []
        rows = [
            "kind,idempotency_key,partner,store,member_kind,member,occurred_at,amount,currency,points,reference",
            "enroll,e,grocer,,card,c,2017-03-01T12:00:00Z,,,,",
            "earn,k1,grocer,,card,c,2017-03-15T12:00:00Z,10.00,EUR,,k1",
            "earn,k2,fuel,,card,c,2017-03-16T12:00:00Z,20.00,EUR,,k2",
        ]
        shop.run("import", "-", "--booking", "occurred", given="\n".join(rows))
        grocer, fuel = json.loads(shop.run("outstanding", "--json"))
        assert grocer == {
            "partner": "grocer",
            "paidBy": "grocer",
            "lots": 1,
            "available": 10,
            "held": 0,
            "poolValue": {"amount": "0.100000", "currency": "EUR"},
            "owed": 0,
            "receivable": {"amount": "0.000000", "currency": "EUR"},
            "firstExpiry": "2019-03-15T23:00:00+00:00",
            "lastExpiry": "2019-03-15T23:00:00+00:00",
            "leavesOn": "2017-03-20",
            "finalStatement": "2017-04",
        }
        assert (fuel["available"], fuel["finalStatement"]) == (20, None)
        assert json.loads(shop.run("outstanding", "--partner", "fuel", "--json")) == [fuel]
        assert "0.210000 EUR" in shop.run("outstanding", "--partner", "fuel")
        shop.run("outstanding", "--partner", "nobody", status=1)


async def test_everybody_sees_when_the_programme_ends(shop: Shop) -> None:
    query = "{ viewer { programme { name currency timezone issueEnds burnEnds } } }"
    grocer = await shop.caller()
    programme = {"name": "Harbour Coalition", "currency": "EUR", "timezone": "Europe/Berlin"}
    found = (await grocer.run(query))["viewer"]["programme"]
    assert found == programme | {"issueEnds": None, "burnEnds": None}
    ending = "[programme]\nissue_ends = 2017-03-31\nburn_ends = 2017-04-30\n"
    await apply_toml(shop.services.database, COALITION_TOML.replace("[programme]\n", ending, 1))
    found = (await grocer.run(query))["viewer"]["programme"]
    assert found == programme | {"issueEnds": "2017-03-31", "burnEnds": "2017-04-30"}

"""Payments on statements through the API and the command line: recorded once, seen by whom they concern."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from api.clock import system_clock
from domain.database import Database
from domain.periods import Calendar, PeriodKind
from tests.api.graphql_shop import Shop, Time, open_shop
from tests.api.processes import a_database
from tests.api.test_graphql_settlement import CLOSE, a_month
from tests.factories import COALITION_TOML

RECORD = """mutation ($input: RecordPaymentInput!) { recordPayment(input: $input) { __typename
  ... on RecordedPayment { replayed idempotencyKey amount { amount }
      statement { state due { amount } paid { amount } open { amount }
                  payments { amount { amount } valueDate bankReference recordedAt bookedIn } } }
  ... on Refusal { code field refusedKey: idempotencyKey } } }"""
STATEMENT = """{ settlementStatement(label: "2017-03") { state adviceAt disputeUntil dueAt
  net { amount } carriedForward { amount } withheld { amount } due { amount } paid { amount } open { amount }
  payments { amount { amount } } period { adviceAt disputeUntil dueAt } } }"""
LIST = """query ($first: Int, $after: String) { paymentList(first: $first, after: $after) {
  nodes { partner { code } period { label } state open { amount } } pageInfo { hasNextPage endCursor } } }"""
PARTNER = "query ($code: String) { partner(code: $code) { id } }"


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def shop(database: Database, time: Time) -> AsyncIterator[Shop]:
    async with open_shop(database, time) as opened:
        yield opened


async def closed_march(shop: Shop, time: Time) -> dict[str, Any]:
    """A payment of what the grocer owes for March, which is closed: 51.46."""
    _, _, operator = await a_month(shop, time)
    for label in ("2017-01", "2017-02", "2017-03"):
        await operator.run(CLOSE, {"label": label, "key": label})
    grocer_id = (await (await shop.caller()).run(PARTNER, {"code": "grocer"}))["partner"]["id"]
    return {
        "idempotencyKey": "p1",
        "partnerId": grocer_id,
        "label": "2017-03",
        "amount": {"amount": "-51.46", "currency": "EUR"},
        "valueDate": "2017-04-02",
        "bankReference": "E2E-17",
    }


async def test_a_statement_lives_from_draft_to_settled(shop: Shop, time: Time) -> None:
    payment = await closed_march(shop, time)
    nothing = {"amount": "0.00"}
    dates = {
        "adviceAt": "2017-04-02T12:00:00Z",
        "disputeUntil": "2017-04-09T22:00:00Z",
        "dueAt": "2017-04-14T22:00:00Z",
    }
    issued = (await (await shop.caller()).run(STATEMENT))["settlementStatement"]
    assert issued == {
        "state": "ISSUED", **dates, "net": {"amount": "-51.46"}, "carriedForward": nothing, "withheld": nothing,
        "due": {"amount": "-51.46"}, "paid": nothing, "open": {"amount": "-51.46"}, "payments": [], "period": dates,
    }  # fmt: skip
    states = {}
    for day in (9, 10, 15):
        time.now = datetime(2017, 4, day, 12, tzinfo=UTC)
        states[day] = (await (await shop.caller()).run(STATEMENT))["settlementStatement"]["state"]
    assert states == {9: "ISSUED", 10: "FINAL", 15: "DUE"}
    recorded = (await (await shop.caller(None)).run(RECORD, {"input": payment}))["recordPayment"]
    assert recorded == {
        "__typename": "RecordedPayment",
        "replayed": False,
        "idempotencyKey": "p1",
        "amount": {"amount": "-51.46"},
        "statement": {
            "state": "SETTLED",
            "due": {"amount": "-51.46"},
            "paid": {"amount": "-51.46"},
            "open": nothing,
            "payments": [
                {
                    "amount": {"amount": "-51.46"},
                    "valueDate": "2017-04-02",
                    "bankReference": "E2E-17",
                    "recordedAt": "2017-04-15T12:00:00Z",
                    "bookedIn": "2017-04",
                }
            ],
        },
    }
    again = (await (await shop.caller(None)).run(RECORD, {"input": payment}))["recordPayment"]
    assert again == {**recorded, "replayed": True}
    settled = (await (await shop.caller()).run(STATEMENT))["settlementStatement"]
    assert (settled["state"], settled["payments"]) == ("SETTLED", [{"amount": {"amount": "-51.46"}}])


async def test_a_statement_shows_its_taxes(shop: Shop, time: Time, database: Database) -> None:
    async with database.posting() as connection:
        await connection.execute(
            text(
                "INSERT INTO tax_rate (partner_id, code, valid, rate_ppm)"
                " VALUES (1, 'SERVICE_FEE', '[2017-01-01,)', 190000), (1, 'FIXED_FEE', '[2017-01-01,)', 70000)"
            )
        )
    await closed_march(shop, time)
    query = """{ settlementStatement(label: "2017-03") { net { amount } lines { kind exact billed { amount } }
        taxes { kind rate taxable { amount } tax { amount } gross { amount } } } }"""
    statement = (await (await shop.caller()).run(query))["settlementStatement"]
    # 133 points: service fee 0.133; the fixed fee is 50.00.
    assert statement["taxes"] == [
        {
            "kind": "SERVICE_FEE",
            "rate": "0.190000",
            "taxable": {"amount": "-0.13"},
            "tax": {"amount": "-0.02"},
            "gross": {"amount": "-0.15"},
        },
        {
            "kind": "FIXED_FEE",
            "rate": "0.070000",
            "taxable": {"amount": "-50.00"},
            "tax": {"amount": "-3.50"},
            "gross": {"amount": "-53.50"},
        },
    ]
    assert statement["net"] == {"amount": "-54.98"}
    assert statement["lines"][-1] == {"kind": "TAX", "exact": "-3.520000", "billed": {"amount": "-3.52"}}
    period = """{ settlementPeriod(label: "2017-03") {
        operatorNet { amount } poolChange { amount } margin { amount } tax { amount } } }"""
    assert (await (await shop.caller(None)).run(period))["settlementPeriod"] == {
        "operatorNet": {"amount": "104.52"},
        "poolChange": {"amount": "0.830000"},
        "margin": {"amount": "100.170000"},
        "tax": {"amount": "3.520000"},
    }


async def test_a_payment_of_no_statement_is_refused(shop: Shop, time: Time) -> None:
    payment = await closed_march(shop, time)
    operator = await shop.caller(None)
    for change, code, field in (
        ({"label": "2017-04"}, "STATEMENT_NOT_FOUND", "label"),
        ({"partnerId": "nobody"}, "STATEMENT_NOT_FOUND", "label"),
        ({"amount": {"amount": "0", "currency": "EUR"}}, "AMOUNT_INVALID", "amount"),
        ({"valueDate": "2017-04-03"}, "INPUT_INVALID", "valueDate"),
    ):
        found = (await operator.run(RECORD, {"input": payment | change}))["recordPayment"]
        assert found == {"__typename": "Refusal", "code": code, "field": field, "refusedKey": "p1"}
    assert (await (await shop.caller()).run(STATEMENT))["settlementStatement"]["payments"] == []


async def test_the_payment_list_is_paged_and_a_partners_own(shop: Shop, time: Time) -> None:
    payment = await closed_march(shop, time)
    operator, fuel = await shop.caller(None), await shop.caller("fuel")
    listed: list[tuple[str, str, str]] = []
    after, more = None, True
    while more and len(listed) < 20:
        page = (await operator.run(LIST, {"first": 2, "after": after}))["paymentList"]
        listed += [(one["period"]["label"], one["partner"]["code"], one["open"]["amount"]) for one in page["nodes"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    fees = [("grocer", "-50.00"), ("fuel", "-30.00"), ("restaurant", "-20.00")]
    march = [("grocer", "-51.46"), ("fuel", "-29.54"), ("restaurant", "-20.00")]
    assert listed == [
        *[(label, *fee) for label in ("2017-01", "2017-02") for fee in fees],
        *[("2017-03", *one) for one in march],
    ]
    own = (await fuel.run(LIST))["paymentList"]["nodes"]
    assert [(one["partner"]["code"], one["period"]["label"]) for one in own] == [
        ("fuel", "2017-01"), ("fuel", "2017-02"), ("fuel", "2017-03"),
    ]  # fmt: skip
    await operator.run(RECORD, {"input": payment})
    left = (await operator.run(LIST, {"first": 100}))["paymentList"]["nodes"]
    assert [one["partner"]["code"] for one in left if one["period"]["label"] == "2017-03"] == ["fuel", "restaurant"]


def test_payments_on_the_command_line() -> None:
    calendar = Calendar(PeriodKind.MONTH, ZoneInfo("Europe/Berlin"))
    last_month = calendar.containing(system_clock()) - 1
    with a_database() as (coalition, _):
        toml = COALITION_TOML.replace("2017-01-01", str(calendar.first_day(last_month)))
        coalition.apply(toml.replace("2017-04-01", "2100-01-01"))
        label = calendar.label(last_month)
        coalition.run("close", label)
        due = json.loads(coalition.run("due", "--json"))
        assert [(one["partner"], one["period"], one["state"], one["pays"], one["open"]) for one in due] == [
            ("grocer", label, "ISSUED", "partner", "-50.00"),
            ("fuel", label, "ISSUED", "partner", "-30.00"),
            ("restaurant", label, "ISSUED", "partner", "-20.00"),
        ]
        day = str(calendar.first_day(last_month + 1))
        paid = ("payment", "grocer", label, "--amount", "-50.00", "--value-date", day, "--reference", "E2E 17")
        recorded = json.loads(coalition.run(*paid, "--json"))
        assert {name: recorded[name] for name in ("due", "paid", "open", "replayed")} == {
            "due": "-50.00", "paid": "-50.00", "open": "0.00", "replayed": False,
        }  # fmt: skip
        assert "0.00 open (was recorded before)" in coalition.run(*paid)
        assert [one["partner"] for one in json.loads(coalition.run("due", "--json"))] == ["fuel", "restaurant"]
        assert "restaurant" in coalition.run("due")
        coalition.run("payment", "nobody", *paid[2:], status=1)
        assert 'no partner has the code "nobody"' in coalition.last_error
        coalition.run(*paid[:4], "fifty", *paid[5:], status=1)
        assert "must be a number" in coalition.last_error
        assert json.loads(coalition.run("verify", "--json"))["holds"]

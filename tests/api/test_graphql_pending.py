"""Pending points through the API: what a till is told, payments, and what a statement has of them."""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from domain.commands import Sweep
from domain.database import Database
from tests.api.graphql_shop import Caller, Shop, Time, open_shop, purchase
from tests.api.processes import a_coalition
from tests.factories import COALITION_TOML, apply_toml

PENDING_TOML = (
    COALITION_TOML.replace('category = "supermarket"', 'category = "supermarket"\nrisk = "PAID_FIRST"')
    .replace('fixed_fee = "50.00"', 'fixed_fee = "50.00"\npending_days = 14')
    .replace('fixed_fee = "30.00"', 'fixed_fee = "30.00"\npending_days = 14')
)
ACCOUNTS_SQL = text("SELECT id FROM account")
EARN = """
mutation ($input: EarnInput!) { earn(input: $input) { __typename ... on EarnReceipt { points replayed
  awards { granted pendingUntil waitsForPayment } balance { available pending }
  budget { consumed { amount } reserved { amount } available { amount } } } } }
"""
RECEIPT = """
  __typename
  ... on PaymentReceipt { points replayed idempotencyKey awards { pendingUntil waitsForPayment }
    balance { available pending }
    transaction { kind points reference idempotencyKey reverses { idempotencyKey kind }
      movements { kind points issueValue } } }
  ... on Refusal { code message field refusedKey: idempotencyKey }
"""
PAID = f"mutation ($input: ConfirmPaymentInput!) {{ confirmPayment(input: $input) {{ {RECEIPT} }} }}"
PAID_MANY = f"mutation ($inputs: [ConfirmPaymentInput!]!) {{ confirmPaymentMany(inputs: $inputs) {{ {RECEIPT} }} }}"
TRANSACTIONS = """query { transactions { nodes { kind points idempotencyKey reverses { idempotencyKey } } } }"""
STATEMENT = """
query ($label: String!) { settlementStatement(label: $label) { lines { kind points exact priorPeriodExact }
  budget { windows { periodLabel drawn { amount } consumed { amount } } reserved { amount } } } }
"""


def payment(key: str, **changes: Any) -> dict[str, Any]:
    """Input of a payment."""
    return {"idempotencyKey": key, "occurredAt": "2017-03-15T12:00:00Z", **changes}


async def opened(shop: Shop) -> Caller:
    """The grocer's till, with a member."""
    await apply_toml(shop.services.database, PENDING_TOML)
    till = await shop.caller("grocer")
    await till.enroll()
    return till


async def sweep(shop: Shop) -> None:
    """What the worker does each minute."""
    accounts = []
    async with shop.services.database.posting() as connection:
        accounts = [row.id for row in await connection.execute(ACCOUNTS_SQL)]
    await shop.services.queue.post_many([Sweep(account_id) for account_id in accounts])


async def test_a_receipt_says_what_its_points_wait_for(database: Database) -> None:
    async with open_shop(database, is_applied=False) as shop:
        till = await opened(shop)
        answer = (await till.run(EARN, {"input": purchase("k")}))["earn"]
        assert answer == {
            "__typename": "EarnReceipt",
            "points": 100,
            "replayed": False,
            "awards": [{"granted": 100, "pendingUntil": "2017-03-29T22:00:00Z", "waitsForPayment": True}],
            "balance": {"available": 0, "pending": 100},
            "budget": {
                "consumed": {"amount": "0.000000"},
                "reserved": {"amount": "1.100000"},
                "available": {"amount": "1498.900000"},
            },
        }


async def test_a_payment_before_and_after_the_end_of_the_window(database: Database) -> None:
    time = Time()
    async with open_shop(database, time, is_applied=False) as shop:
        till = await opened(shop)
        await till.run(EARN, {"input": purchase("k")})
        await till.run(EARN, {"input": purchase("k2", storeCode="s1")})
        paid = (await till.run(PAID, {"input": payment("p", originalKey="k")}))["confirmPayment"]
        assert paid == {
            "__typename": "PaymentReceipt",
            "points": 0,
            "replayed": False,
            "idempotencyKey": "p",
            "awards": [{"pendingUntil": "2017-03-29T22:00:00Z", "waitsForPayment": False}],
            "balance": {"available": 0, "pending": 200},
            "transaction": {
                "kind": "CONFIRMATION",
                "points": 0,
                "reference": "k",
                "idempotencyKey": "p",
                "reverses": {"idempotencyKey": "k", "kind": "EARN"},
                "movements": [{"kind": "EARN_PENDING", "points": 0, "issueValue": "0.000000"}],
            },
        }
        time.now = datetime(2017, 4, 2, 12, tzinfo=UTC)
        till = await shop.caller("grocer")
        late = payment("p2", reference="k2", storeCode="s1", occurredAt="2017-04-02T12:00:00Z")
        again = payment("p", originalKey="k")
        many = await till.run(PAID_MANY, {"inputs": [late, again, {**late, "idempotencyKey": "p3"}]})
        one, two, three = many["confirmPaymentMany"]
        assert (one["points"], one["replayed"], one["balance"]) == (100, False, {"available": 100, "pending": 100})
        assert one["transaction"]["movements"] == [{"kind": "CONFIRM", "points": 100, "issueValue": "-1.000000"}]
        assert (two["points"], two["replayed"]) == (0, True)
        assert (three["code"], three["refusedKey"]) == ("NOTHING_PENDING", "p3")


async def test_a_payment_names_its_purchase_in_one_way_and_only_its_own(database: Database) -> None:
    async with open_shop(database, is_applied=False) as shop:
        till = await opened(shop)
        await till.run(EARN, {"input": purchase("k")})
        restaurant = await shop.caller("restaurant")
        both = (await till.run(PAID, {"input": payment("p", originalKey="k", reference="k")}))["confirmPayment"]
        assert (both["code"], both["field"]) == ("INPUT_INVALID", "transactionId")
        for caller, named in ((restaurant, {"originalKey": "k"}), (till, {"transactionId": "nothing"})):
            answer = (await caller.run(PAID, {"input": payment("p", **named)}))["confirmPayment"]
            assert answer["code"] == "TRANSACTION_NOT_FOUND"


def test_the_command_line_lists_what_is_pending() -> None:
    with a_coalition() as shop:
        shop.apply(PENDING_TOML)
        assert json.loads(shop.run("pending", "--json")) == []
        rows = [
            "kind,idempotency_key,partner,store,member_kind,member,occurred_at,amount,currency,points,reference",
            "enroll,e,grocer,,card,c,2017-03-01T12:00:00Z,,,,",
            "earn,k1,grocer,,card,c,2017-03-15T12:00:00Z,10.00,EUR,,k1",
            "earn,k2,grocer,,card,c,2017-03-14T12:00:00Z,20.00,EUR,,k2",
            "earn,k3,grocer,,card,c,2017-03-13T12:00:00Z,40.00,EUR,,k3",
            "earn,k4,fuel,,card,c,2017-03-13T12:00:00Z,5.00,EUR,,k4",
            "earn,k5,restaurant,,card,c,2017-03-13T12:00:00Z,5.00,EUR,,k5",
            "payment,p,grocer,,,,2017-03-16T12:00:00Z,,,,k3",
        ]
        shop.run("import", "-", "--booking", "occurred", given="\n".join(rows))
        fuel, usable_later, unpaid = json.loads(shop.run("pending", "--json"))
        assert (fuel["partner"], fuel["points"], fuel["reserved"]["amount"]) == ("fuel", 5, "0.058500")
        assert (usable_later["waitsForPayment"], usable_later["points"]) == (False, 40)
        assert unpaid == {
            "partner": "grocer",
            "waitsForPayment": True,
            "awards": 2,
            "points": 30,
            "reserved": {"amount": "0.330000", "currency": "EUR"},
            "oldestPurchase": "2017-03-14T12:00:00+00:00",
            "pendingUntil": "2017-03-28T22:00:00+00:00",
        }
        assert "0.330000 EUR" in shop.run("pending")


async def test_too_many_payments_are_an_error(database: Database) -> None:
    async with open_shop(database) as shop:
        till = await shop.caller("grocer")
        inputs = [payment(f"p{number}", originalKey="k") for number in range(501)]
        [error] = await till.errors(PAID_MANY, {"inputs": inputs})
        assert error["message"] == "inputs has 501 items, at most 500: send the rest in further requests"


async def test_a_statement_has_points_when_they_are_confirmed_in_the_window_that_reserved_them(
    database: Database,
) -> None:
    time = Time()
    async with open_shop(database, time, is_applied=False) as shop:
        await opened(shop)
        fuel = await shop.caller("fuel")
        await fuel.run(EARN, {"input": purchase("k", occurredAt="2017-03-15T12:00:00Z")})
        march = (await fuel.run(STATEMENT, {"label": "2017-03"}))["settlementStatement"]
        assert march is None
        time.now = datetime(2017, 4, 2, 12, tzinfo=UTC)
        await sweep(shop)
        fuel = await shop.caller("fuel")
        april = (await fuel.run(STATEMENT, {"label": "2017-04"}))["settlementStatement"]
        assert april == {
            "lines": [
                {"kind": "ISSUE", "points": 100, "exact": "-1.050000", "priorPeriodExact": "0.000000"},
                {"kind": "SERVICE_FEE", "points": 100, "exact": "-0.120000", "priorPeriodExact": "0.000000"},
            ],
            "budget": {
                "windows": [
                    {"periodLabel": "2017-03", "drawn": {"amount": "1.170000"}, "consumed": {"amount": "1.170000"}}
                ],
                "reserved": {"amount": "0.000000"},
            },
        }
        nodes = (await fuel.run(TRANSACTIONS))["transactions"]["nodes"]
        assert nodes == [
            {"kind": "CONFIRMATION", "points": 100, "idempotencyKey": None, "reverses": {"idempotencyKey": "k"}},
            {"kind": "EARN", "points": 100, "idempotencyKey": "k", "reverses": None},
        ]

"""Pending points through the API: what a till is told, payments, and what a statement has of them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from domain.commands import Sweep
from domain.database import Database
from domain.errors import ConfigurationError
from tests.api.graphql_shop import Caller, Shop, Time, open_shop, purchase
from tests.api.processes import a_database
from tests.domain.books import contents
from tests.factories import COALITION_TOML, apply_toml

BONUS_TOML = """
[[campaign]]
code = "fuel-week"
name = "Fuel week"
from = 2017-03-01
to = 2017-03-31
partners = ["fuel"]
bonus_points = 30
funding = [{ partner = "grocer", share = "1" }]
"""
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
    """Input of a payment of the grocer's purchase, or of that with an id."""
    whose = {} if "transactionId" in changes else {"partnerCode": "grocer"}
    return {"idempotencyKey": key, "occurredAt": "2017-03-15T12:00:00Z", **whose, **changes}


async def opened(shop: Shop) -> Caller:
    """The grocer's till, with a member."""
    await apply_toml(shop.services.database, PENDING_TOML)
    till = await shop.caller("grocer")
    await till.enroll()
    return till


async def id_of(caller: Caller) -> str:
    """What the viewer calls the latest transaction."""
    nodes = (await caller.run("query { transactions(first: 1) { nodes { id } } }"))["transactions"]["nodes"]
    return str(nodes[0]["id"])


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
        till, operator = await opened(shop), await shop.caller(None)
        await till.run(EARN, {"input": purchase("k")})
        await till.run(EARN, {"input": purchase("k2", storeCode="s1")})
        paid = (await operator.run(PAID, {"input": payment("p", originalKey="k")}))["confirmPayment"]
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
        operator = await shop.caller(None)
        late = payment("p2", reference="k2", storeCode="s1", occurredAt="2017-04-02T12:00:00Z")
        again = payment("p", originalKey="k")
        nobody, third = payment("p4", partnerCode="nobody", originalKey="k"), {**late, "idempotencyKey": "p3"}
        many = await operator.run(PAID_MANY, {"inputs": [late, nobody, again, third]})
        one, unknown, two, three = many["confirmPaymentMany"]
        assert (unknown["code"], unknown["refusedKey"]) == ("INPUT_INVALID", "p4")
        assert (one["points"], one["replayed"], one["balance"]) == (100, False, {"available": 100, "pending": 100})
        assert one["transaction"]["movements"] == [{"kind": "CONFIRM", "points": 100, "issueValue": "-1.000000"}]
        assert (two["points"], two["replayed"]) == (0, True)
        assert (three["code"], three["refusedKey"]) == ("NOTHING_PENDING", "p3")


async def test_no_partner_says_that_its_own_purchases_are_paid(database: Database) -> None:
    async with open_shop(database, is_applied=False) as shop:
        till = await opened(shop)
        await till.run(EARN, {"input": purchase("k")})
        before = await contents(database)
        named = [payment("p", originalKey="k"), payment("p", transactionId=await id_of(till))]
        for query, variables in (
            (PAID, {"input": named[0]}),
            (PAID, {"input": named[1]}),
            (PAID_MANY, {"inputs": named}),
        ):
            [error] = await till.errors(query, variables)
            assert error["extensions"]["code"] == "FORBIDDEN"
        with pytest.raises(ConfigurationError, match="settlement:operate"):
            await shop.caller("grocer", ["points:earn", "settlement:operate"])
        # Nor does the operator's client without the scope.
        reader = await shop.caller(None, ["audit:read"])
        [error] = await reader.errors(PAID, {"input": named[0]})
        assert error["extensions"]["code"] == "FORBIDDEN"
        assert await contents(database) == before


async def test_the_operator_names_a_purchase_by_its_id_or_by_partner_and_key_or_reference(database: Database) -> None:
    async with open_shop(database, is_applied=False) as shop:
        till, operator = await opened(shop), await shop.caller(None)
        partner_id = (await till.run("query { viewer { partner { id } } }"))["viewer"]["partner"]["id"]
        named: list[dict[str, Any]] = []
        for key in ("k1", "k2", "k3"):
            await till.run(EARN, {"input": purchase(key)})
            named.append({"transactionId": await id_of(operator)})
        named[1:] = [{"partnerCode": None, "partnerId": partner_id, "originalKey": "k2"}, {"reference": "k3"}]
        for number, one in enumerate(named, 1):
            answer = (await operator.run(PAID, {"input": payment(f"p{number}", **one)}))["confirmPayment"]
            assert answer["transaction"]["reverses"] == {"idempotencyKey": f"k{number}", "kind": "EARN"}
            assert answer["awards"] == [{"pendingUntil": "2017-03-29T22:00:00Z", "waitsForPayment": False}]
        # It is the partner's transaction, which it sees.
        nodes = (await till.run(TRANSACTIONS))["transactions"]["nodes"]
        assert [(one["kind"], one["idempotencyKey"]) for one in nodes[:3]] == [
            ("CONFIRMATION", "p3"),
            ("CONFIRMATION", "p2"),
            ("CONFIRMATION", "p1"),
        ]


async def test_a_payment_that_names_no_purchase_changes_nothing(database: Database) -> None:
    async with open_shop(database, is_applied=False) as shop:
        till, operator = await opened(shop), await shop.caller(None)
        await till.run(EARN, {"input": purchase("k")})
        till_id, operator_id = await id_of(till), await id_of(operator)
        partner_id = (await till.run("query { viewer { partner { id } } }"))["viewer"]["partner"]["id"]
        before = await contents(database)
        for named, code, field in (
            ({"partnerCode": "restaurant", "originalKey": "k"}, "TRANSACTION_NOT_FOUND", None),
            ({"partnerCode": "restaurant", "reference": "k"}, "TRANSACTION_NOT_FOUND", None),
            ({"transactionId": "nothing"}, "TRANSACTION_NOT_FOUND", None),
            ({"transactionId": till_id}, "TRANSACTION_NOT_FOUND", None),  # what the partner calls it
            ({"originalKey": "k", "reference": "k"}, "INPUT_INVALID", "transactionId"),
            ({}, "INPUT_INVALID", "transactionId"),
            ({"transactionId": operator_id, "reference": "k"}, "INPUT_INVALID", "transactionId"),
            ({"transactionId": operator_id, "partnerCode": "grocer"}, "INPUT_INVALID", "transactionId"),
            ({"partnerCode": None, "originalKey": "k"}, "INPUT_INVALID", "partnerCode"),
            ({"partnerId": partner_id, "originalKey": "k"}, "INPUT_INVALID", "partnerCode"),
            ({"partnerCode": None, "partnerId": "nobody", "originalKey": "k"}, "INPUT_INVALID", "partnerCode"),
        ):
            answer = (await operator.run(PAID, {"input": payment("p", **named)}))["confirmPayment"]
            assert (answer["code"], answer["field"], answer["refusedKey"]) == (code, field, "p"), named
        assert await contents(database) == before


async def test_a_bonus_waits_for_the_money_of_the_partner_that_pays_it(database: Database) -> None:
    async with open_shop(database, is_applied=False) as shop:
        await opened(shop)
        toml = PENDING_TOML.replace('fixed_fee = "30.00"\npending_days = 14', 'fixed_fee = "30.00"') + BONUS_TOML
        await apply_toml(database, toml)
        fuel, operator = await shop.caller("fuel"), await shop.caller(None)
        answer = (await fuel.run(EARN, {"input": purchase("k")}))["earn"]
        assert (answer["balance"], answer["awards"]) == (
            {"available": 100, "pending": 30},
            [
                {"granted": 100, "pendingUntil": None, "waitsForPayment": False},
                {"granted": 30, "pendingUntil": "2017-03-15T12:00:00Z", "waitsForPayment": True},
            ],
        )
        paid = payment("p", partnerCode="fuel", originalKey="k")
        assert (await operator.run(PAID, {"input": paid}))["confirmPayment"]["balance"] == {
            "available": 130,
            "pending": 0,
        }


def test_the_command_line_lists_what_is_pending() -> None:
    with a_database() as (shop, _):
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


def test_the_command_line_says_that_a_purchase_is_paid() -> None:
    with a_database() as (shop, _):
        shop.apply(COALITION_TOML.replace('"supermarket"', '"supermarket"\nrisk = "PAID_FIRST"'))
        rows = [
            "kind,idempotency_key,partner,store,member_kind,member,occurred_at,amount,currency,points,reference",
            "enroll,e,grocer,,card,c,2017-03-01T12:00:00Z,,,,",
            "earn,k1,grocer,s1,card,c,2017-03-15T12:00:00Z,10.00,EUR,,r1",
            "earn,k2,grocer,,card,c,2017-03-14T12:00:00Z,20.00,EUR,,r2",
        ]
        shop.run("import", "-", "--booking", "occurred", given="\n".join(rows))
        by_reference = ("confirm-payment", "--partner", "grocer", "--reference", "r1", "--store", "s1")
        assert shop.run(*by_reference) == "r1 is paid; 10 points are usable now\n"
        assert shop.run(*by_reference) == "r1 is paid; 10 points are usable now (was confirmed before)\n"
        done = json.loads(shop.run("confirm-payment", "--partner", "grocer", "--key", "k2", "--json"))
        assert (done["points"], done["replayed"], done["transaction"]["reverses"]["idempotencyKey"]) == (
            20,
            False,
            "k2",
        )
        assert done["transaction"]["idempotencyKey"] == "command-line:paid:key:k2"
        for arguments, said in (
            (("--partner", "fuel", "--key", "k1"), "TRANSACTION_NOT_FOUND"),
            (("--partner", "nobody", "--key", "k1"), "INPUT_INVALID"),
            (("--partner", "grocer", "--key", "k1"), "NOTHING_PENDING"),
            (("--partner", "grocer"), "exactly one of --reference and --key"),
            (("--partner", "grocer", "--key", "k1", "--reference", "r1"), "exactly one of --reference and --key"),
        ):
            shop.run("confirm-payment", *arguments, status=1)
            assert said in shop.last_error
        assert json.loads(shop.run("pending", "--json")) == []


async def test_too_many_payments_are_an_error(database: Database) -> None:
    async with open_shop(database) as shop:
        operator = await shop.caller(None)
        inputs = [payment(f"p{number}", originalKey="k") for number in range(501)]
        [error] = await operator.errors(PAID_MANY, {"inputs": inputs})
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

"""The exact number of SQL statements of every operation: a new one must be wanted, and none may grow with a page."""

from collections.abc import Sequence
from typing import Any

from domain.database import Database
from tests.api.graphql_shop import EARN, ENROLL, Caller, Shop, open_shop, purchase
from tests.factories import COALITION_TOML, apply_toml
from tests.partners.helpers import changed

EARN_MANY = "mutation ($inputs: [EarnInput!]!) { earnMany(inputs: $inputs) { __typename } }"
BURN = "mutation ($input: BurnInput!) { burn(input: $input) { __typename } }"
BURN_MANY = "mutation ($inputs: [BurnInput!]!) { burnMany(inputs: $inputs) { __typename } }"
REVERSE_MANY = "mutation ($inputs: [ReverseInput!]!) { reverseMany(inputs: $inputs) { __typename } }"
AUTHORIZE = "mutation ($input: BurnInput!) { authorizeBurn(input: $input) { __typename } }"
CAPTURE = "mutation ($input: CaptureBurnInput!) { captureBurn(input: $input) { __typename } }"
REVERSE = "mutation ($input: ReverseInput!) { reverse(input: $input) { __typename } }"
QUOTE = "query ($input: EarnInput!) { quoteEarn(input: $input) { __typename } }"
BALANCE = 'query { member(by: { card: "card-1" }) { balance { available } } }'
TRANSACTIONS = """query ($first: Int) { transactions(first: $first) { nodes {
  id kind points partner { code } movements { kind points lots { points } } } } }"""

AT = {"occurredAt": "2017-03-15T12:00:00Z"}
BURN_INPUT = {"idempotencyKey": "b", "member": {"card": "card-1"}, "points": 10, "reference": "b", **AT}
RETURN_INPUT = {"idempotencyKey": "r", "originalKey": "first", "amount": {"amount": "5.00", "currency": "EUR"}, **AT}

COUNTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "earn": (EARN, {"input": purchase("k")}, 13),
    "earnMany of 2": (EARN_MANY, {"inputs": [purchase(f"m{n}") for n in range(2)]}, 13),
    "earnMany of 100": (EARN_MANY, {"inputs": [purchase(f"n{n}") for n in range(100)]}, 13),
    "earn, replayed": (EARN, {"input": purchase("first")}, 10),
    "earn, refused": (EARN, {"input": purchase("bad", storeCode="nowhere")}, 7),
    "burn": (BURN, {"input": BURN_INPUT}, 13),
    "burnMany of 2": (BURN_MANY, {"inputs": [{**BURN_INPUT, "idempotencyKey": k, "reference": k} for k in "cd"]}, 13),
    "reverse": (REVERSE, {"input": RETURN_INPUT}, 18),
    "reverseMany of 2": (REVERSE_MANY, {"inputs": [{**RETURN_INPUT, "idempotencyKey": k} for k in "st"]}, 18),
    "authorizeBurn": (AUTHORIZE, {"input": {**BURN_INPUT, "idempotencyKey": "h", "reference": "h"}}, 15),
    "captureBurn": (CAPTURE, {"input": {"idempotencyKey": "p", "originalKey": "h", "points": 4, **AT}}, 18),
    "captureBurn, refused": (CAPTURE, {"input": {"idempotencyKey": "z", "originalKey": "h", **AT}}, 11),
    "burn again, without holds": (BURN, {"input": {**BURN_INPUT, "idempotencyKey": "y", "reference": "y"}}, 13),
    "reverse, parked": (
        REVERSE,
        {"input": {"idempotencyKey": "w", "originalKey": "w1", "awaitOriginal": True, **AT}},
        9,
    ),
    "earn while another waits": (EARN, {"input": purchase("w0")}, 14),
    "earn that one waits for": (EARN, {"input": purchase("w1")}, 16),
    "enrollMember": (ENROLL, {"input": {"idempotencyKey": "e", "card": "card-2"}}, 9),
    "quoteEarn": (QUOTE, {"input": purchase("q")}, 7),
    "member balance": (BALANCE, {}, 1),
    "transactions, 1": (TRANSACTIONS, {"first": 1}, 4),
    "transactions, 20": (TRANSACTIONS, {"first": 20}, 4),
}

ON_A_FLOAT = {"earn": 3, "earnMany of 100": 3, "reverse": 5}
"""Statements more where the partner pays in advance: blocks, uses and what is left of them; a return reads uses too."""


async def warmed(shop: Shop) -> Caller:
    """A till whose token, configuration, ids, period and budget window are known: what a running server knows."""
    till = await shop.caller()
    await till.enroll()
    await till.earn("first")
    for number in range(30):
        await till.earn(f"more-{number}", amount={"amount": "1.00", "currency": "EUR"})
    return till


PAID = "mutation ($input: ConfirmPaymentInput!) { confirmPayment(input: $input) { __typename } }"
PENDING_COUNTS: dict[str, tuple[str, dict[str, Any], int]] = {
    # The pending award takes the place of the lot.
    "earn": (EARN, {"input": purchase("k")}, 13),
    "earnMany of 100": (EARN_MANY, {"inputs": [purchase(f"n{n}") for n in range(100)]}, 13),
    # One to read the purchase's pending awards, one to write them; no lot of a pending award, and no lot use.
    "reverse": (REVERSE, {"input": RETURN_INPUT}, 18),
    # One more at step 0, to know the windows that reserved the money, and one to know the partner's code; no window,
    # lot or position changes.
    "confirmPayment": (
        PAID,
        {"input": {"idempotencyKey": "p", "partnerCode": "grocer", "originalKey": "first", **AT}},
        18,
    ),
    "burn": (BURN, {"input": {**BURN_INPUT, "idempotencyKey": "c"}}, 14),
}


async def test_what_is_pending_costs_exactly_its_statements(database: Database) -> None:
    toml = COALITION_TOML.replace('category = "supermarket"', 'category = "supermarket"\nrisk = "PAID_FIRST"')
    async with open_shop(database, is_applied=False) as shop:
        await apply_toml(database, toml.replace('fixed_fee = "50.00"', 'fixed_fee = "50.00"\npending_days = 14'))
        till, operator = await warmed(shop), await shop.caller(None)
        await (await shop.caller("fuel")).earn("usable")
        found, shown = {}, ""
        for name, (query, variables, _) in PENDING_COUNTS.items():
            with shop.statements() as seen:
                await (operator if name == "confirmPayment" else till).run(query, variables)
            # A token is known for five seconds; on a slow machine the test lasts longer.
            found[name] = sum("oauth_token" not in statement for statement in seen)
            shown += f"{name}\n" + "".join(f"  {' '.join(statement.split())[:90]}\n" for statement in seen)
    assert found == {name: count for name, (_, _, count) in PENDING_COUNTS.items()}, shown


def without_tokens(seen: Sequence[str]) -> list[str]:
    """The statements but the look-up of a token, which a slow machine needs again meanwhile."""
    return [statement for statement in seen if "oauth_token" not in statement]


async def test_every_operation_costs_exactly_its_statements(database: Database) -> None:
    async with open_shop(database) as shop:
        till = await warmed(shop)
        found, shown = {}, ""
        for name, (query, variables, _) in COUNTS.items():
            with shop.statements() as seen:
                await till.run(query, variables)
            found[name] = len(without_tokens(seen))
            shown += f"{name}\n" + "".join(f"  {' '.join(statement.split())[:90]}\n" for statement in seen)
    assert found == {name: count for name, (_, _, count) in COUNTS.items()}, shown


async def test_a_prepaid_budget_costs_its_blocks_and_no_more(database: Database) -> None:
    toml = changed(('every = "month"\n', ""), ('funding = "POSTPAID"', 'funding = "PREPAID"'))
    await apply_toml(database, toml)
    async with open_shop(database, is_applied=False) as shop:
        till = await warmed(shop)
        found = {}
        for name in ON_A_FLOAT:
            query, variables, usual = COUNTS[name]
            with shop.statements() as seen:
                await till.run(query, variables)
            found[name] = len(without_tokens(seen)) - usual
    assert found == ON_A_FLOAT

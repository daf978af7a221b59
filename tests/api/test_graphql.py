"""The contract from a client's side: enrolling, earning, burning, reversing, and reading it all back."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from domain.database import Database
from tests.api.graphql_shop import Shop, open_shop, purchase


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        yield opened


RECEIPT = """
mutation ($input: EarnInput!) { earn(input: $input) { ... on EarnReceipt {
  points declinedPoints replayed idempotencyKey
  awards { rule requested granted funder { code } }
  balance { available pending held value { amount currency } expiringNext { points at } }
  budget { limit { amount } reserved { amount } consumed { amount currency } available { amount } }
  transaction {
    kind points reference idempotencyKey occurredAt recordedAt periodLabel declinedPoints
    amount { amount currency } partner { code } member { balance { available } } reverses { id }
    movements {
      kind points rule shortfall funder { code } party { code } lots { points }
      issueValue serviceFee reimbursement breakageShare poolValue
    }
  }
} } }
"""


async def test_a_receipt_tells_everything_about_a_purchase(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    answer = await grocer.run(RECEIPT, {"input": purchase("k1", storeCode="s1")})
    money = {"issueValue": "-1.000000", "serviceFee": "-0.100000", "reimbursement": "0.000000"}
    assert answer["earn"] == {
        "points": 100,
        "declinedPoints": 0,
        "replayed": False,
        "idempotencyKey": "k1",
        "awards": [{"rule": "base", "requested": 100, "granted": 100, "funder": {"code": "grocer"}}],
        "balance": {
            "available": 100,
            "pending": 0,
            "held": 0,
            "value": {"amount": "1.00", "currency": "EUR"},
            "expiringNext": {"points": 100, "at": "2019-03-15T23:00:00Z"},
        },
        "budget": {
            "limit": {"amount": "1500.000000"},
            "reserved": {"amount": "0.000000"},
            "consumed": {"amount": "1.100000", "currency": "EUR"},
            "available": {"amount": "1498.900000"},
        },
        "transaction": {
            "kind": "EARN",
            "points": 100,
            "reference": "k1",
            "idempotencyKey": "k1",
            "occurredAt": "2017-03-15T12:00:00Z",
            "recordedAt": "2017-03-15T12:00:00Z",
            "periodLabel": "2017-03",
            "declinedPoints": 0,
            "amount": {"amount": "100.00", "currency": "EUR"},
            "partner": {"code": "grocer"},
            "member": {"balance": {"available": 100}},
            "reverses": None,
            "movements": [
                {
                    "kind": "EARN",
                    "points": 100,
                    "rule": "base",
                    "shortfall": 0,
                    "funder": {"code": "grocer"},
                    "party": {"code": "grocer"},
                    "lots": [],
                    "breakageShare": "0.000000",
                    "poolValue": "1.000000",
                    **money,
                }
            ],
        },
    }


REVERSE = """
mutation ($input: ReverseInput!) { reverse(input: $input) {
  ... on ReversalReceipt { points shortfall replayed balance { available } transaction {
      kind points reason amount { amount } reverses { id }
      movements { kind points lots { points issuer { code } price } }
  } }
  ... on Refusal { code message field } } }
"""


def return_of(key: str, **how: Any) -> dict[str, Any]:
    return {"input": {"idempotencyKey": key, "occurredAt": "2017-03-15T12:00:00Z", **how}}


async def test_a_burn_and_its_refund(shop: Shop) -> None:
    grocer, fuel = await shop.caller(), await shop.caller("fuel")
    await grocer.enroll()
    await grocer.earn("k1")
    burn = await fuel.burn("b1", 30)
    assert (burn["points"], burn["value"], burn["balance"]) == (
        30,
        {"amount": "0.30", "currency": "EUR"},
        {"available": 70},
    )
    refund = return_of("r1", reference="b1", kind="BURN", points=10, reason="came back")
    assert await fuel.run(REVERSE, refund) == {
        "reverse": {
            "points": 10,
            "shortfall": 0,
            "replayed": False,
            "balance": {"available": 80},
            "transaction": {
                "kind": "REVERSAL",
                "points": 10,
                "reason": "came back",
                "amount": None,
                "reverses": {"id": burn["transaction"]["id"]},
                # The points that came back are the grocer's: who and at what price is not for the fuel station to know.
                "movements": [
                    {
                        "kind": "BURN_REVERSAL",
                        "points": 10,
                        "lots": [{"points": 10, "issuer": None, "price": None}],
                    }
                ],
            },
        }
    }


async def test_a_return_takes_points_back_and_shows_the_issuer_its_own_lots(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    earned = await grocer.earn("k1")
    amount = {"amount": "40.00", "currency": "EUR"}
    answer = await grocer.run(REVERSE, return_of("r1", transactionId=earned["transaction"]["id"], amount=amount))
    assert answer["reverse"]["points"] == 40
    assert answer["reverse"]["transaction"]["amount"] == {"amount": "40.00"}
    assert answer["reverse"]["transaction"]["movements"] == [
        {
            "kind": "EARN_REVERSAL",
            "points": -40,
            "lots": [{"points": 40, "issuer": {"code": "grocer"}, "price": "0.010000"}],
        }
    ]


async def test_a_reference_names_an_original_only_with_its_kind(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    await grocer.earn("receipt-1")
    for awaits in (False, True):
        alone = return_of("r1", reference="receipt-1", awaitOriginal=awaits)
        assert await grocer.run(REVERSE, alone) == {
            "reverse": {
                "code": "INPUT_INVALID",
                "message": "name the original by exactly one of transactionId, originalKey, or reference with kind",
                "field": "kind",
            }
        }
    with_kind = await grocer.run(REVERSE, return_of("r1", reference="receipt-1", kind="EARN"))
    assert with_kind["reverse"]["balance"] == {"available": 0}


async def test_the_same_key_answers_the_first_posting_again(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    first = await grocer.earn("k1")
    again = await grocer.earn("k1")
    assert again == {**first, "replayed": True}
    other = await grocer.earn("k1", reference="other")
    assert (other["__typename"], other["code"], other["refusedKey"]) == ("Refusal", "IDEMPOTENCY_CONFLICT", "k1")


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"amount": {"amount": "-1", "currency": "EUR"}}, "AMOUNT_INVALID", "amount.amount"),
        ({"amount": {"amount": "1.001", "currency": "EUR"}}, "AMOUNT_INVALID", "amount.amount"),
        ({"amount": {"amount": "1", "currency": "USD"}}, "CURRENCY_MISMATCH", "amount.currency"),
        ({"storeCode": "ring"}, "STORE_NOT_FOUND", "storeCode"),
        ({"storeId": "bm90aGluZw"}, "STORE_NOT_FOUND", "storeId"),
        ({"member": {"card": "unknown"}}, "MEMBER_NOT_FOUND", "member"),
        ({"member": {"card": ""}}, "MEMBER_NOT_FOUND", "member"),
        ({"member": {"email": "no address"}}, "MEMBER_NOT_FOUND", "member"),
        ({"member": {"id": "bm90aGluZw"}}, "MEMBER_NOT_FOUND", "member"),
        ({"occurredAt": "2017-03-15T14:00:00+01:00"}, "OCCURRED_IN_FUTURE", "occurredAt"),
        ({"reference": "\u0007"}, "INPUT_INVALID", "reference"),
        ({"lines": [{"amount": {"amount": "1", "currency": "EUR"}}]}, "AMOUNT_INVALID", "lines"),
    ],
)
async def test_refusals_are_data_and_change_nothing(shop: Shop, changes: dict[str, Any], code: str, field: str) -> None:
    grocer = await shop.caller()
    member = await grocer.enroll()
    refusal = await grocer.earn("k1", **changes)
    assert (refusal["__typename"], refusal["code"], refusal["field"], refusal["retryable"]) == (
        "Refusal",
        code,
        field,
        False,
    )
    query = "query ($id: ID!) { member(by: {id: $id}) { balance { available } } transactions { nodes { id } } }"
    assert await grocer.run(query, {"id": member}) == {
        "member": {"balance": {"available": 0}},
        "transactions": {"nodes": []},
    }


async def test_many_purchases_answer_in_input_order_each_on_its_own(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    bad = purchase("k2", amount={"amount": "-1", "currency": "EUR"})
    many = """mutation ($inputs: [EarnInput!]!) { earnMany(inputs: $inputs) {
        ... on EarnReceipt { points idempotencyKey } ... on Refusal { code refusedKey: idempotencyKey } } }"""
    inputs = [purchase("k1"), bad, purchase("k3", amount={"amount": "7", "currency": "EUR"})]
    assert await grocer.run(many, {"inputs": inputs}) == {
        "earnMany": [
            {"points": 100, "idempotencyKey": "k1"},
            {"code": "AMOUNT_INVALID", "refusedKey": "k2"},
            {"points": 7, "idempotencyKey": "k3"},
        ]
    }


async def test_a_batch_that_is_too_long_is_refused_before_a_sibling_posts(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    document = """mutation ($one: EarnInput!, $inputs: [EarnInput!]!) {
        earn(input: $one) { __typename } earnMany(inputs: $inputs) { __typename } }"""
    variables = {"one": purchase("k0"), "inputs": [purchase(f"k{number}") for number in range(1, 502)]}
    errors = await grocer.errors(document, variables)
    assert [error["extensions"] for error in errors] == [{"code": "BAD_USER_INPUT", "field": "inputs"}]
    assert await grocer.run("{ transactions { nodes { id } } }") == {"transactions": {"nodes": []}}


async def test_quotes_answer_what_a_command_would_and_post_nothing(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    await grocer.earn("k1")
    document = """query ($earn: EarnInput!, $burn: BurnInput!, $much: BurnInput!) {
        quoteEarn(input: $earn) { ... on EarnQuote {
            points declinedPoints awards { rule granted } balance { available } } }
        quoteBurn(input: $burn) { ... on BurnQuote { points value { amount } balance { available } } }
        tooMuch: quoteBurn(input: $much) { ... on Refusal { code } } }"""
    burn = {name: value for name, value in purchase("q2").items() if name != "amount"}
    variables = {"earn": purchase("q1"), "burn": {**burn, "points": 60}, "much": {**burn, "points": 101}}
    assert await grocer.run(document, variables) == {
        "quoteEarn": {
            "points": 100,
            "declinedPoints": 0,
            "awards": [{"rule": "base", "granted": 100}],
            "balance": {"available": 200},
        },
        "quoteBurn": {"points": 60, "value": {"amount": "0.60"}, "balance": {"available": 40}},
        "tooMuch": {"code": "INSUFFICIENT_POINTS"},
    }
    assert await grocer.run("{ transactions { nodes { reference } } }") == {
        "transactions": {"nodes": [{"reference": "k1"}]}
    }


async def test_pages_are_read_forwards_by_cursor(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    for number in range(5):
        await grocer.earn(f"k{number}")
    query = """query ($after: String) { transactions(first: 2, after: $after) {
        nodes { reference } edges { cursor node { reference } }
        pageInfo { hasNextPage endCursor hasPreviousPage startCursor } } }"""
    seen, after, pages = [], None, 0
    while pages < 5:
        page = (await grocer.run(query, {"after": after}))["transactions"]
        seen += [node["reference"] for node in page["nodes"]]
        assert [edge["node"] for edge in page["edges"]] == page["nodes"]
        assert page["edges"][-1]["cursor"] == page["pageInfo"]["endCursor"]
        assert page["edges"][0]["cursor"] == page["pageInfo"]["startCursor"]
        assert page["pageInfo"]["hasPreviousPage"] == (pages > 0)
        after, pages = page["pageInfo"]["endCursor"], pages + 1
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert (seen, pages) == (["k4", "k3", "k2", "k1", "k0"], 3)


@pytest.mark.parametrize(
    "arguments",
    ["first: 0", "first: 101", "first: -1", 'after: "x"', 'after: "UGFydG5lcjox"', 'filter: {period: "March"}'],
)
async def test_arguments_of_a_page_that_cannot_be(shop: Shop, arguments: str) -> None:
    grocer = await shop.caller()
    errors = await grocer.errors(f"{{ transactions({arguments}) {{ nodes {{ id }} }} }}")
    assert errors[0]["extensions"] == {"code": "BAD_USER_INPUT", "field": errors[0]["extensions"]["field"]}
    assert errors[0]["extensions"]["field"] in arguments


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("{}", ["b1", "k2", "k1"]),
        ("{kind: EARN}", ["k2", "k1"]),
        ('{storeCode: "s2"}', ["k2"]),
        ('{reference: "k1"}', ["k1"]),
        ('{idempotencyKey: "b1"}', ["b1"]),
        ('{occurredFrom: "2017-03-15T12:00:00Z"}', ["b1", "k1"]),
        ('{occurredTo: "2017-03-15T12:00:00Z"}', ["k2"]),
        ('{recordedFrom: "2017-03-15T12:00:00Z", recordedTo: "2017-03-15T12:00:00.000001Z"}', ["b1", "k2", "k1"]),
        ('{period: "2017-03"}', ["b1", "k2", "k1"]),
        ('{period: "2017-02"}', []),
        ('{period: "2017-03", kind: BURN, reference: "b1"}', ["b1"]),
    ],
)
async def test_transactions_are_filtered(shop: Shop, given: str, found: list[str]) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    await grocer.earn("k1", storeCode="s1")
    await grocer.earn("k2", storeCode="s2", occurredAt="2017-03-14T12:00:00+01:00")
    await grocer.burn("b1", 5)
    answer = await grocer.run(f"{{ transactions(filter: {given}) {{ nodes {{ reference }} }} }}")
    assert [node["reference"] for node in answer["transactions"]["nodes"]] == found


async def test_transactions_of_one_member(shop: Shop) -> None:
    grocer = await shop.caller()
    first, second = await grocer.enroll("card-1"), await grocer.enroll("card-2")
    await grocer.earn("k1")
    await grocer.earn("k2", member={"id": second})
    query = "query ($id: ID!) { transactions(filter: {member: $id}) { nodes { reference member { id } } } }"
    assert await grocer.run(query, {"id": first}) == {
        "transactions": {"nodes": [{"reference": "k1", "member": {"id": first}}]}
    }


async def test_the_viewer_knows_itself(shop: Shop) -> None:
    query = "{ viewer { kind partner { code } scopes limits { pageSize earnMany } } }"
    grocer = await shop.caller(scopes=["points:earn", "members:read"])
    assert (await grocer.run(query))["viewer"] == {
        "kind": "PARTNER",
        "partner": {"code": "grocer"},
        "scopes": ["members:read", "points:earn"],
        "limits": {"pageSize": 100, "earnMany": 500},
    }
    operator = await shop.caller(None, scopes=["settlement:operate"])
    assert (await operator.run(query))["viewer"] == {
        "kind": "OPERATOR",
        "partner": None,
        "scopes": ["members:read", "partner:read", "reports:read", "settlement:operate", "settlement:read"],
        "limits": {"pageSize": 100, "earnMany": 500},
    }

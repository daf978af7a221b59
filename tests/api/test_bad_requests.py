"""What a till can get wrong, over HTTP with a real token: a clear answer with the right status, and nothing changed."""

import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from api.graphql.limits import BODY_BYTES_MAX
from domain.database import Database
from tests.api.graphql_shop import EARN, Caller, Shop, open_shop, purchase

RESPONSE_JSON = "application/graphql-response+json"
TABLES = ("command", "transaction", "lot", "lot_use", "account", "member", "member_identifier", "budget", "position")


async def contents(database: Database) -> list[tuple[str, int, str]]:
    """How many rows each table has, and a digest of all of them."""
    async with database.posting() as connection:
        return [
            (table, *(await connection.execute(text(
                f"SELECT count(*), coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} AS t"
            ))).one())
            for table in TABLES
        ]  # fmt: skip


async def opened(shop: Shop) -> Caller:
    """A till with every scope, one member, one purchase."""
    till = await shop.caller()
    await till.enroll()
    assert (await till.earn("first"))["__typename"] == "EarnReceipt"
    return till


def changed(**changes: Any) -> dict[str, Any]:
    """Variables of a purchase with these changes."""
    return {"input": purchase("bad", **changes)}


WITHOUT_AMOUNT = {"input": {name: value for name, value in purchase("bad").items() if name != "amount"}}

NOT_EXECUTED = {
    "wrong type": (EARN, changed(idempotencyKey=7), "idempotencyKey"),
    "amount as a binary fraction": (EARN, changed(amount={"amount": 1.5, "currency": "EUR"}), "amount"),
    "amount as no number": (EARN, changed(amount={"amount": "ten", "currency": "EUR"}), "amount"),
    "time without offset": (EARN, changed(occurredAt="2017-03-15T12:00:00"), "occurredAt"),
    "missing field": (EARN, WITHOUT_AMOUNT, "amount"),
    "two ways to name a member": (EARN, changed(member={"card": "card-1", "email": "a@example.com"}), "member"),
    "unknown field": ("mutation { earnTwice { points } }", {}, "earnTwice"),
    "no document": ("mutation {", {}, "Syntax"),
}


@pytest.mark.parametrize("name", list(NOT_EXECUTED))
async def test_a_malformed_command_is_not_executed(database: Database, name: str) -> None:
    query, variables, named = NOT_EXECUTED[name]
    async with open_shop(database) as shop:
        till = await opened(shop)
        before = await contents(database)
        answer = await till.send(query, variables, accept=RESPONSE_JSON)
        assert answer.status_code == 400
        assert answer.headers["content-type"].startswith(RESPONSE_JSON)
        assert "data" not in answer.json()
        assert named in answer.json()["errors"][0]["message"]
        plain = await till.send(query, variables)
        assert plain.status_code == 200
        assert plain.json() == answer.json()
        assert await contents(database) == before


REFUSED = {
    "foreign currency": (changed(amount={"amount": "1.00", "currency": "USD"}), "CURRENCY_MISMATCH", "amount.currency"),
    "future date": (changed(occurredAt="2017-03-16T12:00:00Z"), "OCCURRED_IN_FUTURE", "occurredAt"),
    "too long ago": (changed(occurredAt="2017-01-16T12:00:00Z"), "OCCURRED_TOO_LONG_AGO", "occurredAt"),
    "past limit": (changed(amount={"amount": f"{10**12}.01", "currency": "EUR"}), "AMOUNT_INVALID", "amount.amount"),
    "far past the limit": (changed(amount={"amount": "9" * 40, "currency": "EUR"}), "AMOUNT_INVALID", "amount.amount"),
    "too many points": (changed(amount={"amount": "1000000001", "currency": "EUR"}), "AMOUNT_INVALID", "amount"),
    "negative": (changed(amount={"amount": "-0.01", "currency": "EUR"}), "AMOUNT_INVALID", "amount.amount"),
    "too many decimals": (changed(amount={"amount": "0.001", "currency": "EUR"}), "AMOUNT_INVALID", "amount.amount"),
    "nobody": (changed(member={"card": "nobody"}), "MEMBER_NOT_FOUND", "member"),
    "an identifier that cannot be": (changed(member={"phone": "not a phone"}), "MEMBER_NOT_FOUND", "member"),
    "an invented id": (changed(member={"id": "TWVtYmVyOmFiYw"}), "MEMBER_NOT_FOUND", "member"),
    "no such store": (changed(storeCode="nowhere"), "STORE_NOT_FOUND", "storeCode"),
    "another's store": (changed(storeCode="ring"), "STORE_NOT_FOUND", "storeCode"),
    "reference again": (changed(reference="first"), "DUPLICATE_REFERENCE", "reference"),
    "key again": ({"input": purchase("first", reference="other")}, "IDEMPOTENCY_CONFLICT", "idempotencyKey"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
async def test_a_refusal_is_data_and_changes_nothing(database: Database, name: str) -> None:
    variables, code, field = REFUSED[name]
    async with open_shop(database) as shop:
        till = await opened(shop)
        before = await contents(database)
        answer = await till.send(EARN, variables, accept=RESPONSE_JSON)
        assert answer.status_code == 200
        refusal = answer.json()["data"]["earn"]
        assert (refusal["__typename"], refusal["code"], refusal["field"]) == ("Refusal", code, field)
        assert refusal["message"]
        assert refusal["retryable"] is False
        assert refusal["refusedKey"] == variables["input"]["idempotencyKey"]
        assert await contents(database) == before


async def test_bad_token_missing_scope_and_large_body(database: Database) -> None:
    async with open_shop(database) as shop:
        till = await opened(shop)
        reader = await shop.caller(scopes=["members:read"])
        before = await contents(database)

        for token in ("", "coa_at_invented", till.token[:-1] + "_"):
            answer = await Caller(shop.http, token).send(EARN, changed())
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"

        for media, status in ((RESPONSE_JSON, 403), ("application/json", 200)):
            answer = await reader.send(EARN, changed(), accept=media)
            assert answer.status_code == status
            (error,) = answer.json()["errors"]
            assert error["extensions"]["code"] == "FORBIDDEN"
            assert "points:earn" in error["message"]
            assert "data" not in answer.json()

        answer = await till.send(EARN, changed(reference="r" * BODY_BYTES_MAX))
        assert answer.status_code == 413
        assert answer.json()["errors"][0]["message"]
        assert await contents(database) == before


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"query": 7}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (json.dumps({"query": EARN}).encode(), "text/plain", 415),
    ],
)
async def test_a_body_that_is_no_request(database: Database, content: bytes, media: str, status: int) -> None:
    async with open_shop(database) as shop:
        till = await opened(shop)
        before = await contents(database)
        answer: httpx2.Response = await shop.http.post(
            "/graphql", content=content, headers={"authorization": f"Bearer {till.token}", "content-type": media}
        )
        assert answer.status_code == status
        assert answer.json()["errors"][0]["message"]
        assert await contents(database) == before


async def test_one_missing_scope_keeps_every_field_of_the_document_from_posting(database: Database) -> None:
    """A scope that one field lacks must not hide a sibling that has posted already."""
    both = """
    mutation ($earn: EarnInput!, $burn: BurnInput!) {
      earn(input: $earn) { __typename } burn(input: $burn) { __typename }
    }"""
    async with open_shop(database) as shop:
        await opened(shop)
        earner = await shop.caller(scopes=["points:earn"])
        before = await contents(database)
        burn = {name: value for name, value in purchase("b").items() if name != "amount"}
        answer = await earner.send(both, {"earn": purchase("bad"), "burn": {**burn, "points": 5}})
        assert [error["extensions"]["code"] for error in answer.json()["errors"]] == ["FORBIDDEN"]
        assert await contents(database) == before

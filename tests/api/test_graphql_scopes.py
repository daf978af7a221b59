"""Scopes: every field needs what the schema says, before anything runs, however the document is written."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from graphql import ObjectTypeDefinitionNode, parse, value_from_ast_untyped

from api.graphql.schema import schema
from api.graphql.scopes import NODE_SCOPES, SCOPES, scope_table
from api.security import OPERATOR_SCOPES, PARTNER_SCOPES
from domain.database import Database
from tests.api.graphql_shop import Shop, open_shop, purchase


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        yield opened


def test_the_table_is_the_schema() -> None:
    """Every root field but viewer has an entry, every entry a field with directive and words, every scope a meaning."""
    query, mutation = schema._schema.query_type, schema._schema.mutation_type
    assert query is not None
    assert mutation is not None
    roots = {f"{each.name}.{field}" for each in (query, mutation) for field in each.fields}
    assert roots - set(SCOPES) == {"Query.viewer"}
    shown = {}
    for definition in parse(schema.as_str()).definitions:
        if not isinstance(definition, ObjectTypeDefinitionNode):
            continue
        for field in definition.fields or ():
            for directive in getattr(field, "directives", None) or ():
                if directive.name.value == "requiresScopes":
                    shown[f"{definition.name.value}.{field.name.value}"] = (field.description, directive)
    words = dict(scope_table())
    assert list(words) == sorted(SCOPES)
    assert set(shown) == set(SCOPES)
    for coordinate, requirement in SCOPES.items():
        description, directive = shown[coordinate]
        assert value_from_ast_untyped(directive.arguments[0].value) == [list(each) for each in requirement]
        assert description is not None
        assert description.value.endswith(f"Needs scope {words[coordinate]}.")
    used = {
        scope for each in (*SCOPES.values(), *NODE_SCOPES.values()) for alternative in each for scope in alternative
    }
    assert used <= set(PARTNER_SCOPES) | set(OPERATOR_SCOPES)


def forbidden(errors: Any) -> set[str]:
    assert {error["extensions"]["code"] for error in errors} == {"FORBIDDEN"}
    return {error["message"] for error in errors}


EARN_NEEDED = "Mutation.earn needs scope points:earn"


@pytest.mark.parametrize(
    "document",
    [
        "mutation ($one: EarnInput!) { earn(input: $one) { __typename } }",
        "mutation ($one: EarnInput!) { harmless: earn(input: $one) { __typename } }",
        "mutation ($one: EarnInput!) { ... on Mutation { earn(input: $one) { __typename } } }",
        (
            "mutation ($one: EarnInput!) { ...A }"
            " fragment A on Mutation { ...B } fragment B on Mutation { earn(input: $one) { __typename } }"
        ),
        "mutation ($one: EarnInput!) { earn(input: $one) @skip(if: true) { __typename } }",
        "mutation ($one: EarnInput!) { earn(input: $one) @include(if: false) { __typename } }",
        (
            "mutation ($one: EarnInput!, $no: Boolean = false) {"
            " ... @include(if: $no) { earn(input: $one) { __typename } } }"
        ),
    ],
)
async def test_no_way_of_writing_hides_a_field(shop: Shop, document: str) -> None:
    burner = await shop.caller(scopes=["points:burn", "members:read"])
    assert forbidden(await burner.errors(document, {"one": purchase("k1")})) == {EARN_NEEDED}


async def test_a_sibling_that_is_forbidden_keeps_the_other_from_posting(shop: Shop) -> None:
    owner = await shop.caller()
    await owner.enroll()
    earner = await shop.caller(scopes=["points:earn"])
    burn = {name: value for name, value in purchase("b1").items() if name != "amount"}
    document = """mutation ($one: EarnInput!, $two: BurnInput!) {
        earn(input: $one) { __typename } burn(input: $two) { __typename } }"""
    errors = await earner.errors(document, {"one": purchase("k1"), "two": {**burn, "points": 1}})
    assert forbidden(errors) == {"Mutation.burn needs scope points:burn"}
    assert await owner.run("{ transactions { nodes { id } } }") == {"transactions": {"nodes": []}}


async def test_only_the_operation_that_runs_counts(shop: Shop) -> None:
    reader = await shop.caller(scopes=["partner:read"])
    document = (
        "query A { partners { nodes { code } } } mutation B($one: EarnInput!) { earn(input: $one) { __typename } }"
    )
    headers = {"authorization": f"Bearer {reader.token}"}
    for name, errors in (("A", None), ("B", {EARN_NEEDED}), ("A", None)):
        body = {"query": document, "operationName": name, "variables": {"one": purchase("k1")}}
        answer = (await shop.http.post("/graphql", json=body, headers=headers)).json()
        assert (forbidden(answer["errors"]) if "errors" in answer else None) == errors


async def test_a_mutations_payload_is_covered_by_its_scope(shop: Shop) -> None:
    owner = await shop.caller()
    await owner.enroll()
    earner = await shop.caller(scopes=["points:earn"])
    document = """mutation ($one: EarnInput!) { earn(input: $one) { ... on EarnReceipt { ...R } } }
        fragment R on EarnReceipt { transaction {
            member { identifiers { value } } partner { budget { limit { amount } } } } }"""
    answer = await earner.run(document, {"one": purchase("k1")})
    assert answer["earn"]["transaction"] == {
        "member": {"identifiers": [{"value": "card-1"}]},
        "partner": {"budget": {"limit": {"amount": "1500.000000"}}},
    }
    assert forbidden(await earner.errors("{ partner { budget { limit { amount } } } }")) == {
        "Query.partner needs scope partner:read or program:read",
        "Partner.budget needs scope partner:read or program:read",
    }


async def test_a_nested_field_may_need_more_than_its_parent(shop: Shop) -> None:
    settler = await shop.caller(scopes=["settlement:read"])
    assert await settler.run("{ transactions { nodes { id } } }") == {"transactions": {"nodes": []}}
    assert forbidden(await settler.errors("{ transactions { nodes { member { id } } } }")) == {
        "Transaction.member needs scope members:read or members:admin"
    }
    period = "{ settlementPeriod { label operatorNet { amount } poolChange { amount } margin { amount } } }"
    assert forbidden(await settler.errors(period)) == {
        f"SettlementPeriod.{name} needs scope settlement:operate or program:read or audit:read"
        for name in ("operatorNet", "poolChange", "margin")
    }


async def test_node_needs_the_scopes_of_what_it_is_asked_for(shop: Shop) -> None:
    owner = await shop.caller()
    member = await owner.enroll()
    reader = await shop.caller(scopes=["partner:read"])
    as_member = "query ($id: ID!) { node(id: $id) { id ... on Member { balance { available } } } }"
    assert forbidden(await reader.errors(as_member, {"id": member})) == {
        "Query.node as Member needs scope members:read or members:admin"
    }
    assert await owner.run(as_member, {"id": member}) == {"node": {"id": member, "balance": {"available": 0}}}
    # Without naming the type, the answer does not even say that the member exists.
    plain = "query ($id: ID!) { node(id: $id) { __typename } }"
    assert await reader.run(plain, {"id": member}) == {"node": None}
    assert await owner.run(plain, {"id": member}) == {"node": {"__typename": "Member"}}


async def test_an_operator_reads_everywhere_and_posts_nowhere(shop: Shop) -> None:
    owner = await shop.caller()
    await owner.enroll()
    await owner.earn("k1")
    operator = await shop.caller(None, scopes=["program:read"])
    document = "{ transactions { nodes { reference partner { code } } } partners { nodes { code } } }"
    assert await operator.run(document) == {
        "transactions": {"nodes": [{"reference": "k1", "partner": {"code": "grocer"}}]},
        "partners": {"nodes": [{"code": "grocer"}, {"code": "fuel"}, {"code": "restaurant"}]},
    }
    errors = await operator.errors(
        "mutation ($one: EarnInput!) { earn(input: $one) { __typename } }", {"one": purchase("k2")}
    )
    assert forbidden(errors) == {EARN_NEEDED}

"""Permission matrix: every field of every object type x every kind of principal, over HTTP with real tokens.

``permissions.txt`` beside this file is the matrix: a line per field, with the scopes of which one is enough, or ``-``
where the field needs no more than what leads to it. A new field without a line fails.
"""

from collections import deque
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLUnionType,
    get_named_type,
)

from api.graphql.schema import schema
from api.security import OPERATOR_SCOPES, PARTNER_SCOPES, READ_SCOPES
from domain.database import Database
from tests.api.graphql_shop import Caller, open_shop

MATRIX_FILE = Path(__file__).with_name("permissions.txt")
GRAPHQL = schema._schema
SCALARS = {
    "Points": "1",
    "Decimal": '"1"',
    "DateTime": '"2017-03-15T12:00:00Z"',
    "Date": '"2017-03-15"',
    "Int": "1",
    "Boolean": "true",
}


def read_matrix() -> dict[str, frozenset[str]]:
    """Field -> scopes of which one is enough; empty: no more than what leads to it."""
    matrix = {}
    for line in MATRIX_FILE.read_text(encoding="utf-8").splitlines():
        coordinate, _, scopes = line.partition(" ")
        matrix[coordinate] = frozenset(() if scopes == "-" else scopes.split())
    return matrix


def object_fields() -> dict[str, GraphQLField]:
    """Every field of every object type of the schema, introspection left out."""
    return {
        f"{named.name}.{name}": field
        for named in GRAPHQL.type_map.values()
        if isinstance(named, GraphQLObjectType) and not named.name.startswith("__")
        for name, field in named.fields.items()
    }


def literal(kind: Any) -> str:
    """Some valid literal of an input type."""
    if isinstance(kind, GraphQLNonNull):
        return literal(kind.of_type)
    if isinstance(kind, GraphQLList):
        return f"[{literal(kind.of_type)}]"
    if isinstance(kind, GraphQLEnumType):
        return str(next(iter(kind.values)))
    if isinstance(kind, GraphQLInputObjectType):
        if kind.is_one_of:
            return '{card: "nobody"}'
        return f"{{{arguments(kind.fields)}}}"
    return SCALARS.get(kind.name, '"x"')


def arguments(given: dict[str, GraphQLArgument] | dict[str, GraphQLInputField]) -> str:
    """The required ones of some arguments or input fields, with values."""
    required = {name: each.type for name, each in given.items() if isinstance(each.type, GraphQLNonNull)}
    return ", ".join(f"{name}: {literal(kind)}" for name, kind in required.items())


def selected(name: str, field: GraphQLField) -> str:
    """A field as a document selects it."""
    needed = arguments(field.args)
    return f"{name}({needed})" if needed else name


def objects_behind(field: GraphQLField) -> list[GraphQLObjectType]:
    """The object types that a field may answer with."""
    named = get_named_type(field.type)
    if isinstance(named, GraphQLUnionType | GraphQLInterfaceType):
        return list(GRAPHQL.get_possible_types(named))
    return [named] if isinstance(named, GraphQLObjectType) else []


def shortest_paths() -> dict[str, tuple[str, ...]]:
    """Object type -> the fields (as ``Type.field``) that lead to it from a root."""
    assert GRAPHQL.query_type is not None
    assert GRAPHQL.mutation_type is not None
    paths: dict[str, tuple[str, ...]] = {GRAPHQL.query_type.name: (), GRAPHQL.mutation_type.name: ()}
    waiting = deque([GRAPHQL.query_type, GRAPHQL.mutation_type])
    while waiting:
        parent = waiting.popleft()
        for name, field in parent.fields.items():
            for found in objects_behind(field):
                if found.name not in paths and f"{parent.name}.{name}" != "Query.node":
                    paths[found.name] = (*paths[parent.name], f"{parent.name}.{name}")
                    waiting.append(found)
    return paths


def document(path: tuple[str, ...], coordinate: str, fields: dict[str, GraphQLField]) -> str:
    """An operation that selects one field at the end of a path."""
    selection = selected(coordinate.partition(".")[2], fields[coordinate])
    if objects_behind(fields[coordinate]):
        selection += " { __typename }"
    parent = coordinate.partition(".")[0]
    for step in reversed(path):
        selection = f"{selected(step.partition('.')[2], fields[step])} {{ ... on {parent} {{ {selection} }} }}"
        parent = step.partition(".")[0]
    return f"{parent.lower()} {{ {selection} }}"


def test_every_field_has_a_line() -> None:
    assert set(read_matrix()) == set(object_fields())


@pytest.mark.parametrize("partner", ["grocer", None])
async def test_a_field_is_open_exactly_to_whom_the_matrix_says(database: Database, partner: str | None) -> None:
    matrix, fields, paths = read_matrix(), object_fields(), shortest_paths()
    scopes = OPERATOR_SCOPES if partner is None else PARTNER_SCOPES
    async with open_shop(database) as shop:
        callers = {scope: await shop.caller(partner, [scope]) for scope in scopes}
        # Field by field, so that the view validates each document once and not once for each principal.
        for coordinate in fields:
            path = (*paths[coordinate.partition(".")[0]], coordinate)
            # Fields inside a mutation's payload are covered by the mutation's own scope.
            counted = path[:1] if path[0].startswith("Mutation.") else path
            for scope, caller in callers.items():
                held = {scope} | (READ_SCOPES if partner is None else set())
                is_open = all(not matrix[step] or matrix[step] & held for step in counted)
                await check(caller, document(path[:-1], coordinate, fields), scope, is_open=is_open)


async def check(caller: Caller, query: str, held: str, *, is_open: bool) -> None:
    """Whether the document is refused to who holds a scope, before anything runs."""
    answer = (await caller.send(query)).json()
    codes = [error.get("extensions", {}).get("code") for error in answer.get("errors", [])]
    assert "GRAPHQL_VALIDATION_FAILED" not in codes, (query, answer)
    assert ("FORBIDDEN" in codes) is (not is_open), (held, query, answer)
    assert is_open or "data" not in answer


POSTING = (
    "enrollMember", "earn", "earnMany", "burn", "burnMany", "authorizeBurn", "captureBurn", "voidBurn", "reverse",
    "reverseMany",
)  # fmt: skip


async def test_the_operator_posts_nothing_for_a_partner(database: Database) -> None:
    async with open_shop(database) as shop:
        operator = await shop.caller(None, sorted(OPERATOR_SCOPES))
        for name in POSTING:
            await check(operator, document((), f"Mutation.{name}", object_fields()), "every scope", is_open=False)

"""The lean executor answers what graphql-core's own does: data, nulls, errors and their places."""

from inspect import isawaitable
from types import SimpleNamespace
from typing import Any

import pytest
from graphql import (
    ExecutionResult,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLString,
    GraphQLUnionType,
    execute,
    parse,
)

from api.graphql.executing import LeanExecutor, Selections
from api.graphql.wiring import DEFINITION
from domain.database import Database
from tests.api.graphql_shop import open_shop

OURS = {DEFINITION: object()}


def ours(type_: Any, resolve: Any) -> GraphQLField:
    """A field that ``wiring.wire`` would have gone through."""
    return GraphQLField(type_, resolve=resolve, extensions=OURS)


def raising(_source: Any, _info: Any) -> Any:
    """A resolver with a fault."""
    raise ValueError("on purpose")


async def later(_source: Any, info: Any) -> Any:
    """A leaf that must be waited for."""
    return info.context.name


async def failing_later(_source: Any, _info: Any) -> Any:
    """A leaf that fails when it is waited for."""
    raise ValueError("later, on purpose")


def leaves() -> dict[str, GraphQLField]:
    """A leaf of every fate."""
    colour = GraphQLEnumType("Colour", {"RED": 1, "GREEN": 2})
    return {
        "name": ours(GraphQLNonNull(GraphQLString), lambda _source, info: info.context.name),
        "nothing": ours(GraphQLString, lambda _source, _info: None),
        "missing": ours(GraphQLNonNull(GraphQLString), lambda _source, _info: None),
        "raised": ours(GraphQLString, raising),
        "raisedRequired": ours(GraphQLNonNull(GraphQLString), raising),
        "given": ours(GraphQLString, lambda _source, _info: ValueError("given back")),
        "later": ours(GraphQLNonNull(GraphQLString), later),
        "failsLater": ours(GraphQLString, failing_later),
        "colour": ours(GraphQLNonNull(colour), lambda _source, _info: 2),
        "noColour": ours(colour, lambda _source, _info: 7),
        "noNumber": ours(GraphQLInt, lambda _source, _info: "seven"),
        "foreign": GraphQLField(GraphQLString, resolve=lambda _source, info: info.field_name),
    }


def make_schema() -> GraphQLSchema:
    """Objects within objects, alone, in a list and in a union."""
    inner = GraphQLObjectType("Inner", leaves)
    other = GraphQLObjectType("Other", {"name": leaves()["name"]})
    either = GraphQLUnionType("Either", [inner, other], resolve_type=lambda value, _info, _type: value)
    return GraphQLSchema(
        GraphQLObjectType(
            "Query",
            {
                **{name: field for name, field in leaves().items() if "olour" not in name},
                "inner": ours(inner, lambda _source, _info: "Inner"),
                "required": ours(GraphQLNonNull(inner), lambda _source, _info: "Inner"),
                "list": ours(GraphQLList(inner), lambda _source, _info: ["Inner", None, "Inner"]),
                "either": ours(GraphQLList(either), lambda _source, _info: ["Inner", "Other", "Inner"]),
            },
        )
    )


DOCUMENTS = [
    "{ __typename name nothing raised later failsLater given noNumber foreign }",
    "{ missing name }",
    "{ name raisedRequired }",
    "{ inner { __typename name colour noColour noNumber nothing raised given later failsLater foreign } }",
    "{ inner { name missing } other: inner { name } }",
    "{ name required { name raisedRequired } }",
    "{ list { name missing } }",
    "{ list { a: name b: name colour } name }",
    "{ either { __typename ... on Inner { name colour } ... on Other { called: name } } }",
    "{ inner { ...F } list { ...F } } fragment F on Inner { name raised }",
    "{ inner { name } inner { colour } }",
    "query ($yes: Boolean!) { inner { name @include(if: $yes) colour @skip(if: $yes) } }",
    '{ __schema { queryType { name fields { name type { kind } } } } __type(name: "Inner") { kind name } }',
]  # fmt: skip


async def answered(schema: GraphQLSchema, query: str, variables: dict[str, Any]) -> ExecutionResult:
    """The result of a document."""
    result = execute(schema, parse(query), None, SimpleNamespace(name="n"), variables)
    if isawaitable(result):
        result = await result
    assert isinstance(result, ExecutionResult)
    return result


@pytest.mark.parametrize("query", DOCUMENTS)
async def test_the_answer_is_graphql_core_s(query: str) -> None:
    schema = make_schema()
    document = parse(query)
    selections: Selections | None = None if "@" in query else {}
    # Three times: what is remembered of the first must fit the others, and other variables.
    for yes in (True, False, True):
        expected = await answered(schema, query, {"yes": yes})
        result = execute(
            schema,
            document,
            None,
            SimpleNamespace(name="n"),
            {"yes": yes},
            executor_class=LeanExecutor,
            selections=selections,
        )
        found = await result if isawaitable(result) else result
        assert found.data == expected.data
        assert list(map(str, found.errors or ())) == list(map(str, expected.errors or ()))
        assert [error.path for error in found.errors or ()] == [error.path for error in expected.errors or ()]


async def test_what_an_object_is_asked_for_is_worked_out_once() -> None:
    schema = make_schema()
    selections: Selections = {}
    document = parse("{ list { name } inner { colour } }")
    kept: Selections = {}
    for _ in range(2):
        execute(schema, document, None, SimpleNamespace(name="n"), executor_class=LeanExecutor, selections=selections)
        kept = kept or dict(selections)
    assert len(selections) == 2
    assert all(selections[key] is kept[key] for key in kept)


async def test_a_directive_is_asked_again_for_each_request(database: Database) -> None:
    async with open_shop(database) as shop:
        till = await shop.caller()
        document = "query ($yes: Boolean!) { viewer { kind @include(if: $yes) partner { code name @skip(if: $yes) } } }"
        for _ in range(2):
            yes = await till.run(document, {"yes": True})
            no = await till.run(document, {"yes": False})
            assert yes == {"viewer": {"kind": "PARTNER", "partner": {"code": "grocer"}}}
            assert no == {"viewer": {"partner": {"code": "grocer", "name": "Harvest Market"}}}

"""The schema as a contract: its snapshot, and what counts as a change that breaks clients."""

import pytest
from graphql import build_schema, parse

from api.graphql.schema import SNAPSHOT, printed_schema
from api.graphql.sdl import schema_changes, sorted_sdl


def test_the_snapshot_is_the_schema() -> None:
    """After a wanted change: `coalition schema print > api/graphql/schema.graphql`, and review the difference."""
    assert SNAPSHOT.read_text("utf-8") == printed_schema()


def test_printing_is_sorted_and_says_the_same() -> None:
    sdl = 'type Query { b(y: Int, x: Int = 3): U @a(s: [["q", "p"]]) a: Int }'
    sdl += " union U = T | S type T { i: Int } type S { i: Int }"
    sdl += " directive @a(s: [[String!]!]!) on FIELD_DEFINITION enum E { B A }"
    printed = sorted_sdl(sdl)
    assert printed == sorted_sdl(printed)
    names = [getattr(definition, "name", None) for definition in parse(printed).definitions]
    assert [name.value for name in names if name is not None] == ["E", "Query", "S", "T", "U", "a"]
    assert 'b(x: Int = 3, y: Int): U @a(s: [["q", "p"]])' in printed
    assert schema_changes(sdl, printed) == ([], [])


def test_every_mutation_field_may_be_null() -> None:
    """Otherwise a crash in one field hides a sibling that has posted."""
    mutation = build_schema(printed_schema()).mutation_type
    assert mutation is not None
    assert [name for name, field in mutation.fields.items() if str(field.type).endswith("!")] == []


OLD = """
directive @requiresScopes(scopes: [[String!]!]!) on FIELD_DEFINITION
type Query { a(x: Int, y: Int @deprecated): Int b: T @deprecated c: E d: Int @requiresScopes(scopes: [["p"]]) }
type T { a: Int } enum E { A B @deprecated } input I { a: Int }
"""


@pytest.mark.parametrize(
    ("old", "new", "breaking", "dangerous"),
    [
        ("T { a: Int", "T { a: Int n: Int", [], []),
        ("a(x: Int, y: Int @deprecated): Int", "", ["Field Query.a was removed."], []),
        ("a(x: Int, y: Int @deprecated)", "a(x: Int)", [], []),
        ("a(x: Int, y: Int @deprecated)", "a(y: Int)", ["Argument Query.a(x:) was removed."], []),
        ("b: T @deprecated", "", [], []),
        ("c: E", "c: Int", ["Field Query.c changed type from E to Int."], []),
        ("A B @deprecated", "A", [], []),
        ("A B @deprecated", "B", ["Enum value E.A was removed."], []),
        ("A B @deprecated", "A B C", [], ["Enum value E.C was added."]),
        ('[["p"]]', '[["p", "q"]]', ["Query.d needed p and now needs p and q."], []),
        (' @requiresScopes(scopes: [["p"]])', "", ["Query.d needed p and now needs no scope."], []),
    ],
)
def test_what_breaks_a_client(old: str, new: str, breaking: list[str], dangerous: list[str]) -> None:
    assert old in OLD
    found_breaking, found_dangerous = schema_changes(OLD, OLD.replace(old, new))
    assert (found_breaking, found_dangerous) == (breaking, dangerous)


def test_a_type_that_only_deprecated_fields_led_to_may_go_with_them() -> None:
    new = OLD.replace("b: T @deprecated", "").replace("type T { a: Int }", "")
    assert schema_changes(OLD, new) == ([], [])
    assert schema_changes(OLD.replace("b: T @deprecated", "b: T"), new)[0] == [
        "T was removed.",
        "Field Query.b was removed.",
    ]

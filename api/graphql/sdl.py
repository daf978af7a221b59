"""The schema as text: sorted for review, and compared with an earlier one."""

from dataclasses import replace
from operator import attrgetter
from typing import Any

from graphql import (
    REMOVE,
    DocumentNode,
    FieldDefinitionNode,
    GraphQLObjectType,
    GraphQLSchema,
    Node,
    ObjectTypeDefinitionNode,
    Visitor,
    build_ast_schema,
    build_schema,
    find_breaking_changes,
    find_dangerous_changes,
    parse,
    print_ast,
    value_from_ast_untyped,
    visit,
)

from api.graphql.scopes import in_words

SORTED_MEMBERS = ("fields", "arguments", "values", "interfaces", "types", "definitions")
"""Parts of a definition whose order means nothing."""

SCOPES_DIRECTIVE = "requiresScopes"
DEPRECATED_DIRECTIVE = "deprecated"


def sorted_sdl(sdl: str) -> str:
    """The same definitions sorted by name, down to arguments; directives that were applied are kept.

    (graphql-core's own sorting works on a built schema, which forgets applied directives.)
    """
    return print_ast(visit(parse(sdl), _Sorter())) + "\n"


class _Sorter(Visitor):
    def leave(self, node: Node, *_rest: Any) -> Node | None:
        """Sorts what a definition holds; the values of an applied directive stay as they are."""
        if not (isinstance(node, DocumentNode) or node.kind.endswith("_definition")):
            return None
        by_name = attrgetter("name.value")
        ordered: dict[str, Any] = {
            part: tuple(sorted(getattr(node, part), key=by_name))
            for part in SORTED_MEMBERS
            if getattr(node, part, None)
        }
        return replace(node, **ordered) if ordered else None


def schema_changes(old_sdl: str, new_sdl: str) -> tuple[list[str], list[str]]:
    """What a client of the old schema may trip over: breaking changes, and dangerous ones (such as new enum values).

    Removing what the old schema had marked deprecated is no breaking change; needing other scopes is one.
    """
    old, new = build_schema(old_sdl), build_schema(new_sdl)
    breaking = [change.description for change in find_breaking_changes(_without_deprecated(old_sdl), new)]
    new_scopes = _scopes(new_sdl)
    breaking += [
        f"{field} needed {scopes or 'no scope'} and now needs {new_scopes[field] or 'no scope'}."
        for field, scopes in _scopes(old_sdl).items()
        if new_scopes.get(field, scopes) != scopes
    ]
    return breaking, [change.description for change in find_dangerous_changes(old, new)]


class _Undeprecated(Visitor):
    def enter(self, node: Node, *_rest: Any) -> Any:
        """Drops what is marked deprecated."""
        directives = getattr(node, "directives", None) or ()
        return REMOVE if any(each.name.value == DEPRECATED_DIRECTIVE for each in directives) else None


def _without_deprecated(sdl: str) -> GraphQLSchema:
    """The schema as it would be without anything deprecated, and without types that only such things led to."""
    bare = build_ast_schema(visit(parse(sdl), _Undeprecated()), assume_valid=True)
    nodes = [each for each in bare.type_map.values() if isinstance(each, GraphQLObjectType) and each.interfaces]
    return GraphQLSchema(bare.query_type, bare.mutation_type, types=nodes, directives=bare.directives)


def _scopes(sdl: str) -> dict[str, str]:
    """The scopes of every field, as written."""
    found = {}
    for definition in parse(sdl).definitions:
        if not isinstance(definition, ObjectTypeDefinitionNode):
            continue
        for field in definition.fields or ():
            found[f"{definition.name.value}.{field.name.value}"] = _scopes_of(field)
    return found


def _scopes_of(field: FieldDefinitionNode) -> str:
    """The scopes of one field in words, as its description has them."""
    for directive in field.directives or ():
        if directive.name.value == SCOPES_DIRECTIVE:
            (argument,) = directive.arguments or ()
            return in_words(value_from_ast_untyped(argument.value))
    return ""

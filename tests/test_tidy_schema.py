"""House rules of the GraphQL schema, read from its snapshot: a built schema forgets applied directives."""

from collections.abc import Iterator, Mapping, Sequence

import graphql

from tests.tidy import ROOT, Source, enforce, read


def schema_gaps(sources: Sequence[Source]) -> Iterator[str]:
    """What a merchant would miss, and what would hurt them."""
    for source in sources:
        document = graphql.parse(source.text)
        types = {node.name.value: node for node in document.definitions if isinstance(node, graphql.TypeDefinitionNode)}
        for name, node in types.items():
            if node.description is None:
                yield _at(source, node, f"{name} has no description")
            for member in (*(getattr(node, "fields", None) or ()), *(getattr(node, "values", None) or ())):
                yield from _member_gaps(source, name, member)
        for field in getattr(types.get("Mutation"), "fields", None) or ():
            yield from _mutation_gaps(source, field, types)


def _at(source: Source, node: graphql.Node, message: str) -> str:
    """A finding at the node's name rather than at the description before it."""
    where = getattr(node, "name", node).loc
    return source.at(where.start_token.line if where else 1, message)


def _member_gaps(source: Source, owner: str, member: graphql.Node) -> Iterator[str]:
    name = getattr(member, "name", None)
    path = f"{owner}.{name.value if name else '?'}"
    if getattr(member, "description", None) is None:
        yield _at(source, member, f"{path} has no description")
    for argument in getattr(member, "arguments", None) or ():
        if argument.description is None:
            yield _at(source, argument, f"{path}({argument.name.value}:) has no description")


def _mutation_gaps(
    source: Source, field: graphql.FieldDefinitionNode, types: Mapping[str, graphql.TypeDefinitionNode]
) -> Iterator[str]:
    name = f"Mutation.{field.name.value}"
    if isinstance(field.type, graphql.NonNullTypeNode):
        yield _at(source, field, f"{name} must be nullable: its crash would hide a sibling that has posted")
    if not any(directive.name.value == "requiresScopes" for directive in field.directives or ()):
        yield _at(source, field, f"{name} declares no @requiresScopes")
    inputs = [types.get(_named(argument.type)) for argument in field.arguments or ()]
    keys = [key for node in inputs for key in getattr(node, "fields", None) or () if key.name.value == "idempotencyKey"]
    if not any(isinstance(key.type, graphql.NonNullTypeNode) for key in keys):
        yield _at(source, field, f"{name} takes no idempotencyKey: String!")


def _named(node: graphql.TypeNode) -> str:
    while isinstance(node, graphql.ListTypeNode | graphql.NonNullTypeNode):
        node = node.type
    return node.name.value if isinstance(node, graphql.NamedTypeNode) else ""


GOOD = """
"All commands."
type Mutation {
  "Posts."
  earn(
    "What."
    inputs: [EarnInput!]!
  ): [Int!] @requiresScopes(scopes: [["points:earn"]])
}
"A purchase."
input EarnInput {
  "One per purchase."
  idempotencyKey: String!
}
"What it was."
enum Kind {
  "A purchase."
  EARN
}
"""

BAD = {
    "s.graphql#type": GOOD.replace('"All commands."\ntype', ">>type"),
    "s.graphql#field": GOOD.replace('"Posts."\n  earn', ">>earn"),
    "s.graphql#argument": GOOD.replace('"What."\n    inputs', ">>inputs"),
    "s.graphql#input field": GOOD.replace('"One per purchase."\n  idem', ">>idem"),
    "s.graphql#value": GOOD.replace('"A purchase."\n  EARN', ">>EARN"),
    "s.graphql#not null": GOOD.replace("[Int!]", "[Int!]!").replace("earn(", ">>earn("),
    "s.graphql#scopes": GOOD.replace("@requiresScopes", "@other").replace("earn(", ">>earn("),
    "s.graphql#key": GOOD.replace("idempotencyKey", "key").replace("earn(", ">>earn("),
    "s.graphql#optional key": GOOD.replace("String!", "String").replace("earn(", ">>earn("),
}


def test_the_schema_explains_and_guards_itself() -> None:
    """The schema is the manual that merchants read, and a mutation without scopes is open to every token.

    Why nullable: where one field of a document fails, its siblings' answers must still arrive.
    """
    snapshots = read("schema.graphql")
    assert snapshots or not (ROOT / "api" / "graphql" / "schema.py").exists(), (
        "api/graphql/schema.graphql is missing: `coalition schema print` writes it"
    )
    enforce(schema_gaps, snapshots, refuses=BAD, accepts={"s.graphql": GOOD})

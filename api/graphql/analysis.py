"""What an operation needs and costs, found before it runs: scopes, depth, cost, and the size of its batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_list_type,
)
from graphql.type import GraphQLField, GraphQLObjectType

from api.graphql.limits import COST_MAX, DEPTH_MAX, LIST_ITEMS, MANY_MAX, PAGE_DEFAULT, PAGE_MAX
from api.graphql.scopes import NODE_SCOPES, SCOPES, Requirement

BATCHES = {
    f"Mutation.{name}": ("inputs", MANY_MAX) for name in ("earnMany", "burnMany", "reverseMany", "confirmPaymentMany")
}
"""Fields that post a list: the argument that holds it and how long it may be."""


@dataclass(slots=True)
class Analysis:
    """Findings about one operation. ``uses_variables``: the cost holds for these variables only."""

    required: dict[str, Requirement] = field(default_factory=dict)
    cost: int = 0
    depth: int = 0
    uses_variables: bool = False

    def refusal(self) -> GraphQLError | None:
        """Why the operation is too much, if it is."""
        if self.depth > DEPTH_MAX:
            message = f"the operation is {self.depth} levels deep, at most {DEPTH_MAX}: ask in several requests"
            return GraphQLError(message, extensions={"code": "QUERY_TOO_DEEP"})
        if self.cost > COST_MAX:
            message = (
                f"the operation could resolve {self.cost} fields, at most {COST_MAX}: ask for smaller pages (first),"
                " fewer fields, or in several requests"
            )
            return GraphQLError(message, extensions={"code": "QUERY_TOO_COSTLY"})
        return None


def analyse(
    schema: GraphQLSchema,
    operation: OperationDefinitionNode,
    fragments: Mapping[str, FragmentDefinitionNode],
    variables: Mapping[str, Any],
) -> Analysis:
    """Walks a valid operation once. Raises GraphQLError(BAD_USER_INPUT) for a batch that is too long."""
    walk = _Walk(schema, fragments, variables)
    root = schema.get_root_type(operation.operation)
    assert root is not None
    walk.found.cost, walk.found.depth = walk.selections(
        operation.selection_set, root, covered=False, list_items=LIST_ITEMS
    )
    return walk.found


class _Walk:
    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: Mapping[str, FragmentDefinitionNode],
        variables: Mapping[str, Any],
    ) -> None:
        self.schema = schema
        self.fragments = fragments
        self.variables = variables
        self.found = Analysis()
        # Fragments that spread each other twice would otherwise be walked exponentially often.
        self.known: dict[tuple[str, bool, int], tuple[int, int]] = {}

    def selections(
        self, selected: SelectionSetNode, parent: GraphQLNamedType, *, covered: bool, list_items: int
    ) -> tuple[int, int]:
        """Cost and depth of a selection set; notes the scopes of its fields unless a mutation covers them."""
        cost = depth = 0
        for selection in selected.selections:
            if isinstance(selection, FieldNode):
                part = self.field(selection, parent, covered=covered, list_items=list_items)
            elif isinstance(selection, InlineFragmentNode):
                condition = selection.type_condition
                inner = parent if condition is None else self.narrowed(parent, condition.name.value, covered=covered)
                part = self.selections(selection.selection_set, inner, covered=covered, list_items=list_items)
            else:
                assert isinstance(selection, FragmentSpreadNode)
                part = self.spread(selection.name.value, parent, covered=covered, list_items=list_items)
            cost += part[0]
            depth = max(depth, part[1])
        return cost, depth

    def spread(self, name: str, parent: GraphQLNamedType, *, covered: bool, list_items: int) -> tuple[int, int]:
        fragment = self.fragments[name]
        inner = self.narrowed(parent, fragment.type_condition.name.value, covered=covered)
        key = (name, covered, list_items)
        if key not in self.known:
            self.known[key] = self.selections(fragment.selection_set, inner, covered=covered, list_items=list_items)
        return self.known[key]

    def narrowed(self, parent: GraphQLNamedType, type_name: str, *, covered: bool) -> GraphQLNamedType:
        """The type of a fragment; asking ``node`` for a type needs that type's scopes."""
        if isinstance(parent, GraphQLInterfaceType) and not covered and type_name in NODE_SCOPES:
            self.found.required[f"Query.node as {type_name}"] = NODE_SCOPES[type_name]
        inner = self.schema.get_type(type_name)
        assert inner is not None
        return inner

    def field(self, node: FieldNode, parent: GraphQLNamedType, *, covered: bool, list_items: int) -> tuple[int, int]:
        name = node.name.value
        if not isinstance(parent, GraphQLObjectType | GraphQLInterfaceType):
            return 1, 1  # __typename of a union
        definition = self.schema.get_field(parent, name)
        assert definition is not None
        coordinate = f"{parent.name}.{name}"
        if not covered and coordinate in SCOPES:
            self.found.required[coordinate] = SCOPES[coordinate]
        items = self.items(node, definition, coordinate, list_items)
        if node.selection_set is None:
            return items, 1
        cost, depth = self.selections(
            node.selection_set,
            get_named_type(definition.type),
            covered=covered or parent is self.schema.mutation_type,
            list_items=self.page_size(node) if "first" in definition.args else LIST_ITEMS,
        )
        return items * (1 + cost), depth + 1

    def items(self, node: FieldNode, definition: GraphQLField, coordinate: str, list_items: int) -> int:
        """How many values the field has: one, or the items of its list."""
        if not is_list_type(get_nullable_type(definition.type)):
            return 1
        if coordinate not in BATCHES:
            return list_items
        argument, at_most = BATCHES[coordinate]
        count = self.length(node, argument)
        if count > at_most:
            message = f"{argument} has {count} items, at most {at_most}: send the rest in further requests"
            raise GraphQLError(message, node, extensions={"code": "BAD_USER_INPUT", "field": argument})
        return count

    def argument(self, node: FieldNode, name: str) -> Any:
        """An argument's value as far as limits care: a literal's node, or what its variable holds."""
        value = next((each.value for each in node.arguments or () if each.name.value == name), None)
        if isinstance(value, VariableNode):
            self.found.uses_variables = True
            return self.variables.get(value.name.value)
        return value

    def length(self, node: FieldNode, name: str) -> int:
        value = self.argument(node, name)
        if isinstance(value, ListValueNode):
            return len(value.values)
        return len(value) if isinstance(value, list) else 1

    def page_size(self, node: FieldNode) -> int:
        value = self.argument(node, "first")
        number = int(value.value) if isinstance(value, IntValueNode) else value
        if type(number) is not int:
            return PAGE_DEFAULT
        return min(max(number, 1), PAGE_MAX)  # outside this range the field itself refuses

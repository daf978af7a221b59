"""Answers to operations that find no room, made without executing them.

Executing costs a multiple of all else that a request takes. A server that turns requests away at that price has no time
left for those that it accepted, and the answers wait in line themselves.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    value_from_ast_untyped,
)

from domain.commands import (
    Authorize,
    Burn,
    Capture,
    Command,
    ConfirmPayment,
    CreatePool,
    Earn,
    Enroll,
    JoinPool,
    LeavePool,
    Merge,
    Refusal,
    Reverse,
    Transfer,
    Unmerge,
    Void,
)
from domain.errors import RefusalCode
from domain.queue import PostingQueue

QUEUED: Mapping[str, tuple[type[Command], str, str]] = MappingProxyType(
    {
        "enrollMember": (Enroll, "input", "EnrollMemberResult"),
        "earn": (Earn, "input", "EarnResult"),
        "earnMany": (Earn, "inputs", "EarnResult"),
        "confirmPayment": (ConfirmPayment, "input", "ConfirmPaymentResult"),
        "confirmPaymentMany": (ConfirmPayment, "inputs", "ConfirmPaymentResult"),
        "burn": (Burn, "input", "BurnResult"),
        "burnMany": (Burn, "inputs", "BurnResult"),
        "authorizeBurn": (Authorize, "input", "AuthorizeBurnResult"),
        "captureBurn": (Capture, "input", "BurnResult"),
        "voidBurn": (Void, "input", "VoidBurnResult"),
        "reverse": (Reverse, "input", "ReverseResult"),
        "transferPoints": (Transfer, "input", "TransferPointsResult"),
        "reverseMany": (Reverse, "inputs", "ReverseResult"),
        "createPool": (CreatePool, "input", "CreatePoolResult"),
        "joinPool": (JoinPool, "input", "JoinPoolResult"),
        "leavePool": (LeavePool, "input", "LeavePoolResult"),
        "mergeMembers": (Merge, "input", "MergeMembersResult"),
        "unmergeMembers": (Unmerge, "input", "UnmergeMembersResult"),
    }
)
"""Fields that post through the queue: what they post, the argument that holds it, and the union that they answer."""

REFUSAL_TYPE = "Refusal"

REFUSAL_FIELDS: Mapping[str, Callable[[Refusal], object]] = MappingProxyType(
    {
        "__typename": lambda _: REFUSAL_TYPE,
        "code": lambda refusal: refusal.code.value,
        "message": lambda refusal: refusal.message,
        "field": lambda refusal: refusal.field,
        "retryable": lambda refusal: refusal.retryable,
        "idempotencyKey": lambda refusal: refusal.key,
    }
)
"""The schema's Refusal."""


TOO_MANY_QUERIES: Mapping[str, object] = {
    "errors": [
        {
            "message": "too many queries are being answered: ask again in a moment",
            "extensions": {"code": RefusalCode.OVERLOADED.value, "retryable": True},
        }
    ],
    "data": None,
}
"""The answer to a query that was not begun: the schema knows no refusal of queries."""


@dataclass(frozen=True, slots=True, eq=False)
class QueuedField:
    """One field of a mutation, and what it selects of a refusal by the names in the answer."""

    name: str
    kind: type[Command]
    argument: ValueNode
    selected: Mapping[str, Callable[[Refusal], object]]

    def keys(self, variables: Mapping[str, Any]) -> str | list[str] | None:
        """The key of what was sent, or of each of a list; None where something has none."""
        node = self.argument
        if isinstance(node, VariableNode):
            given = variables.get(node.name.value)
        else:
            given = value_from_ast_untyped(node, dict(variables))
        if not isinstance(given, list):
            return _key(given)
        keys = [key for key in map(_key, given) if key is not None]
        return keys if len(keys) == len(given) else None

    def refused(self, keys: str | list[str], queue: PostingQueue) -> object:
        """What the field answers when the queue turns these keys away."""
        if isinstance(keys, list):
            return [self.refused(key, queue) for key in keys]
        refusal = queue.turn_away(self.kind, keys)
        return {name: value(refusal) for name, value in self.selected.items()}


def _key(given: object) -> str | None:
    key = given.get("idempotencyKey") if isinstance(given, dict) else None
    return key if isinstance(key, str) else None


class _Unforeseen(Exception):
    """What the mutation answers is known only by executing it."""


def queued_fields(
    operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]
) -> Sequence[QueuedField]:
    """The fields of a valid mutation; none when it has others, or directives, and must be executed."""
    found: dict[str, QueuedField] = {}
    try:
        for node in operation.selection_set.selections:
            if not isinstance(node, FieldNode) or node.directives or node.name.value not in QUEUED:
                return ()
            kind, argument, union = QUEUED[node.name.value]
            assert node.selection_set is not None
            selected = {
                _name(field): REFUSAL_FIELDS[field.name.value]
                for field in _of_refusal(node.selection_set, union, fragments)
            }
            if _name(node) in found:  # two that are executed as one
                return ()
            (given,) = [each.value for each in node.arguments or () if each.name.value == argument]
            found[_name(node)] = QueuedField(_name(node), kind, given, selected)
    except _Unforeseen:
        return ()
    return tuple(found.values())


def _of_refusal(
    selected: SelectionSetNode, union: str, fragments: Mapping[str, FragmentDefinitionNode]
) -> Iterator[FieldNode]:
    for node in selected.selections:
        if node.directives:
            raise _Unforeseen
        if isinstance(node, FieldNode):
            yield node
            continue
        fragment: FragmentDefinitionNode | InlineFragmentNode
        if isinstance(node, FragmentSpreadNode):
            fragment = fragments[node.name.value]
        else:
            assert isinstance(node, InlineFragmentNode)
            fragment = node
        condition = fragment.type_condition
        if condition is None or condition.name.value in (REFUSAL_TYPE, union):
            yield from _of_refusal(fragment.selection_set, union, fragments)


def _name(node: FieldNode) -> str:
    return node.name.value if node.alias is None else node.alias.value


def turned_away(
    fields: Sequence[QueuedField], variables: Mapping[str, Any], queue: PostingQueue
) -> Mapping[str, object] | None:
    """The data of a mutation whose every command is refused with OVERLOADED, or None when it must be executed."""
    asked = {field: field.keys(variables) for field in fields}
    if None in asked.values():
        return None
    return {field.name: field.refused(keys, queue) for field, keys in asked.items() if keys is not None}

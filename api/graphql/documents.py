"""Parsed, validated and analysed documents, remembered by their text."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    ExecutableDefinitionNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    StringValueNode,
    Visitor,
    parse,
    validate,
    visit,
)

from api.graphql.analysis import analyse
from api.graphql.executing import Selections
from api.graphql.limits import SELECTIONS_MAX, TOKENS_MAX
from api.graphql.overload import QueuedField, queued_fields
from api.graphql.scopes import Requirement

ERRORS_MAX = 20
REMEMBERED_TEXT_MAX = 8 * 1024
REMEMBERED_TEXTS_MAX = 512 * 1024
"""Of text; a parsed document takes some hundred times its text."""


class DocumentRefused(Exception):
    """A document that cannot be run, with the errors to answer."""

    def __init__(self, code: str, errors: list[GraphQLError]) -> None:
        super().__init__(code)
        self.errors = errors
        for error in errors:
            error.extensions = {"code": code, **(error.extensions or {})}


@dataclass(slots=True)
class Operation:
    """One operation of a document, and what it needs; ``required`` is None until it was analysed.

    Where ``uses_variables``, the cost depends on them and must be found again for each request. ``selections`` are
    remembered by the executor; None where a directive may change them from request to request.
    """

    node: OperationDefinitionNode
    is_mutation: bool
    selections: Selections | None
    queued: Sequence[QueuedField] = ()
    required: tuple[tuple[str, Requirement], ...] | None = None
    uses_variables: bool = False

    @property
    def name(self) -> str | None:
        """Its name in the document."""
        return None if self.node.name is None else self.node.name.value


@dataclass(slots=True)
class Document:
    """A valid document with its operations by name."""

    node: DocumentNode
    fragments: Mapping[str, FragmentDefinitionNode]
    operations: dict[str | None, Operation]

    def operation(self, name: str | None) -> Operation:
        """The operation to run. Raises DocumentRefused when the name is unknown, or is needed and missing."""
        if name is not None:
            found = self.operations.get(name)
            if found is None:
                raise refused("OPERATION_NOT_FOUND", f"the document has no operation named {name}")
            return found
        if len(self.operations) > 1:
            message = "the document has several operations: say in operationName which one to run"
            raise refused("OPERATION_NOT_FOUND", message)
        return next(iter(self.operations.values()))


def refused(code: str, message: str) -> DocumentRefused:
    """A refusal with one error."""
    return DocumentRefused(code, [GraphQLError(message)])


class Documents:
    """Makes documents ready to run, and remembers valid ones; the least recently used are the first to go."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._remembered: OrderedDict[str, Document] = OrderedDict()
        self._text_remembered = 0

    def prepared(self, query: str, name: str | None, variables: Mapping[str, Any]) -> tuple[Document, Operation]:
        """The document and the operation to run, within every limit. Raises DocumentRefused."""
        document = self._remembered.get(query)
        if document is None:
            document = self._made(query)
            self._remember(query, document)
        else:
            self._remembered.move_to_end(query)
        operation = document.operation(name)
        if operation.required is None or operation.uses_variables:
            self._analyse(document, operation, variables)
        return document, operation

    def _made(self, query: str) -> Document:
        try:
            node = parse(query, max_tokens=TOKENS_MAX)
        except GraphQLError as error:
            raise DocumentRefused("GRAPHQL_PARSE_FAILED", [error]) from None
        operations: dict[str | None, Operation] = {}
        fragments = {}
        for definition in node.definitions:
            if isinstance(definition, FragmentDefinitionNode):
                fragments[definition.name.value] = definition
            elif isinstance(definition, OperationDefinitionNode):
                if definition.operation == OperationType.SUBSCRIPTION:
                    raise refused("GRAPHQL_VALIDATION_FAILED", "there are no subscriptions")
                is_mutation = definition.operation == OperationType.MUTATION
                operation_name = None if definition.name is None else definition.name.value
                operations[operation_name] = Operation(definition, is_mutation, None if "@" in query else {})
        if _selections(node) > SELECTIONS_MAX:
            message = f"the document has more than {SELECTIONS_MAX} fields: ask in several requests"
            raise refused("QUERY_TOO_COSTLY", message)
        if not operations:
            raise refused("GRAPHQL_VALIDATION_FAILED", "the document has no operation")
        errors = self._violations(query, node)
        if errors:
            raise DocumentRefused("GRAPHQL_VALIDATION_FAILED", errors)
        for operation in operations.values():
            if operation.is_mutation:
                operation.queued = queued_fields(operation.node, fragments)
        return Document(node, fragments, operations)

    def _violations(self, query: str, node: DocumentNode) -> list[GraphQLError]:
        try:
            errors = validate(self._schema, node, max_errors=ERRORS_MAX)
        except RecursionError:
            return [GraphQLError("the document is nested too deeply")]
        if not errors and "\\u" in query:
            check = _NoNul()
            visit(node, check)
            errors = check.errors
        return errors

    def _analyse(self, document: Document, operation: Operation, variables: Mapping[str, Any]) -> None:
        try:
            analysis = analyse(self._schema, operation.node, document.fragments, variables)
        except GraphQLError as error:
            raise DocumentRefused("BAD_USER_INPUT", [error]) from None
        refusal = analysis.refusal()
        if refusal is not None:
            raise DocumentRefused("QUERY_TOO_COSTLY", [refusal])
        operation.required = tuple(analysis.required.items())
        operation.uses_variables = analysis.uses_variables

    def _remember(self, query: str, document: Document) -> None:
        size = len(query.encode())
        if size > REMEMBERED_TEXT_MAX:
            return
        self._remembered[query] = document
        self._text_remembered += size
        while self._text_remembered > REMEMBERED_TEXTS_MAX:
            oldest, _ = self._remembered.popitem(last=False)
            self._text_remembered -= len(oldest.encode())


def _selections(document: DocumentNode) -> int:
    """How many fields and fragments the document names."""
    waiting = [each.selection_set for each in document.definitions if isinstance(each, ExecutableDefinitionNode)]
    count = 0
    while waiting:
        selections = waiting.pop().selections
        count += len(selections)
        inner = (getattr(each, "selection_set", None) for each in selections)
        waiting += [each for each in inner if each is not None]
    return count


class _NoNul(Visitor):
    """Finds string literals that PostgreSQL cannot store."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[GraphQLError] = []

    def enter_string_value(self, node: StringValueNode, *_rest: Any) -> None:
        """Notes a literal with the character U+0000."""
        if "\0" in node.value:
            self.errors.append(GraphQLError("text must not contain the character U+0000", node))

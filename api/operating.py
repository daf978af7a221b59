"""GraphQL documents run as the operator, for the command line: the same answers and refusals as over HTTP."""

from collections.abc import Mapping
from typing import Any

from graphql import graphql

from api.graphql.context import Context, Services
from api.graphql.ids import IdCodec, load_installation_secret
from api.graphql.schema import schema
from api.runtime import Runtime
from api.security import OPERATOR_SCOPES, READ_SCOPES, Authenticator, Principal
from api.sweeping import a_queue
from domain.errors import LedgerFault, RefusalCode, Refused
from domain.values import OPERATOR_ID


async def operate(runtime: Runtime, document: str, variables: Mapping[str, Any]) -> Any:
    """The value of a document's one field, without its ``__typename``, as GraphQL gives it to the operator.

    Raises Refused where that is a refusal, and ConfigurationError before the first ``coalition apply``.
    """
    await runtime.programme_configuration()
    scopes = frozenset(OPERATOR_SCOPES) | READ_SCOPES
    operator = Principal("command-line", OPERATOR_ID, scopes, runtime.clock())
    async with a_queue(runtime) as queue:
        services = Services(
            runtime.database,
            queue,
            runtime.configuration,
            Authenticator(runtime.database, runtime.clock),
            runtime.clock,
            IdCodec(await load_installation_secret(runtime.database)),
        )
        result = await graphql(
            schema._schema,  # noqa: SLF001 (strawberry has no public name for it)
            document,
            context_value=Context(services, operator, scopes, "command-line"),
            variable_values=dict(variables),
        )
    if result.errors or result.data is None:
        raise LedgerFault(f"a command of the operator failed: {result.errors}")
    (answer,) = result.data.values()
    if isinstance(answer, dict) and answer.pop("__typename", None) == "Refusal":
        raise Refused(RefusalCode(answer["code"]), answer["message"], answer["field"])
    return answer

"""Closing and verifying for the command line: the same answers as GraphQL's, printed."""

from decimal import Decimal
from typing import Any

import typer
from graphql import graphql
from rich.console import Console
from rich.table import Table

from api.graphql.context import Context, Services
from api.graphql.ids import IdCodec, load_installation_secret
from api.graphql.schema import schema
from api.runtime import Runtime
from api.security import OPERATOR_SCOPES, READ_SCOPES, Authenticator, Principal
from domain.errors import LedgerFault, RefusalCode, Refused
from domain.queue import PostingQueue
from domain.values import OPERATOR_ID
from settlement.verifying import verify

CLOSE_KEY_PREFIX = "command-line:close:"
"""Idempotency keys of closes from here: closing a month again answers with the first result."""

CLOSE_DOCUMENT = """
mutation Close($input: ClosePeriodInput!) {
  closePeriod(input: $input) {
    __typename
    ... on Refusal { code message field retryable idempotencyKey }
    ... on ClosedPeriod {
      replayed
      period {
        id label state opensAt closesAt
        operatorNet { amount currency } poolChange { amount currency } margin { amount currency }
        tax { amount currency } memberReceivableChange { amount currency }
        statements {
          id
          partner { id code name }
          net { amount currency } due { amount currency }
          lines { kind points exact priorPeriodExact billed { amount currency } }
          budget {
            limit { amount currency } reserved { amount currency }
            consumed { amount currency } available { amount currency }
          }
        }
        certificate { sha256 previous checks { number name holds detail } }
      }
    }
  }
}
"""


async def close_and_describe(runtime: Runtime, label: str) -> dict[str, Any]:
    """Closes a period as the operator, through the schema; answers the ClosedPeriod as GraphQL gives it.

    Raises Refused.
    """
    await runtime.programme_configuration()
    services = Services(
        runtime.database,
        PostingQueue(runtime.database, runtime.configuration, runtime.clock),
        runtime.configuration,
        Authenticator(runtime.database, runtime.clock),
        runtime.clock,
        IdCodec(await load_installation_secret(runtime.database)),
    )
    scopes = frozenset(OPERATOR_SCOPES) | READ_SCOPES
    operator = Principal("command-line", OPERATOR_ID, scopes, runtime.clock())
    result = await graphql(
        schema._schema,  # noqa: SLF001 (strawberry has no public name for it)
        CLOSE_DOCUMENT,
        context_value=Context(services, operator, scopes, "command-line"),
        variable_values={"input": {"idempotencyKey": f"{CLOSE_KEY_PREFIX}{label}", "label": label}},
    )
    if result.errors or result.data is None:
        raise LedgerFault(f"the close failed: {result.errors}")
    answer: dict[str, Any] = result.data["closePeriod"]
    if answer.pop("__typename") == "Refusal":
        raise Refused(RefusalCode(answer["code"]), answer["message"], answer["field"])
    return answer


def print_closed(closed: dict[str, Any]) -> None:
    """A closed period for a person: one line a partner, the operator's side, the certificate."""
    period = closed["period"]
    typer.echo(f"{period['label']} is {period['state']}{' (was closed before)' if closed['replayed'] else ''}")
    table = Table("partner", "net", "due")
    for statement in period["statements"]:
        table.add_row(statement["partner"]["code"], *(statement[name]["amount"] for name in ("net", "due")))
    Console().print(table)
    figures = {"operator net": "operatorNet", "pool change": "poolChange", "margin": "margin", "tax": "tax"}
    for name, key in figures.items():
        typer.echo(f"{name}: {period[key]['amount']} {period[key]['currency']}")
    if Decimal(period["memberReceivableChange"]["amount"]):
        typer.echo("members owe more by: {amount} {currency}".format(**period["memberReceivableChange"]))
    checks = period["certificate"]["checks"]
    held = sum(check["holds"] for check in checks)
    typer.echo(f"certificate {period['certificate']['sha256']}: {held} of {len(checks)} invariants hold")


async def verify_and_describe(runtime: Runtime) -> dict[str, Any]:
    """Every invariant over the live data, re-run now."""
    report = await verify(runtime.database, runtime.clock)
    return {
        "holds": report.holds,
        "verifiedAt": report.verified_at.isoformat(),
        "closedPeriods": list(report.closed_labels),
        "checks": [
            {"number": check.number, "name": check.name, "holds": check.holds, "detail": check.detail}
            for check in report.checks
        ],
    }

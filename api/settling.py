"""Closing and verifying for the command line: the same answers as GraphQL's, printed."""

from decimal import Decimal
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from api.operating import operate
from api.runtime import Runtime
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
        tax { amount currency } memberReceivableChange { amount currency } depositChange { amount currency }
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
    variables = {"input": {"idempotencyKey": f"{CLOSE_KEY_PREFIX}{label}", "label": label}}
    closed: dict[str, Any] = await operate(runtime, CLOSE_DOCUMENT, variables)
    return closed


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
    for name, key in (("member receivable change", "memberReceivableChange"), ("deposit change", "depositChange")):
        if Decimal(period[key]["amount"]):
            typer.echo(f"{name}: {period[key]['amount']} {period[key]['currency']}")
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

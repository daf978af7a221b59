"""Commands about what needs four eyes, and about disputes; what they do stands in ``api.proposing``."""

from typing import Annotated, Any, Literal

import typer

from api.terminal import JsonFlag, print_json, run

ProposalState = Literal["PROPOSED", "APPROVED", "REJECTED", "WITHDRAWN"]
DisputeState = Literal["OPEN", "ACCEPTED", "REJECTED", "WITHDRAWN"]
Reason = Literal["CORRECTION", "AGREEMENT", "GOODWILL", "FRAUD", "UNCOLLECTABLE", "DISPUTE", "OTHER"]

propose_app = typer.Typer(help="Propose what another client of the operator approves.", no_args_is_help=True)


def proposals(
    state: Annotated[ProposalState | None, typer.Option(help="Only in this state.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List what was proposed, latest first."""
    from api.proposing import describe_proposals, print_rows

    rows = run(lambda runtime: describe_proposals(runtime, state))
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("proposal", "kind", "partner", "amount", "points", "state", "proposedBy", "note"))


def disputes(
    state: Annotated[DisputeState | None, typer.Option(help="Only in this state.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List what partners dispute, latest first."""
    from api.proposing import describe_disputes, print_rows

    rows = run(lambda runtime: describe_disputes(runtime, state))
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("dispute", "partner", "period", "line", "amount", "withheld", "state", "reason", "note"))


@propose_app.command()
def adjustment(
    partner: Annotated[str, typer.Argument(help="The partner's code.")],
    amount: Annotated[str, typer.Option(help="Signed from the partner's side: negative debits it.")],
    note: Annotated[str, typer.Option(help="Why; the partner reads it.")],
    key: Annotated[str, typer.Option(help="Idempotency key.")],
    reason: Annotated[Reason, typer.Option(help="Why, as far as it can be counted.")] = "OTHER",
    corrects: Annotated[
        str | None,
        typer.Option(
            help="The closed line that it corrects, such as 2017-03:ISSUE, or dispute:7 for that of a dispute.",
            metavar="LABEL:LINE",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Propose a credit or debit of a partner; a client of the operator approves it through GraphQL."""
    from api.proposing import propose_and_describe

    row = run(
        lambda runtime: propose_and_describe(
            runtime, partner, amount=amount, note=note, key=key, reason=reason, corrects=corrects
        )
    )
    if as_json:
        print_json(row)
    else:
        say_proposed(row)


def say_proposed(row: dict[str, Any]) -> None:
    """Tells a person what was proposed."""
    again = " (was proposed before)" if row["replayed"] else ""
    typer.echo("proposal {proposal}: {partner} {amount} {currency}, {state}".format(**row) + again)

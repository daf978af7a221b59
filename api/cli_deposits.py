"""Commands about deposits and defaults; what they do stands in ``api.depositing``."""

from datetime import datetime
from typing import Annotated

import typer

from api.cli_four_eyes import Reason, propose_app, say_proposed
from api.terminal import DATE, JsonFlag, print_json, run


def deposit(
    partner: Annotated[str, typer.Argument(help="The partner's code.")],
    amount: Annotated[str, typer.Option(help="What was paid in, such as 500.00.")],
    value_date: Annotated[datetime, typer.Option("--value-date", formats=[DATE], help="The bank's value date.")],
    reference: Annotated[str, typer.Option(help="What the bank calls it; each is recorded once per partner.")],
    key: Annotated[str | None, typer.Option(help="Idempotency key; made of the facts when left out.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Record money that a partner paid into its deposit."""
    from api.depositing import record_and_describe

    recorded = run(
        lambda runtime: record_and_describe(
            runtime, partner, amount=amount, value_date=value_date.date(), bank_reference=reference, key=key
        )
    )
    if as_json:
        print_json(recorded)
    else:
        again = " (was recorded before)" if recorded["replayed"] else ""
        said = "{partner}: {amount} {currency} paid in; {balance} held of {required} required"
        typer.echo(said.format(**recorded) + again)


def deposits(as_json: JsonFlag = False) -> None:
    """List the deposits of partners: what is required, held, missing, owed, and free to be paid out."""
    from api.depositing import describe_deposits

    rows = run(describe_deposits)
    if as_json:
        print_json(rows)
    else:
        from api.proposing import print_rows

        print_rows(rows, ("partner", "state", "required", "balance", "shortfall", "owes", "free"))


@propose_app.command()
def payout(
    partner: Annotated[str, typer.Argument(help="The partner's code.")],
    amount: Annotated[str, typer.Option(help="How much of the deposit, such as 500.00.")],
    note: Annotated[str, typer.Option(help="Why.")],
    key: Annotated[str, typer.Option(help="Idempotency key.")],
    reason: Annotated[
        Reason, typer.Option(help="CORRECTION: the bank took back what was paid in; it need not be free.")
    ] = "AGREEMENT",
    as_json: JsonFlag = False,
) -> None:
    """Propose to pay a part of a deposit out; a client of the operator approves it through GraphQL."""
    from api.depositing import propose_payout_and_describe

    row = run(
        lambda runtime: propose_payout_and_describe(runtime, partner, amount=amount, note=note, key=key, reason=reason)
    )
    if as_json:
        print_json(row)
    else:
        say_proposed(row)


@propose_app.command()
def default(
    partner: Annotated[str, typer.Argument(help="The partner's code.")],
    note: Annotated[str, typer.Option(help="Why.")],
    key: Annotated[str, typer.Option(help="Idempotency key.")],
    label: Annotated[
        str | None, typer.Argument(help="Label of the statement's period; none: every statement that is due.")
    ] = None,
    reason: Annotated[Reason, typer.Option(help="Why, as far as it can be counted.")] = "UNCOLLECTABLE",
    as_json: JsonFlag = False,
) -> None:
    """Propose to declare due statements in default; a client of the operator approves it through GraphQL."""
    from api.depositing import propose_default_and_describe

    row = run(lambda runtime: propose_default_and_describe(runtime, partner, label, note=note, key=key, reason=reason))
    if as_json:
        print_json(row)
    else:
        say_proposed(row)

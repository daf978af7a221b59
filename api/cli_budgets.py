"""Commands about budgets; what they do stands in ``api.budgeting``."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from api.terminal import JsonFlag, print_json, run
from domain.errors import InputFileError, Refused

MOMENT = "YYYY-MM-DDTHH:MM:SSZ"


def budgets(
    partner: Annotated[str | None, typer.Option(help="Only this partner's, by its code.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List every budget window that was used or paid into: limit, use, what is left, alert, blocks of floats."""
    from api.budgeting import budgets_table, describe_budgets

    described = run(lambda runtime: describe_budgets(runtime, partner))
    if as_json:
        print_json(described)
    else:
        from rich.console import Console

        Console().print(budgets_table(described))


def top_up(
    partner: Annotated[str, typer.Argument(help="The partner's code.")],
    amount: Annotated[str, typer.Argument(help="What was paid in, such as 500.00.")],
    key: Annotated[str, typer.Option(help="Your key for this payment: the same key pays in once.")],
    at: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%dT%H:%M:%SZ"], help="When the money came in, in UTC.", metavar=MOMENT)
    ],
    reference: Annotated[str | None, typer.Option(help="The bank's reference of the payment.")] = None,
    note: Annotated[str | None, typer.Option(help="For people, the partner's too.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Add money that a partner paid in to its PREPAID budget: a new block, which raises the limit."""
    from api.budgeting import pay_in

    try:
        paid = Decimal(amount)
    except InvalidOperation as error:
        raise InputFileError(f"{amount!r} is no amount: give it as 500.00") from error
    when = at.replace(tzinfo=UTC)
    try:
        made = run(
            lambda runtime: pay_in(
                runtime, partner, paid, key=key, occurred_at=when, bank_reference=reference, note=note
            )
        )
    except Refused as refused:
        if not as_json:
            raise
        print_json({"code": refused.code, "message": refused.message, "field": refused.field})
        raise typer.Exit(1) from refused
    if as_json:
        print_json(made)
    else:
        was_there = " (was paid in before)" if made["replayed"] else ""
        typer.echo(f"{partner}: {made['block']['amount']} paid in{was_there}, {made['budget']['available']} available")

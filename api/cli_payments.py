"""Commands about payments; what they do stands in ``api.paying`` and ``api.pending``."""

from datetime import datetime
from typing import Annotated

import typer

from api.terminal import DATE, JsonFlag, print_json, run


def payment(
    partner: Annotated[str, typer.Argument(help="The partner's code.")],
    label: Annotated[str, typer.Argument(help="Label of the statement's period.")],
    amount: Annotated[str, typer.Option(help="Signed as the statement's due: negative when the partner paid.")],
    value_date: Annotated[datetime, typer.Option("--value-date", formats=[DATE], help="The bank's value date.")],
    reference: Annotated[str, typer.Option(help="What the bank calls it.")],
    key: Annotated[str | None, typer.Option(help="Idempotency key; made of the facts when left out.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Record a payment on the statement that it pays."""
    from api.paying import record_and_describe

    recorded = run(
        lambda runtime: record_and_describe(
            runtime,
            partner,
            label,
            amount=amount,
            value_date=value_date.date(),
            bank_reference=reference,
            key=key,
        )
    )
    if as_json:
        print_json(recorded)
    else:
        again = " (was recorded before)" if recorded["replayed"] else ""
        typer.echo("{partner} {period}: {amount} {currency} recorded; {open} open".format(**recorded) + again)


def confirm_payment(
    partner: Annotated[str, typer.Option(help="Code of the partner where the purchase was.")],
    reference: Annotated[str | None, typer.Option(help="The purchase, by the partner's reference.")] = None,
    store: Annotated[str | None, typer.Option(help="With --reference: code of the purchase's store.")] = None,
    key: Annotated[str | None, typer.Option(help="The purchase, by the key under which it was sent.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say that the money of a purchase came in, where its points wait for that."""
    from api.pending import confirm_and_describe

    done = run(
        lambda runtime: confirm_and_describe(runtime, partner, reference=reference, store=store, purchase_key=key)
    )
    if as_json:
        print_json(done)
    else:
        again = " (was confirmed before)" if done["replayed"] else ""
        usable = f"{done['points']} points are usable now" if done["points"] else "its return window is not over"
        typer.echo(f"{reference or key} is paid; {usable}{again}")


def due(as_json: JsonFlag = False) -> None:
    """List what is to be paid: statements of closed periods of which something is open."""
    from api.paying import describe_payment_list, print_payment_list

    rows = run(describe_payment_list)
    if as_json:
        print_json(rows)
    else:
        print_payment_list(rows)

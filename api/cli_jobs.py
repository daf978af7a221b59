"""Commands about what is due by itself, or will be; what they do stands in ``api.worker`` and its neighbours."""

from datetime import datetime
from typing import Annotated

import typer

from api.terminal import DATE, JsonFlag, print_json, run, screen

LISTED_MAX = 100_000


def worker() -> None:
    """Run the scheduled jobs until stopped: what is due by itself is booked each minute."""
    from api.worker import work

    run(lambda runtime: work(runtime, lambda: screen.print("The worker is running (stop it with Ctrl-C).")))


def sweep(as_json: JsonFlag = False) -> None:
    """Book once what is due by itself, as the worker does each minute: confirm points, time out holds, expire lots."""
    from api.sweeping import sweep_once

    summary = run(lambda runtime: sweep_once(runtime, screen))
    if as_json:
        print_json(summary.as_json())
    else:
        for name, value in summary.as_json().items():
            typer.echo(f"{name}: {value}")
    if summary.failed:
        raise typer.Exit(1)


def pending(as_json: JsonFlag = False) -> None:
    """List what is pending: points and reserved budget by partner, and whether they wait for a payment."""
    from api.pending import describe_pending

    rows = run(describe_pending)
    if as_json:
        print_json(rows)
    else:
        from rich.console import Console
        from rich.table import Column, Table

        reserved = Column("reserved", no_wrap=True)
        table = Table("partner", "waits for", "awards", "points", reserved, Column("oldest purchase", no_wrap=True))
        for row in rows:
            table.add_row(
                row["partner"],
                "payment" if row["waitsForPayment"] else "window",
                str(row["awards"]),
                str(row["points"]),
                f"{row['reserved']['amount']} {row['reserved']['currency']}",
                row["oldestPurchase"].replace("+00:00", "Z"),
            )
        Console().print(table)


def expiring(
    before: Annotated[
        datetime, typer.Option(formats=[DATE], help="Points whose last day is before this one.", metavar="YYYY-MM-DD")
    ],
    first: Annotated[int, typer.Option(min=1, max=LISTED_MAX, help="How many members at most.")] = 1_000,
    as_json: JsonFlag = False,
) -> None:
    """List the members whose points expire before a day, soonest first: whom to tell."""
    from api.expiring import list_expiring

    rows, is_cut = run(lambda runtime: list_expiring(runtime, before.date(), first))
    if as_json:
        print_json(rows)
    else:
        from rich.console import Console
        from rich.table import Column, Table

        table = Table(Column("member", no_wrap=True), "points", "first at")
        for row in rows:
            table.add_row(row["member"]["id"], str(row["points"]), row["expiries"][0]["at"].replace("+00:00", "Z"))
        Console().print(table)
    if is_cut:
        screen.print(f"more than {first} members: give a larger --first, or an earlier --before", highlight=False)


def debtors(
    first: Annotated[int, typer.Option(min=1, max=LISTED_MAX, help="How many debts at most.")] = 1_000,
    as_json: JsonFlag = False,
) -> None:
    """List what members owe since returns, oldest first: who, since when, how much, and whose points they were."""
    from api.debtors import list_debtors

    rows, is_cut = run(lambda runtime: list_debtors(runtime, first))
    if as_json:
        print_json(rows)
    else:
        from rich.console import Console
        from rich.table import Column, Table

        table = Table(Column("member", overflow="fold"), "since", "points", "issuer", "value")
        for row in rows:
            owed = f"{row['value']['amount']} {row['value']['currency']}"
            table.add_row(row["member"]["id"], row["since"][:10], str(row["points"]), row["issuer"]["code"], owed)
        Console().print(table)
    if is_cut:
        screen.print(f"more than {first} debts: give a larger --first", highlight=False)

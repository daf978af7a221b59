"""The command about what is outstanding when a partner or the programme ends; what it does: ``api.outstanding``."""

from typing import Annotated

import typer

from api.terminal import JsonFlag, print_json, run


def outstanding(
    partner: Annotated[str | None, typer.Option(help="The issuing partner's code; all of them when left out.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List what members have and owe in points: by issuer and who paid, the value in the pool, when they expire."""
    from api.outstanding import describe_outstanding

    rows = run(lambda runtime: describe_outstanding(runtime, partner))
    if as_json:
        print_json(rows)
    else:
        from rich.console import Console
        from rich.table import Column, Table

        table = Table(
            "issuer", "paid by", "available", "held", Column("pool value", no_wrap=True), "owed",
            Column("expire from", no_wrap=True), Column("to", no_wrap=True), "final statement",
        )  # fmt: skip
        for row in rows:
            table.add_row(
                row["partner"],
                row["paidBy"],
                str(row["available"]),
                str(row["held"]),
                f"{row['poolValue']['amount']} {row['poolValue']['currency']}",
                str(row["owed"]),
                (row["firstExpiry"] or "")[:10],
                (row["lastExpiry"] or "")[:10],
                row["finalStatement"] or "",
            )
        Console().print(table)

"""The command line: thin commands over the parts; what they do stands in the modules they call."""

import gc
import json
import sys
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
import typer.completion
from rich.console import Console
from typer._completion_classes import completion_init

from api.cli_accounts import merge, pool_app, transfer, unmerge
from api.cli_budgets import budgets, top_up
from api.cli_deposits import deposit, deposits
from api.cli_endings import outstanding
from api.cli_four_eyes import disputes, proposals, propose_app
from api.cli_jobs import debtors, expiring, pending, sweep, worker
from api.cli_payments import confirm_payment, due, payment
from api.settings import TABLE, Settings, load_settings
from api.terminal import DATE, JsonFlag, print_json, run, run_loop, screen
from domain.errors import ConfigurationError, InputFileError, Refused

if TYPE_CHECKING:  # what only some commands need is imported by them: help and completion answer at once
    from api.runtime import Runtime

app = typer.Typer(
    name="coalition",
    help="A coalition loyalty platform: earn at any partner, burn at any other, settle at month end.",
    no_args_is_help=True,
    add_completion=False,  # its options guess the shell and ignore the one that is named; ours are below
    pretty_exceptions_enable=False,
    epilog="Environment: " + "  ".join(f"{s.name} ({s.meaning}; default {s.default or 'none'})" for s in TABLE),
)
client_app = typer.Typer(help="OAuth clients of merchant systems and of the operator.", no_args_is_help=True)
schema_app = typer.Typer(help="The GraphQL schema as a file.", no_args_is_help=True)
export_app = typer.Typer(help="What the ledger holds, as files.", no_args_is_help=True)
app.add_typer(client_app, name="client")
app.add_typer(export_app, name="export")
app.add_typer(schema_app, name="schema")
app.add_typer(propose_app, name="propose")
app.add_typer(pool_app, name="pool")

Shell = Literal["bash", "zsh", "fish", "powershell", "pwsh"]

YOUNG_OBJECTS_MAX = 50_000
"""New objects between two looks for cycles of garbage: modules that load leave none, and looking slows every start."""


def main() -> None:
    """Entry point: what a person can put right ends with one clear line and exit status 1."""
    gc.set_threshold(YOUNG_OBJECTS_MAX)
    completion_init()  # Typer calls it only where its own completion options are on
    try:
        app()
    except (ConfigurationError, InputFileError, Refused) as error:
        code = f"{error.code}: " if isinstance(error, Refused) else ""
        screen.print(f"coalition: {code}{error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 (a traceback's text would show rows of the database)
        from api.logs import log_fault

        log_fault("command_failed", error)
        screen.print(
            f"coalition: internal error, {type(error).__qualname__}: the line above says where", style="bold red"
        )
        sys.exit(1)


@app.callback()
def with_completion(
    _install: Annotated[
        Shell | None,
        typer.Option(
            "--install-completion",
            callback=typer.completion.install_callback,
            expose_value=False,
            help="Install completion for that shell.",
        ),
    ] = None,
    _show: Annotated[
        Shell | None,
        typer.Option(
            "--show-completion",
            callback=typer.completion.show_callback,
            expose_value=False,
            help="Print the completion script of that shell.",
        ),
    ] = None,
) -> None:
    """Takes the options that end at once; the commands follow."""


def say_where(settings: Settings) -> None:
    """Tells a person what to do with the server that has just started."""
    base = f"http://{settings.host}:{settings.port}"
    screen.print(
        f"""
The platform is running on {base} (stop it with Ctrl-C).

  1. A client for a till of the supermarket (in a second terminal):
       .venv/bin/coalition client create --partner market --scopes "members:read points:earn points:burn" --json
  2. A token for it:
       curl -s -u CLIENT_ID:CLIENT_SECRET -d grant_type=client_credentials {base}/oauth/token
  3. The first call:
       curl -s {base}/graphql -H "Authorization: Bearer TOKEN" -H "Content-Type: application/json" \\
         -d '{{"query": "{{ viewer {{ kind partner {{ name }} scopes }} }}"}}'

The README has the whole tour, to a closed month and its explained statement.""",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def serve() -> None:
    """Serve the GraphQL API and the OAuth server until stopped."""
    from api.server import serve as serve_app

    settings = load_settings()
    run(lambda runtime: serve_app(runtime, settings, lambda: say_where(settings)))


app.command()(worker)
app.command()(sweep)
app.command()(pending)
app.command()(expiring)
app.command()(debtors)
app.command()(outstanding)
app.command()(budgets)
app.command(name="top-up")(top_up)


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version."""
    from api.logs import configure_logging
    from api.runtime import migrate_now

    settings = load_settings()
    configure_logging(settings.log_level)
    typer.echo(f"schema {run_loop(migrate_now(settings))}")


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="The coalition as a TOML file.")],
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would change.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Create or change programme, partners, stores, terms, budgets and earn rules from a file."""
    from partners.apply import apply_coalition, plan_coalition
    from partners.coalition_file import parse_coalition

    parsed = parse_coalition(read_text(file))

    async def work(runtime: "Runtime") -> None:
        made = await plan_coalition(runtime.database, parsed, clock=runtime.clock)
        version = None
        if not as_json:
            show_plan(made.lines(), made.warnings)
        if not plan:
            applied = await apply_coalition(runtime.database, parsed, clock=runtime.clock)
            made, version = applied.plan, applied.version
        if as_json:
            print_json({**made.as_json(), "version": version})
        elif version is not None:
            typer.echo(f"configuration version {version}")

    run(work)


@app.command(name="campaigns")
def list_campaigns(as_json: JsonFlag = False) -> None:
    """List every campaign: what it gives, who pays, what is left of its own budget."""
    from api.campaigning import campaigns_table, describe_campaigns

    described = run(describe_campaigns)
    if as_json:
        print_json(described)
    else:
        Console().print(campaigns_table(described))


def read_text(file: Path) -> str:
    """A text file's content. Raises InputFileError when it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(f"{file} cannot be read: {error}") from error


def show_plan(lines: list[str], warnings: list[str]) -> None:
    """A plan for a person: changes on standard output, warnings beside them."""
    for line in lines:
        typer.echo(line)
    for warning in warnings:
        screen.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)


@app.command(name="import")
def import_file(
    file: Annotated[str, typer.Argument(help="The bulk file (CSV); - is standard input.")],
    booking: Annotated[str, typer.Option(help="now: book today; occurred: book where it happened.")] = "now",
    rejects: Annotated[Path | None, typer.Option(help="Where rejected rows go; default FILE.rejects.csv.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Post enrolments, purchases, payments, burns and returns from a bulk file."""
    from api.importing import import_bulk_file

    if booking not in {"now", "occurred"}:
        raise InputFileError(f"--booking is {booking!r}: give now or occurred")
    summary = run(lambda runtime: import_bulk_file(runtime, file, rejects, screen, is_history=booking == "occurred"))
    if as_json:
        print_json(summary.as_json())
    else:
        for name, value in summary.as_json().items():
            counted = ", ".join(f"{what} {rows}" for what, rows in value.items()) if isinstance(value, dict) else value
            typer.echo(f"{name}: {counted}".rstrip())


@export_app.command(name="transactions")
def export_transactions(
    file: Annotated[str, typer.Argument(help="The CSV file to write; - is standard output.")],
    first: Annotated[datetime, typer.Option("--from", formats=[DATE], help="First day.", metavar="YYYY-MM-DD")],
    last: Annotated[datetime, typer.Option("--to", formats=[DATE], help="Last day.", metavar="YYYY-MM-DD")],
    as_json: JsonFlag = False,
) -> None:
    """Write every movement of points with its money.

    Days are local dates of the programme, both inclusive, by when the purchase, burn or return occurred
    (occurred_at), whenever it was booked (recorded_at, period). One row a movement, ordered by command and id: the
    ledger's own numbers. Money has six decimals and is signed from the side of whose statement carries it (a charge
    is negative), pool_value from the pool's. The amount of a purchase, or of a return (positive), stands on the first
    row of its command. reverses is the id of the row that is taken back.
    """
    from api.export import export_transactions as export
    from api.importing import progress_bar

    with progress_bar(screen) as progress:
        task = progress.add_task("commands exported", total=None)
        done = run(
            lambda runtime: export(
                runtime,
                file,
                first.date(),
                last.date(),
                lambda written, total: progress.update(task, completed=written, total=total),
            )
        )
    if as_json:
        typer.echo(json.dumps(done.as_json()), err=file == "-")
    else:
        screen.print(f"{done.rows} rows of {done.commands} commands in {file}", markup=False, highlight=False)


@app.command()
def demo(
    months: Annotated[int, typer.Option(min=2, help="Calendar months to load, the running one included.")] = 3,
    as_is: Annotated[bool, typer.Option("--as-is", help="Keep the year 2017 of the data.")] = False,
    serve_after: Annotated[bool, typer.Option("--serve", help="Serve when loaded.")] = False,
    if_empty: Annotated[bool, typer.Option("--if-empty", help="Load only where there is no programme.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Load the demo coalition: real purchases through the real posting path, ended months closed but the last."""
    from api.demo.loading import load_demo
    from api.server import serve as serve_app

    settings = load_settings()

    async def work(runtime: "Runtime") -> None:
        if await runtime.configuration.current() is None or not if_empty:
            summary = await load_demo(runtime, months, screen, as_is=as_is)
            if as_json:
                print_json(summary.as_json())
        if serve_after:
            await serve_app(runtime, settings, lambda: say_where(settings))

    run(work)


@app.command()
def close(
    label: Annotated[str, typer.Argument(help="The period, such as 2017-03, 2017-03-H1 or 2017-W10.")],
    as_json: JsonFlag = False,
) -> None:
    """Close a settlement period: audit, statements, certificate."""
    from api.settling import close_and_describe, print_closed

    try:
        closed = run(lambda runtime: close_and_describe(runtime, label))
    except Refused as refused:
        if not as_json:
            raise
        print_json({"code": refused.code, "message": refused.message, "field": refused.field})
        raise typer.Exit(1) from refused
    if as_json:
        print_json(closed)
    else:
        print_closed(closed)


app.command()(payment)
app.command()(confirm_payment)
app.command()(due)
app.command()(deposit)
app.command()(deposits)
app.command()(proposals)
app.command()(disputes)
app.command()(transfer)
app.command()(merge)
app.command()(unmerge)


@app.command()
def verify(as_json: JsonFlag = False) -> None:
    """Re-run every invariant over the live data; exit status 1 when one fails."""
    from api.settling import verify_and_describe

    report = run(verify_and_describe)
    if as_json:
        print_json(report)
    else:
        for check in report["checks"]:
            typer.echo(
                f"{check['number']:>2} {'holds' if check['holds'] else 'FAILS'}  {check['name']}: {check['detail']}"
            )
    if not report["holds"]:
        raise typer.Exit(1)


@app.command()
def bench(
    only: Annotated[list[str] | None, typer.Option("--only", help="A figure to measure; repeat it for more.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes: shows that it runs, not how fast.")] = False,
    lively: Annotated[bool, typer.Option("--lively", help="With campaigns and pending points active.")] = False,
) -> None:
    """Measure this version against its bars, in a checkout: prints a table and writes bench.json."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / "tests" / "bench" / "command.py").is_file():
        raise ConfigurationError("the benchmarks are no part of the installed package: run `make bench` in a checkout")
    # The first of several packages called "tests" would be found otherwise.
    sys.path.insert(0, str(checkout))
    import_module("tests.bench.command").bench(only or (), quick=quick, lively=lively)


@client_app.command(name="create")
def create_client(
    scopes: Annotated[str, typer.Option(help="Scopes, separated by spaces.")],
    partner: Annotated[str | None, typer.Option(help="Code of the partner that the client belongs to.")] = None,
    operator: Annotated[bool, typer.Option("--operator", help="The client belongs to the operator.")] = False,
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Create a client; its secret is shown once."""
    from api.oauth.clients import create_client as create

    made = run(
        lambda runtime: create(
            runtime.database, runtime.clock, partner_code=partner, operator=operator, scopes=scopes.split(), name=name
        )
    )
    if as_json:
        print_json({"client_id": made.client_id, "client_secret": made.client_secret})
    else:
        typer.echo(f"client_id     {made.client_id}\nclient_secret {made.client_secret}")


@client_app.command(name="list")
def list_clients(as_json: JsonFlag = False) -> None:
    """List every client, revoked ones too."""
    from api.oauth.clients import list_clients as listed

    clients = run(lambda runtime: listed(runtime.database))
    rows = [
        {
            "client_id": client.client_id,
            "name": client.name,
            "partner": client.partner_code,
            "scopes": list(client.scopes),
            "created_at": client.created_at.isoformat(),
            "revoked_at": None if client.revoked_at is None else client.revoked_at.isoformat(),
        }
        for client in clients
    ]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table("client_id", "name", "partner", "scopes", "state")
    for row in rows:
        state = "revoked" if row["revoked_at"] else "in use"
        table.add_row(
            str(row["client_id"]),
            str(row["name"]),
            str(row["partner"] or "operator"),
            " ".join(row["scopes"] or ()),
            state,
        )
    Console().print(table)


@client_app.command(name="revoke")
def revoke_client(client_id: Annotated[str, typer.Argument(help="The client's id.")]) -> None:
    """Revoke a client and its tokens at once, in every running process."""
    from api.oauth.clients import revoke_client as revoke

    if not run(lambda runtime: revoke(runtime.database, runtime.clock, client_id)):
        raise ConfigurationError(f"there is no client {client_id}")
    typer.echo(f"{client_id} is revoked")


@schema_app.command(name="print")
def print_schema() -> None:
    """Print the GraphQL schema, sorted, as the snapshot has it."""
    from api.graphql.schema import printed_schema

    typer.echo(printed_schema(), nl=False)


@schema_app.command(name="diff")
def diff_schema(base: Annotated[Path, typer.Argument(help="An older schema file.")], as_json: JsonFlag = False) -> None:
    """Compare the served schema with a file; exit status 1 for a breaking change."""
    from api.graphql.schema import printed_schema
    from api.graphql.sdl import schema_changes

    breaking, dangerous = schema_changes(read_text(base), printed_schema())
    if as_json:
        print_json({"breaking": breaking, "dangerous": dangerous})
    else:
        for change in dangerous:
            typer.echo(f"dangerous: {change}")
        for change in breaking:
            typer.echo(f"breaking: {change}")
    if breaking:
        raise typer.Exit(1)

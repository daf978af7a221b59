"""Commands about members' accounts: transfers, pools, merges; what they do stands in ``api.accounting``."""

from typing import Annotated, Any, Literal

import typer

from api.terminal import JsonFlag, print_json, run

Named = "card:…, email:…, phone:… or id:…"
Key = Annotated[str, typer.Option(help="Idempotency key: sent again with it, a command is done once.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept with the command.")]
Role = Literal["HEAD", "MEMBER"]

pool_app = typer.Typer(help="Households: members who share one account.", no_args_is_help=True)


def transfer(
    source: Annotated[str, typer.Argument(metavar="FROM", help=f"Who gives: {Named}.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Who receives, named likewise.")],
    points: Annotated[int, typer.Argument(help="How many points.")],
    key: Key,
    reason: Reason = None,
    as_json: JsonFlag = False,
) -> None:
    """Move points from one member to another."""
    from api.accounting import transfer_and_describe

    _say(
        run(lambda runtime: transfer_and_describe(runtime, source, target, points, key=key, reason=reason)),
        f"{{points}} points moved from {source} to {target}",
        as_json=as_json,
    )


def merge(
    keep: Annotated[str, typer.Argument(help=f"Who stays: {Named}.")],
    duplicate: Annotated[str, typer.Argument(help="Who is the same person and is closed, named likewise.")],
    key: Key,
    reason: Reason = None,
    as_json: JsonFlag = False,
) -> None:
    """Let one member stand for another who is the same person."""
    from api.accounting import merge_and_describe

    _say(
        run(lambda runtime: merge_and_describe(runtime, keep, duplicate, key=key, reason=reason)),
        f"{keep} stands for {duplicate}; {{points}} points moved",
        as_json=as_json,
    )


def unmerge(
    merge_key: Annotated[str, typer.Argument(help="Key under which the merge was sent.")],
    key: Key,
    reason: Reason = None,
    as_json: JsonFlag = False,
) -> None:
    """Undo a merge, while none of the points that moved with it was used."""
    from api.accounting import unmerge_and_describe

    _say(
        run(lambda runtime: unmerge_and_describe(runtime, merge_key, key=key, reason=reason)),
        f"{merge_key} is undone; {{points}} points moved back",
        as_json=as_json,
    )


@pool_app.command()
def create(
    head: Annotated[str, typer.Argument(help=f"Who founds it and brings the first points: {Named}.")],
    key: Key,
    as_json: JsonFlag = False,
) -> None:
    """Found a pool."""
    from api.accounting import create_pool_and_describe

    _say_pool(run(lambda runtime: create_pool_and_describe(runtime, head, key=key)), as_json=as_json)


@pool_app.command()
def join(
    pool_of: Annotated[str, typer.Argument(metavar="POOL_OF", help=f"A member of the pool: {Named}.")],
    member: Annotated[str, typer.Argument(help="Who joins with its points, or whose role or limit changes.")],
    key: Key,
    role: Annotated[Role, typer.Option(help="A head burns without a limit.")] = "MEMBER",
    burn_limit: Annotated[int | None, typer.Option(help="Most points that it may burn of the pool in a day.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Take a member into a pool, or change its role and limit there."""
    from api.accounting import join_pool_and_describe

    joined = run(
        lambda runtime: join_pool_and_describe(runtime, pool_of, member, role=role, burn_limit=burn_limit, key=key)
    )
    _say_pool(joined, as_json=as_json)


@pool_app.command()
def leave(
    member: Annotated[str, typer.Argument(help=f"Who leaves: {Named}.")],
    key: Key,
    as_json: JsonFlag = False,
) -> None:
    """Let a member leave its pool; the points stay, unless it is the last one."""
    from api.accounting import leave_pool_and_describe

    _say_pool(run(lambda runtime: leave_pool_and_describe(runtime, member, key=key)), as_json=as_json)


@pool_app.command()
def show(
    member: Annotated[str, typer.Argument(help=f"Somebody who is in it: {Named}.")],
    as_json: JsonFlag = False,
) -> None:
    """Show who is in a pool, with roles and limits, and what it has."""
    from api.accounting import describe_pool

    found = run(lambda runtime: describe_pool(runtime, member))
    if as_json:
        print_json(found)
    else:
        _print_places(found)


def _say(done: dict[str, Any], said: str, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
    else:
        typer.echo(said.format(points=done["points"]) + (" (was done before)" if done["replayed"] else ""))


def _say_pool(done: dict[str, Any], *, as_json: bool) -> None:
    _say(done, "{points} points moved", as_json=as_json)
    if not as_json:
        _print_places(done)


def _print_places(found: dict[str, Any]) -> None:
    from api.proposing import print_rows

    places = found["pool"]["members"]
    rows = [{**place, "member": place["member"]["id"]} for place in places]
    typer.echo(f"{found['balance']['available']} points are available")
    print_rows(rows, ("member", "role", "burnLimit", "since"))

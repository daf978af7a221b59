"""What every command of the command line shares: the open database, JSON on standard output, the screen."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console

from api.settings import load_settings

if TYPE_CHECKING:  # what only some commands need is imported by them: help and completion answer at once
    from api.runtime import Runtime

Result = TypeVar("Result")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
DATE = "%Y-%m-%d"
screen = Console(stderr=True)


def run(work: "Callable[[Runtime], Awaitable[Result]]") -> Result:
    """Opens the database as the environment says, does the work, and gives everything back."""
    from api.logs import configure_logging
    from api.runtime import open_runtime

    settings = load_settings()
    configure_logging(settings.log_level)

    async def inside() -> Result:
        async with open_runtime(settings) as runtime:
            return await work(runtime)

    return run_loop(inside())


def run_loop(work: Awaitable[Result]) -> Result:
    """Runs a coroutine on uvloop where there is one."""
    from api.logs import watch_loop

    async def awaited() -> Result:
        watch_loop()
        return await work

    try:
        import uvloop
    except ImportError:
        return asyncio.run(awaited())
    return uvloop.run(awaited())


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))

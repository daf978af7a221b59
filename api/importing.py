"""Loading a bulk file through the real posting path, with progress and a reject file."""

import csv
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from api.bulk import REJECT_HEADER, Importer, Row, Summary, read_rows
from api.graphql.ids import IdCodec, load_installation_secret
from api.runtime import Runtime, long_lived_spared
from domain.commands import Refusal
from domain.errors import InputFileError
from domain.queue import PostingQueue

STANDARD_INPUT = "-"


async def import_bulk_file(
    runtime: Runtime, file: str, rejects: Path | None, screen: Console, *, is_history: bool
) -> Summary:
    """Posts a bulk file. ``is_history``: book rows into the periods in which they occurred.

    Raises InputFileError for a file that cannot be read; rows that cannot be posted go to the reject file.
    """
    await runtime.programme_configuration()
    if file == STANDARD_INPUT:
        return await _import(runtime, sys.stdin, rejects or Path("rejects.csv"), screen, is_history=is_history)
    path = Path(file)
    with _opened(path) as source:
        target = rejects or path.with_name(f"{path.name}.rejects.csv")
        return await _import(runtime, source, target, screen, is_history=is_history)


def _opened(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise InputFileError(f"{path} cannot be read: {error}") from error


async def _import(runtime: Runtime, source: TextIO, rejects: Path, screen: Console, *, is_history: bool) -> Summary:
    with _RejectFile(rejects) as reject_file:
        async with an_importer(runtime, reject_file.write, is_history=is_history) as importer:
            with progress_bar(screen) as progress:
                task = progress.add_task("rows posted", total=None)
                summary = await importer.run(
                    read_rows(source), lambda _: progress.update(task, completed=importer.summary.rows)
                )
    if summary.rejected:
        screen.print(
            f"{sum(summary.rejected.values())} rows rejected, see {rejects}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return summary


@asynccontextmanager
async def an_importer(
    runtime: Runtime, reject: Callable[[Row, Refusal], None], *, is_history: bool
) -> AsyncIterator[Importer]:
    """An importer on a posting queue of its own; ``reject`` takes what cannot be posted."""
    configuration = await runtime.programme_configuration()
    ids = IdCodec(await load_installation_secret(runtime.database))
    queue = PostingQueue(runtime.database, runtime.configuration, runtime.clock, is_history=is_history)
    queue.start()
    try:
        with long_lived_spared():
            yield Importer(queue, configuration, ids, reject)
    finally:
        await queue.stop()


class _RejectFile:
    """Rejected rows with line number, code and message; the file appears with the first one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        # What an earlier run rejected must not look like this run's.
        self._path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, row: Row, refusal: Refusal) -> None:
        """Adds one row."""
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8", newline="")
            csv.writer(self._file).writerow(REJECT_HEADER)
        csv.writer(self._file).writerow([row.line, refusal.code, refusal.message, *row.values])


def progress_bar(screen: Console) -> Progress:
    """Progress for a person at a terminal; elsewhere it leaves nothing."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=screen,
        disable=not screen.is_terminal,
    )

"""The ledger as a file: every movement of points with its money, streamed in one snapshot (DESIGN.md section 8)."""

import csv
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from api.runtime import Runtime
from domain.errors import InputFileError
from domain.periods import local_midnight
from domain.terms import Programme
from domain.values import OPERATOR_CODE, OPERATOR_ID, decimal_from_micro, decimal_from_minor

HEADER = (
    "command", "id", "kind", "partner", "funder", "store", "account", "reference", "idempotency_key", "occurred_at",
    "recorded_at", "period", "points", "amount", "currency", "issue_value", "service_fee", "reimbursement",
    "pool_value", "breakage_share", "reverses",
)  # fmt: skip

STANDARD_OUTPUT = "-"
PAGE_COMMANDS = 5_000
COMMANDS_MAX = 50_000_000
YEARS = range(1900, 9999)

COUNT_SQL = text(
    """
    SELECT count(*) FROM command WHERE occurred_at >= :opens_at AND occurred_at < :closes_at AND kind <> 'ENROLL'
    """
)

# Pages by id instead of a cursor: no statement sorts or holds the whole range, so none meets the time limit.
PAGE_SQL = text(
    """
    WITH page AS (
        SELECT id, reference, idempotency_key, occurred_at, recorded_at, period_id, amount_minor
          FROM command
         WHERE id > :after AND occurred_at >= :opens_at AND occurred_at < :closes_at AND kind <> 'ENROLL'
         ORDER BY id LIMIT :commands
    )
    SELECT page.id AS command_id, t.id, t.kind, coalesce(p.code, :operator) AS partner,
           CASE WHEN t.funder_id IS NOT NULL THEN coalesce(f.code, :operator) END AS funder,
           s.code AS store, t.account_id, page.reference, page.idempotency_key, page.occurred_at, page.recorded_at,
           d.label, t.points, page.amount_minor, t.issue_value_micro, t.service_fee_micro, t.reimbursement_micro,
           t.pool_value_micro, t.breakage_share_micro, t.reverses_id
      FROM page
      JOIN period AS d ON d.id = page.period_id
      LEFT JOIN transaction AS t ON t.command_id = page.id
      LEFT JOIN partner AS p ON p.id = t.partner_id
      LEFT JOIN partner AS f ON f.id = t.funder_id
      LEFT JOIN store AS s ON s.id = t.store_id
     ORDER BY page.id, t.id
    """
)


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote."""

    commands: int
    rows: int

    def as_json(self) -> dict[str, int]:
        """As the command line prints it."""
        return {"commands": self.commands, "rows": self.rows}


async def export_transactions(
    runtime: Runtime, file: str, first: date, last: date, progress: Callable[[int, int], None]
) -> Exported:
    """Writes every movement that occurred from ``first`` to ``last``, local dates of the programme, both inclusive.

    ``file`` "-" is standard output; another appears when it is complete. ``progress`` is told how many of how many
    commands are written. Raises InputFileError when the file cannot be written or the range is none.
    """
    if first > last:
        raise InputFileError(f"--from {first} is after --to {last}")
    if first.year not in YEARS or last.year not in YEARS:
        raise InputFileError(f"give dates between {YEARS[0]} and {YEARS[-1]}")
    programme = (await runtime.programme_configuration()).programme
    span = {
        "opens_at": local_midnight(first, programme.zone),
        "closes_at": local_midnight(last + timedelta(days=1), programme.zone),
    }
    async with runtime.database.reading(OPERATOR_ID, "REPEATABLE READ") as connection:
        total = int((await connection.execute(COUNT_SQL, span)).scalar_one())
        if total > COMMANDS_MAX:
            raise InputFileError(
                f"{total} commands in this range, at most {COMMANDS_MAX} in a file: export it in parts"
            )
        commands = rows = 0
        with _written(file) as target:
            writer = csv.writer(target, lineterminator="\n")
            writer.writerow(HEADER)
            async for page in _pages(connection, span):
                lines = list(_lines(page, programme))
                writer.writerows(lines)
                commands += len({row.command_id for row in page})
                rows += len(lines)
                progress(commands, total)
    return Exported(commands, rows)


async def _pages(connection: AsyncConnection, span: dict[str, datetime]) -> AsyncIterator[list[Row[Any]]]:
    after = -1
    while True:
        parameters = {**span, "after": after, "commands": PAGE_COMMANDS, "operator": OPERATOR_CODE}
        page = list(await connection.execute(PAGE_SQL, parameters))
        if not page:
            return
        yield page
        after = page[-1].command_id


def _lines(page: list[Row[Any]], programme: Programme) -> Iterator[tuple[object, ...]]:
    previous = None
    for row in page:
        if row.id is None:
            continue
        is_first = row.command_id != previous
        previous = row.command_id
        amount_minor = row.amount_minor if is_first else None
        yield (
            row.command_id,
            row.id,
            row.kind,
            row.partner,
            row.funder,
            row.store,
            row.account_id,
            row.reference,
            row.idempotency_key,
            _instant(row.occurred_at),
            _instant(row.recorded_at),
            row.label,
            row.points,
            None if amount_minor is None else decimal_from_minor(amount_minor, programme.currency_digits),
            programme.currency,
            _money(row.issue_value_micro),
            _money(row.service_fee_micro),
            _money(row.reimbursement_micro),
            _money(row.pool_value_micro),
            _money(row.breakage_share_micro),
            row.reverses_id,
        )


def _money(micro: int) -> str:
    # Formatted: the text of a small Decimal may be 0E-6.
    return f"{decimal_from_micro(micro):f}"


def _instant(instant: datetime) -> str:
    return f"{instant.replace(tzinfo=None).isoformat()}Z"


@contextmanager
def _written(file: str) -> Iterator[TextIO]:
    """A text file that appears under its name when the block has ended without an error, and not before."""
    path = Path(file).resolve()  # of a link, what it points to is replaced
    try:
        if file == STANDARD_OUTPUT:
            with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False) as target:
                yield target
        elif path.exists() and not path.is_file():
            # A pipe or a device: its readers are attached to it, and nothing may take its place.
            with path.open("w", encoding="utf-8", newline="") as target:
                yield target
        else:
            with _in_place_of(path) as target:
                yield target
    except OSError as error:
        raise InputFileError(f"{file} cannot be written: {error.strerror}") from error


@contextmanager
def _in_place_of(path: Path) -> Iterator[TextIO]:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise

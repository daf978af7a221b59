"""Loading the demo: the coalition, its purchases through the real posting path, and the closes of ended months."""

from collections.abc import Iterable

from rich.console import Console

from api.bulk import Row, Summary
from api.demo.data import COALITION_FILE, demo_rows
from api.importing import an_importer, progress_bar
from api.runtime import Runtime
from api.settling import CLOSE_KEY_PREFIX
from domain.commands import Refusal
from domain.errors import LedgerFault
from domain.values import OPERATOR_ID
from partners.apply import apply_coalition
from partners.coalition_file import parse_coalition
from settlement.closing import close_period
from settlement.reading import periods_page

DEMO_PERIODS_MAX = 100


async def load_demo(runtime: Runtime, months: int, screen: Console, *, as_is: bool) -> Summary:
    """Applies the demo coalition, posts its purchases, and closes every ended month loaded but the most recent.

    Answers what was posted.

    Raises LedgerFault when a row is refused: the demo's rows are ours.
    """
    parsed = parse_coalition(COALITION_FILE.read_text(encoding="utf-8"))
    await apply_coalition(runtime.database, parsed, clock=runtime.clock)
    configuration = await runtime.programme_configuration()
    zone = configuration.programme.zone
    now = runtime.clock()
    refused: list[str] = []

    def reject(row: Row, refusal: Refusal) -> None:
        refused.append(f"{row.values[1]}: {refusal.code}")

    with progress_bar(screen) as progress:
        task = progress.add_task(f"demo: {months} months of real purchases", total=None)
        rows: Iterable[Row] = (
            Row(number, row) for number, row in enumerate(demo_rows(now, months, zone, as_is=as_is), 2)
        )
        async with an_importer(runtime, reject, is_history=True) as importer:
            summary = await importer.run(rows, lambda _: progress.update(task, completed=importer.summary.rows))
    if refused:
        raise LedgerFault(f"{len(refused)} rows of the demo were refused, first {refused[0]}")
    screen.print(f"demo: {summary.as_json()}", markup=False, highlight=False, soft_wrap=True)
    await _close_ended(runtime, screen)
    return summary


async def _close_ended(runtime: Runtime, screen: Console) -> None:
    page = await periods_page(runtime.database, OPERATOR_ID, DEMO_PERIODS_MAX)
    ended = [period for period in page if period.closes_at <= runtime.clock() and period.state != "CLOSED"]
    # The most recent ended month is left open, for whoever wants to close one.
    for period in reversed(ended[1:]):
        closed = await close_period(runtime.database, runtime.clock, period.label, f"{CLOSE_KEY_PREFIX}{period.label}")
        assert closed.period.certificate is not None
        screen.print(
            f"demo: {period.label} closed, certificate {closed.period.certificate.sha256}",
            highlight=False,
            soft_wrap=True,
        )

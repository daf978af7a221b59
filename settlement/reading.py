"""What people and programs read of the settlement: periods, statements, lines, the commands behind a line.

Everything is read as the reading role for one viewer (a partner's id, or 0 for the operator), so that row-level
security bounds it. A closed period answers from what was stored; one that is not closed yet, from the running
positions: a draft, with the fixed fee and used floats once they are booked. Lists are batched by their parents' ids.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.database import Database
from domain.periods import Clock
from domain.positions import MONEY_LINES, LineKind
from domain.terms import PROGRAMME_SQL, Programme
from domain.values import OPERATOR_ID
from settlement.carrying import load_billing
from settlement.checks import NAMES, Check
from settlement.clearing import ClearingDates, clearing_dates
from settlement.lines import (
    LINE_ORDER,
    Outstanding,
    Positions,
    Settled,
    TaxPart,
    deposit_change_micro,
    draft_margin_micro,
    operator_amount_micro,
    settle,
    tax_micro,
)
from settlement.scan import positions_by_period


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a close proves: the hash over all of it, the hash of the close before, and every invariant's result.

    The details of checks are coalition figures, so a partner finds them empty.
    """

    sha256: str
    previous: str | None
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class SettlementPeriod:
    """A period; ``state`` is OPEN, CLOSING or CLOSED."""

    id: int
    label: str
    state: str
    opens_at: datetime
    closes_at: datetime
    closed_at: datetime | None
    certificate: Certificate | None
    dates: ClearingDates


@dataclass(frozen=True, slots=True)
class PeriodFigures:
    """The operator's side of a period: for the operator's eyes only. A draft until the period is closed."""

    operator_net_minor: int
    pool_change_micro: int
    margin_micro: int
    tax_micro: int
    receivable_change_micro: int
    deposit_change_micro: int
    is_draft: bool


@dataclass(frozen=True, slots=True)
class SettlementStatement:
    """One partner's statement of one period; amounts in minor units, the shortfall's value in micro-units.

    ``net_minor`` positive: the operator pays. ``due_minor`` is net with what was brought in less what is carried on;
    ``paid_minor`` what was paid of it, signed alike, ``written_off_minor`` what the partner was let off;
    ``withheld_minor`` what is not to be paid while it is disputed. A default covers it by ``deposit_used_minor`` and
    ``offset_minor`` (negative where it covered another one), ``recovered_minor`` came in of what was written off.
    ``document``: the canonical bytes, None while it is a draft.
    """

    period_id: int
    partner_id: int
    net_minor: int
    due_minor: int
    shortfall_points: int
    shortfall_value_micro: int
    document: bytes | None
    paid_minor: int
    written_off_minor: int
    carried_in_minor: int
    carried_on_minor: int
    withheld_minor: int
    recovered_minor: int = 0
    deposit_used_minor: int = 0
    offset_minor: int = 0
    outstanding: Outstanding | None = None
    """What the partner's own lots leave; None where this is not its final statement."""

    @property
    def to_pay_minor(self) -> int:
        """What is to be paid: what is due without what disputes withhold."""
        return self.due_minor - self.withheld_minor

    @property
    def open_minor(self) -> int:
        """What is left to pay, signed as due; of the other sign where too much was paid."""
        return self.to_pay_minor - self.paid_minor + self.covered_minor

    @property
    def covered_minor(self) -> int:
        """What of it is covered otherwise than by payments; negative where it covered another one."""
        return self.written_off_minor - self.recovered_minor + self.deposit_used_minor + self.offset_minor

    @property
    def carried_forward_minor(self) -> int:
        """What earlier statements left, less what this one leaves to the next: part of due, not of net."""
        return self.carried_in_minor - self.carried_on_minor

    @property
    def is_draft(self) -> bool:
        """Whether the period is not closed yet."""
        return self.document is None


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One line: exact in micro-units, billed in minor units, signed from the partner's side."""

    period_id: int
    partner_id: int
    kind: LineKind
    entries: int
    points: int | None
    exact_micro: int
    prior_exact_micro: int
    billed_minor: int


StatementKey = tuple[int, int]
"""Period id and partner id: which statement."""

_PERIOD_COLUMNS = (
    "id, label, state, opens_at, closes_at, closed_at, certificate, certificate_sha256, previous_sha256, advice_at,"
    " dispute_until, due_at"
)
PERIOD_BY_ID_SQL = text(f"SELECT {_PERIOD_COLUMNS} FROM period WHERE id = :id")  # noqa: S608 (a constant)
PERIOD_BY_LABEL_SQL = text(f"SELECT {_PERIOD_COLUMNS} FROM period WHERE label = :label")  # noqa: S608 (a constant)
PERIODS_SQL = text(
    f"SELECT {_PERIOD_COLUMNS} FROM period WHERE id < :before ORDER BY id DESC LIMIT :limit"  # noqa: S608 (a constant)
)
FIGURES_SQL = text(
    "SELECT id, operator_net_minor, pool_change_micro, margin_micro, tax_micro, receivable_change_micro,"
    " deposit_change_micro FROM period WHERE state = 'CLOSED' AND id = ANY(CAST(:period_ids AS integer[]))"
)
STATEMENTS_SQL = text(
    "SELECT s.period_id, s.partner_id, s.net_minor, s.due_minor, shortfall_points, shortfall_value_micro, document,"
    "       carried_in_minor, carried_on_minor,"
    "       b.paid_minor, b.written_off_minor, b.withheld_minor, b.recovered_minor, b.deposit_used_minor,"
    "       b.offset_minor, f.outstanding_points, f.outstanding_value_micro"
    "  FROM statement AS s JOIN statement_balance AS b USING (period_id, partner_id)"
    "  LEFT JOIN final_statement AS f USING (period_id, partner_id)"
    " WHERE s.period_id = ANY(CAST(:period_ids AS integer[])) ORDER BY s.period_id, s.partner_id"
)
LINES_SQL = text(
    """
    SELECT l.period_id, l.partner_id, l.kind, l.entries, l.points, l.exact_micro, l.prior_exact_micro, l.billed_minor
      FROM statement_line AS l
      JOIN unnest(CAST(:period_ids AS integer[]), CAST(:partner_ids AS integer[])) AS asked (period_id, partner_id)
        ON asked.period_id = l.period_id AND asked.partner_id = l.partner_id
    """
)
TAXES_SQL = text(
    """
    SELECT t.period_id, t.partner_id, t.kind, t.rate_ppm, t.taxable_minor, t.tax_minor
      FROM statement_tax AS t
      JOIN unnest(CAST(:period_ids AS integer[]), CAST(:partner_ids AS integer[])) AS asked (period_id, partner_id)
        ON asked.period_id = t.period_id AND asked.partner_id = t.partner_id
    """
)
DRAFT_POSITIONS_SQL = text(
    """
    SELECT q.period_id, q.partner_id, q.kind, q.entries, q.points, q.amount_micro, q.prior_amount_micro, q.hash_sum
      FROM position AS q JOIN period AS p ON p.id = q.period_id AND p.state <> 'CLOSED'
     WHERE q.period_id = ANY(CAST(:period_ids AS integer[]))
    """
)
NEXT_TO_CLOSE_SQL = text("SELECT min(id) FROM period WHERE state <> 'CLOSED'")
DRAFT_SHORTFALLS_SQL = text(
    """
    SELECT t.period_id, t.party_id, sum(t.shortfall_points), sum(t.shortfall_points * e.issue_price_micro)
      FROM transaction AS t
      JOIN period AS p ON p.id = t.period_id AND p.state <> 'CLOSED'
      JOIN terms AS e ON e.id = t.terms_id
     WHERE t.period_id = ANY(CAST(:period_ids AS integer[])) AND t.kind = 'EARN_REVERSAL' AND t.shortfall_points <> 0
     GROUP BY t.period_id, t.party_id
    """
)
NO_PERIOD_AFTER = 2**31 - 1

MOVEMENTS_OF_LINE = {
    line: tuple(kind for kind, lines in MONEY_LINES.items() if line in dict(lines)) for line in LineKind
}
"""Which movements a line sums: what "explain this line" looks for; none for the fixed fee, tax and adjustments."""


async def period_by_id(database: Database, viewer_id: int, period_id: int) -> SettlementPeriod | None:
    """The period with that ordinal, once it exists."""
    async with database.reading(viewer_id) as connection:
        return await _one_period(connection, viewer_id, PERIOD_BY_ID_SQL, {"id": period_id})


async def period_by_label(database: Database, viewer_id: int, label: str) -> SettlementPeriod | None:
    """The period with that label, such as "2017-03", once it exists."""
    async with database.reading(viewer_id) as connection:
        return await _one_period(connection, viewer_id, PERIOD_BY_LABEL_SQL, {"label": label})


async def current_period(database: Database, viewer_id: int, clock: Clock) -> SettlementPeriod | None:
    """The period that contains the clock's reading; None before anything was booked in it, or without a programme."""
    async with database.reading(viewer_id) as connection:
        programme = await _programme(connection)
        if programme is None:
            return None
        parameters = {"id": programme.calendar.containing(clock())}
        return await _one_period(connection, viewer_id, PERIOD_BY_ID_SQL, parameters)


async def periods_page(
    database: Database, viewer_id: int, limit: int, after_id: int | None = None
) -> list[SettlementPeriod]:
    """At most ``limit`` periods, latest first, from before ``after_id`` on."""
    parameters = {"before": NO_PERIOD_AFTER if after_id is None else after_id, "limit": limit}
    async with database.reading(viewer_id) as connection:
        programme = await _programme(connection)
        rows = [] if programme is None else (await connection.execute(PERIODS_SQL, parameters)).all()
    return [] if programme is None else [_period(viewer_id, row, programme) for row in rows]


async def _one_period(
    connection: AsyncConnection, viewer_id: int, statement: TextClause, parameters: Mapping[str, Any]
) -> SettlementPeriod | None:
    programme = await _programme(connection)
    row = None if programme is None else (await connection.execute(statement, parameters)).one_or_none()
    return None if row is None or programme is None else _period(viewer_id, row, programme)


def _period(viewer_id: int, row: Row[Any], programme: Programme) -> SettlementPeriod:
    certificate = None
    if row.certificate is not None:
        stored = row.certificate if isinstance(row.certificate, dict) else json.loads(row.certificate)
        certificate = Certificate(
            bytes(row.certificate_sha256).hex(),
            None if row.previous_sha256 is None else bytes(row.previous_sha256).hex(),
            tuple(
                Check(c["number"], NAMES[c["number"]], c["holds"], c["detail"] if viewer_id == OPERATOR_ID else "")
                for c in stored["checks"]
            ),
        )
    dates = clearing_dates(programme, row.closes_at, row.closed_at)
    if row.due_at is not None:
        dates = ClearingDates(row.advice_at, row.dispute_until, row.due_at)
    return SettlementPeriod(
        row.id, row.label, row.state, row.opens_at, row.closes_at, row.closed_at, certificate, dates
    )


async def _programme(connection: AsyncConnection) -> Programme | None:
    row = (await connection.execute(PROGRAMME_SQL)).one_or_none()
    return None if row is None else Programme(*row)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A period that is not closed: its positions so far, and its statements if it were closed now."""

    positions: Positions
    settled: list[Settled]
    currency_digits: int
    finals: Mapping[int, Outstanding]


async def _drafts(connection: AsyncConnection, period_ids: Sequence[int]) -> dict[int, _Draft]:
    """Those of the periods that are not closed and have something booked."""
    programme = await _programme(connection)
    if programme is None:
        return {}
    found = positions_by_period(await connection.execute(DRAFT_POSITIONS_SQL, {"period_ids": list(period_ids)}))
    next_to_close = (await connection.execute(NEXT_TO_CLOSE_SQL)).scalar() if found else None
    digits = programme.currency_digits
    drafts = {}
    for period_id, positions in found.items():
        # What a later draft will be left is not known before the earlier ones are closed.
        is_next = period_id == next_to_close
        billing = await load_billing(connection, programme, period_id, is_next=is_next)
        drafts[period_id] = _Draft(positions, settle(positions, digits, billing), digits, billing.finals)
    return drafts


async def period_figures(database: Database, period_ids: Sequence[int]) -> dict[int, PeriodFigures]:
    """The operator's figures of these periods. Coalition-wide, so the caller answers them to the operator only."""
    async with database.reading(OPERATOR_ID) as connection:
        stored = await connection.execute(FIGURES_SQL, {"period_ids": list(period_ids)})
        figures = {
            id_: PeriodFigures(int(net), int(pool), int(margin), int(tax), int(owed), int(paid_in), is_draft=False)
            for id_, net, pool, margin, tax, owed, paid_in in stored
        }
        drafts = await _drafts(connection, period_ids)
    nothing = PeriodFigures(0, 0, 0, 0, 0, 0, is_draft=True)
    for period_id in set(period_ids) - figures.keys():
        figures[period_id] = _draft_figures(drafts[period_id]) if period_id in drafts else nothing
    return figures


def _draft_figures(draft: _Draft) -> PeriodFigures:
    return PeriodFigures(
        -sum(one.net_minor for one in draft.settled),
        operator_amount_micro(draft.positions, LineKind.POOL),
        draft_margin_micro(draft.positions, draft.settled, draft.currency_digits),
        tax_micro(draft.settled),
        operator_amount_micro(draft.positions, LineKind.MEMBER_RECEIVABLE),
        deposit_change_micro(draft.settled),
        is_draft=True,
    )


async def statements_of_periods(
    database: Database, viewer_id: int, period_ids: Sequence[int]
) -> dict[int, list[SettlementStatement]]:
    """By period id, the statements that the viewer may see, by partner id."""
    parameters = {"period_ids": list(period_ids)}
    found: defaultdict[int, list[SettlementStatement]] = defaultdict(list)
    async with database.reading(viewer_id) as connection:
        for row in await connection.execute(STATEMENTS_SQL, parameters):
            found[row.period_id].append(
                SettlementStatement(
                    row.period_id,
                    row.partner_id,
                    int(row.net_minor),
                    int(row.due_minor),
                    int(row.shortfall_points),
                    int(row.shortfall_value_micro),
                    bytes(row.document),
                    int(row.paid_minor),
                    int(row.written_off_minor),
                    int(row.carried_in_minor),
                    int(row.carried_on_minor),
                    int(row.withheld_minor),
                    int(row.recovered_minor),
                    int(row.deposit_used_minor),
                    int(row.offset_minor),
                    None
                    if row.outstanding_points is None
                    else Outstanding(int(row.outstanding_points), int(row.outstanding_value_micro)),
                )
            )
        drafts = await _drafts(connection, period_ids)
        shortfalls = {
            (row[0], row[1]): (int(row[2]), int(row[3]))
            for row in await connection.execute(DRAFT_SHORTFALLS_SQL, parameters)
        }
    for period_id, draft in drafts.items():
        found[period_id] += [
            _draft_statement(period_id, one, draft, shortfalls.get((period_id, one.partner_id), (0, 0)))
            for one in draft.settled
        ]
    return {period_id: found[period_id] for period_id in period_ids}


def _draft_statement(period_id: int, one: Settled, draft: _Draft, shortfall: tuple[int, int]) -> SettlementStatement:
    return SettlementStatement(
        period_id,
        one.partner_id,
        one.net_minor,
        one.due_minor,
        *shortfall,
        document=None,
        paid_minor=0,
        written_off_minor=0,
        carried_in_minor=one.carried_in_minor,
        carried_on_minor=one.carried_on_minor,
        withheld_minor=0,
        outstanding=draft.finals.get(one.partner_id),
    )


async def lines_of_statements(
    database: Database, viewer_id: int, keys: Sequence[StatementKey]
) -> dict[StatementKey, list[StatementLine]]:
    """By statement, its lines in the order of their kinds."""
    wanted = set(keys)
    found: defaultdict[StatementKey, list[StatementLine]] = defaultdict(list)
    async with database.reading(viewer_id) as connection:
        rows = (await connection.execute(LINES_SQL, key_columns(keys))).all()
        drafts = await _drafts(connection, sorted({period_id for period_id, _ in keys}))
    for period_id, partner_id, kind, entries, points, *amounts in rows:
        whole_points = None if points is None else int(points)
        line = StatementLine(period_id, partner_id, LineKind(kind), entries, whole_points, *map(int, amounts))
        found[(period_id, partner_id)].append(line)
    for period_id, draft in drafts.items():
        for one in draft.settled:
            if (period_id, one.partner_id) in wanted:
                found[(period_id, one.partner_id)] = _draft_lines(period_id, one)
    order = list(LineKind)
    return {key: sorted(found[key], key=lambda line: order.index(line.kind)) for key in keys}


def _draft_lines(period_id: int, settled: Settled) -> list[StatementLine]:
    return [
        StatementLine(
            period_id,
            settled.partner_id,
            line.kind,
            line.entries,
            line.points,
            line.exact_micro,
            line.prior_exact_micro,
            line.billed_minor,
        )
        for line in settled.lines
    ]


async def taxes_of_statements(
    database: Database, viewer_id: int, keys: Sequence[StatementKey]
) -> dict[StatementKey, list[TaxPart]]:
    """By statement, the parts of its tax in the order of their kinds."""
    found: defaultdict[StatementKey, list[TaxPart]] = defaultdict(list)
    async with database.reading(viewer_id) as connection:
        rows = (await connection.execute(TAXES_SQL, key_columns(keys))).all()
        drafts = await _drafts(connection, sorted({period_id for period_id, _ in keys}))
    for period_id, partner_id, kind, rate_ppm, *amounts in rows:
        found[(period_id, partner_id)].append(TaxPart(LineKind(kind), rate_ppm, *map(int, amounts)))
    for period_id, draft in drafts.items():
        for one in draft.settled:
            found[(period_id, one.partner_id)] += one.taxes
    return {key: sorted(found[key], key=lambda tax: LINE_ORDER[tax.kind]) for key in keys}


def key_columns(keys: Sequence[StatementKey]) -> Mapping[str, list[int]]:
    """Periods and partners of statements as two arrays, the parameters of a statement that asks about all of them."""
    return {"period_ids": [key[0] for key in keys], "partner_ids": [key[1] for key in keys]}

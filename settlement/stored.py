"""Closed periods as stored: their statements made again, compared with what stands there (invariants 8, 14, 15)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.positions import LineKind
from domain.values import decimal_from_micro, decimal_from_minor, micro_per_minor
from settlement.checks import Check, check
from settlement.documents import PeriodFacts, Shortfall, Statement, make_statement
from settlement.lines import Billing, Outstanding, Positions, TaxPart, positions_of_movements, settle
from settlement.scan import LedgerScan

PARTNER_CODES_SQL = text("SELECT id, code FROM partner")
STATEMENTS_SQL = text(
    "SELECT period_id, partner_id, net_minor, due_minor, shortfall_points, shortfall_value_micro, document,"
    " carried_in_minor, carried_on_minor"
    "  FROM statement WHERE period_id = ANY(CAST(:period_ids AS integer[])) ORDER BY period_id, partner_id"
)
STATEMENT_LINES_SQL = text(
    "SELECT period_id, partner_id, kind, entries, points, exact_micro, prior_exact_micro, billed_minor"
    "  FROM statement_line WHERE period_id = ANY(CAST(:period_ids AS integer[])) ORDER BY period_id, partner_id, kind"
)
CLOSING_ENTRIES_SQL = text(
    "SELECT period_id, partner_id, kind, line_kind, sum(amount_micro) FROM partner_entry"
    " WHERE kind IN ('ROUNDING', 'TAX') AND period_id = ANY(CAST(:period_ids AS integer[]))"
    " GROUP BY period_id, partner_id, kind, line_kind"
)
TAXES_SQL = text(
    "SELECT period_id, partner_id, kind, rate_ppm, taxable_minor, tax_minor"
    "  FROM statement_tax WHERE period_id = ANY(CAST(:period_ids AS integer[])) ORDER BY period_id, partner_id, kind"
)
FINALS_SQL = text(
    "SELECT period_id, partner_id, outstanding_points, outstanding_value_micro"
    "  FROM final_statement WHERE period_id = ANY(CAST(:period_ids AS integer[]))"
)


class StoredLine(NamedTuple):
    """A row of ``statement_line`` without its keys."""

    entries: int
    points: int | None
    exact_micro: int
    prior_exact_micro: int
    billed_minor: int


class StoredStatement(NamedTuple):
    """A row of ``statement`` without its keys."""

    net_minor: int
    due_minor: int
    shortfall_points: int
    shortfall_value_micro: int
    document: bytes
    carried_in_minor: int
    carried_on_minor: int


Key = tuple[int, int]
"""Period id and partner id: which statement."""


class Stored(NamedTuple):
    """What stands of closed periods; rounding and tax are entries, signed from the partner's side."""

    statements: dict[Key, StoredStatement]
    lines: dict[Key, dict[LineKind, StoredLine]]
    rounding_micro: dict[Key, dict[LineKind, int]]
    taxes: dict[Key, dict[LineKind, TaxPart]]
    tax_micro: dict[Key, dict[LineKind, int]]
    finals: dict[Key, Outstanding]


async def load_stored(connection: AsyncConnection, period_ids: Sequence[int]) -> Stored:
    """Statements, lines and rounding entries of these periods."""
    parameters = {"period_ids": list(period_ids)}
    statements = {
        (row.period_id, row.partner_id): StoredStatement(
            int(row.net_minor),
            int(row.due_minor),
            int(row.shortfall_points),
            int(row.shortfall_value_micro),
            bytes(row.document),
            int(row.carried_in_minor),
            int(row.carried_on_minor),
        )
        for row in await connection.execute(STATEMENTS_SQL, parameters)
    }
    lines: defaultdict[Key, dict[LineKind, StoredLine]] = defaultdict(dict)
    for period_id, partner_id, kind, entries, points, *amounts in await connection.execute(
        STATEMENT_LINES_SQL, parameters
    ):
        line = StoredLine(entries, None if points is None else int(points), *map(int, amounts))
        lines[(period_id, partner_id)][LineKind(kind)] = line
    booked: dict[str, defaultdict[Key, dict[LineKind, int]]] = {
        "ROUNDING": defaultdict(dict),
        "TAX": defaultdict(dict),
    }
    for period_id, partner_id, kind, line_kind, amount in await connection.execute(CLOSING_ENTRIES_SQL, parameters):
        booked[kind][(period_id, partner_id)][LineKind(line_kind)] = int(amount)
    taxes: defaultdict[Key, dict[LineKind, TaxPart]] = defaultdict(dict)
    for period_id, partner_id, kind, rate_ppm, *amounts in await connection.execute(TAXES_SQL, parameters):
        taxes[(period_id, partner_id)][LineKind(kind)] = TaxPart(LineKind(kind), rate_ppm, *map(int, amounts))
    finals = {
        (period_id, partner_id): Outstanding(int(points), int(value_micro))
        for period_id, partner_id, points, value_micro in await connection.execute(FINALS_SQL, parameters)
    }
    return Stored(statements, lines, booked["ROUNDING"], taxes, booked["TAX"], finals)


async def partner_codes(connection: AsyncConnection) -> dict[int, str]:
    """Code of every partner, by id."""
    return {row[0]: row[1] for row in await connection.execute(PARTNER_CODES_SQL)}


def statements_of(
    period: PeriodFacts, positions: Positions, scan: LedgerScan, codes: dict[int, str], billing: Billing
) -> list[Statement]:
    """The period's statements from these positions, by partner id."""
    drawn, shortfalls = scan.drawn(period.id), scan.shortfalls(period.id)
    return [
        make_statement(
            period,
            settled,
            codes[settled.partner_id],
            drawn.get(settled.partner_id, ()),
            shortfalls.get(settled.partner_id, Shortfall()),
            billing.finals.get(settled.partner_id),
        )
        for settled in settle(positions, period.currency_digits, billing)
    ]


def billings_of(
    stored: Stored, minimums_minor: Mapping[int, int], finals: Mapping[int, Mapping[int, Outstanding]]
) -> dict[int, Billing]:
    """What each closed period's statements took beside its rows, by what was stored; keys are period ids, ascending.

    ``finals``: the final statements by the dates of partners and by the rows, with which those stored are compared.
    """
    billings = {}
    left: dict[int, int] = {}
    for period_id, minimum_minor in minimums_minor.items():
        rates = {
            (key[1], kind): tax.rate_ppm
            for key, parts in stored.taxes.items()
            if key[0] == period_id
            for kind, tax in parts.items()
        }
        billings[period_id] = Billing(dict(left), minimum_minor, rates, finals[period_id])
        left |= {key[1]: one.carried_on_minor for key, one in stored.statements.items() if key[0] == period_id}
    return billings


def check_stored(
    scan: LedgerScan,
    stored: Stored,
    periods: Iterable[PeriodFacts],
    codes: dict[int, str],
    billings: Mapping[int, Billing],
) -> list[Check]:
    """Invariants 8, 14 and 15 of these periods: everything is made again from the rows of the scan."""
    sums: list[str] = []
    residues: list[str] = []
    bytes_: list[str] = []
    for period in periods:
        positions = positions_of_movements(scan.sums(period.id), scan.entry_lines(period.id))
        made = {
            one.settled.partner_id: one for one in statements_of(period, positions, scan, codes, billings[period.id])
        }
        partner_ids = {partner_id for period_id, partner_id in stored.statements if period_id == period.id}
        for partner_id in sorted(made.keys() | partner_ids):
            where = f"statement of {codes.get(partner_id, partner_id)} for {period.label}"
            key = (period.id, partner_id)
            statement, again = stored.statements.get(key), made.get(partner_id)
            if statement is None or again is None:
                sums.append(f"{where} {'is missing' if statement is None else 'has no entries'}")
                continue
            lines = stored.lines.get(key, {})
            if stored.finals.get(key) != again.outstanding:
                sums.append(f"{where}: final with {stored.finals.get(key)} instead of {again.outstanding}")
            sums += _sum_problems(where, statement, lines, again, period.currency_digits)
            sums += _tax_problems(where, stored, key, again, period.currency_digits)
            residues += _residue_problems(where, lines, stored.rounding_micro.get(key, {}), period.currency_digits)
            if statement.document != again.document:
                bytes_.append(f"{where}: its bytes are not what its rows make")
    statements = f"{len(stored.statements)} statements"
    lines_ = f"{sum(len(lines) for lines in stored.lines.values())} lines"
    return [check(8, sums, lines_), check(14, residues, lines_), check(15, bytes_, statements)]


def _sum_problems(
    where: str, statement: StoredStatement, lines: dict[LineKind, StoredLine], again: Statement, digits: int
) -> list[str]:
    problems = []
    billed_minor = sum(line.billed_minor for kind, line in lines.items() if kind != LineKind.CARRIED_FORWARD)
    if statement.net_minor != billed_minor:
        net, billed = decimal_from_minor(statement.net_minor, digits), decimal_from_minor(billed_minor, digits)
        problems.append(f"{where}: net {net}, its lines sum to {billed}")
    if statement.due_minor != again.settled.due_minor:
        problems.append(f"{where}: due {decimal_from_minor(statement.due_minor, digits)}")
    carried = (again.settled.carried_in_minor, again.settled.carried_on_minor)
    if (statement.carried_in_minor, statement.carried_on_minor) != carried:
        problems.append(
            f"{where}: {statement.carried_in_minor} brought in and {statement.carried_on_minor} carried on instead of"
            f" {carried[0]} and {carried[1]}"
        )
    if statement[2:4] != (again.shortfall.points, again.shortfall.value_micro):
        problems.append(f"{where}: shortfall {statement.shortfall_points} instead of {again.shortfall.points}")
    from_rows = {
        line.kind: StoredLine(line.entries, line.points, line.exact_micro, line.prior_exact_micro, line.billed_minor)
        for line in again.settled.lines
    }
    problems += [
        f"{where}, line {kind}: {_line_text(lines.get(kind))} instead of {_line_text(from_rows.get(kind))}"
        for kind in sorted(lines.keys() | from_rows.keys())
        if lines.get(kind) != from_rows.get(kind)
    ]
    return problems


def _tax_problems(where: str, stored: Stored, key: Key, again: Statement, digits: int) -> list[str]:
    kept, made = stored.taxes.get(key, {}), {tax.kind: tax for tax in again.settled.taxes}
    booked = stored.tax_micro.get(key, {})
    per_minor = micro_per_minor(digits)
    problems = [
        f"{where}, tax on {kind}: {kept.get(kind)} instead of {made.get(kind)}"
        for kind in sorted(kept.keys() | made.keys())
        if kept.get(kind) != made.get(kind)
    ]
    for kind in sorted(booked.keys() | made.keys()):
        tax_micro = made[kind].tax_minor * per_minor if kind in made else 0
        if kind not in booked or booked[kind] != tax_micro:
            entered = decimal_from_micro(booked[kind]) if kind in booked else "nothing"
            problems.append(
                f"{where}, tax on {kind}: TAX has {entered}, the line makes {decimal_from_micro(tax_micro)}"
            )
    return problems


def _line_text(line: StoredLine | None) -> str:
    if line is None:
        return "no line"
    values: dict[str, Any] = line._asdict()
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _residue_problems(
    where: str, lines: dict[LineKind, StoredLine], rounding: dict[LineKind, int], digits: int
) -> list[str]:
    problems = []
    per_minor = micro_per_minor(digits)
    for kind in sorted(lines.keys() | rounding.keys()):
        line = lines.get(kind)
        residue_micro = 0 if line is None else line.exact_micro - line.billed_minor * per_minor
        # A tie leaves exactly half a minor unit; rounding half-even never leaves more.
        if 2 * abs(residue_micro) > per_minor:
            problems.append(f"{where}, line {kind}: residue {decimal_from_micro(residue_micro)}")
        booked_micro = -rounding.get(kind, 0)
        if booked_micro != residue_micro:
            booked, residue = decimal_from_micro(booked_micro), decimal_from_micro(residue_micro)
            problems.append(f"{where}, line {kind}: ROUNDING has {booked}, the line leaves {residue}")
    return problems

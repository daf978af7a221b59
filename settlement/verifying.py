"""``verify``: every invariant again over the live data and every closed period, with every hash recomputed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text

from domain.database import Database
from domain.periods import Clock
from domain.terms import PROGRAMME_SQL, Programme
from domain.values import decimal_from_micro
from settlement.checks import Check, check
from settlement.copies import copy_problems
from settlement.documents import PeriodFacts, close_digest, totals_facts
from settlement.finals import load_finals
from settlement.invariants import Scope, check_ledger
from settlement.lines import operator_totals, positions_of_movements, settle
from settlement.payments import check_payments
from settlement.scan import LedgerScan, scan_ledger
from settlement.seals import seal_problems
from settlement.stored import Stored, billings_of, check_stored, load_stored, partner_codes
from settlement.tenancy import WHEN_VERIFYING, check_tenancy


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Result of a verification: one check per invariant over everything, and the closed periods made again."""

    verified_at: datetime
    checks: tuple[Check, ...]
    closed_labels: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every invariant holds."""
        return all(check.holds for check in self.checks)


NO_MONEY = str(decimal_from_micro(0))
"""What a certificate that was made before a figure existed says of it."""

PERIODS_SQL = text(
    """
    SELECT id, label, opens_at, closes_at, state, pool_micro, pool_change_micro, margin_micro, operator_net_minor,
           certificate, certificate_sha256, previous_sha256, minimum_minor, tax_micro,
           receivable_change_micro, deposit_change_micro
      FROM period ORDER BY id
    """
)


async def verify(database: Database, clock: Clock) -> VerifyReport:
    """Recomputes everything in one snapshot; a database without a programme holds trivially."""
    async with database.posting("REPEATABLE READ") as connection:
        row = (await connection.execute(PROGRAMME_SQL)).one_or_none()
        if row is None:
            return VerifyReport(clock(), (), ())
        programme = Programme(*row)
        periods = (await connection.execute(PERIODS_SQL)).all()
        closed = [period for period in periods if period.state == "CLOSED"]
        scan = await scan_ledger(database, connection, None)
        stored = await load_stored(connection, [period.id for period in closed])
        finals = {period.id: await load_finals(connection, programme, period.id) for period in closed}
        billings = billings_of(stored, {period.id: int(period.minimum_minor) for period in closed}, finals)
        scope = Scope(
            None,
            tuple(period.id for period in periods),
            programme.currency_digits,
            {period.id: (int(period.pool_micro), _stated_points(period)) for period in closed},
            billings,
        )
        checks = await check_ledger(connection, scan, scope)
        codes = await partner_codes(connection)
        checks.append(await check_payments(connection, programme.currency_digits))
        checks.append(await check_tenancy(database, connection, len(periods), WHEN_VERIFYING))
        beside = [await copy_problems(connection), await seal_problems(connection)]
    facts = [
        PeriodFacts(p.id, p.label, p.opens_at, p.closes_at, programme.currency, programme.currency_digits)
        for p in closed
    ]
    checks += check_stored(scan, stored, facts, codes, billings)
    extra = {
        6: [place for period in closed for place in _figure_problems(period, scan, scope)],
        9: _chain_problems(closed, scan, stored),
    }
    problems = {
        one.number: [place for found in (extra, *beside) for place in found.get(one.number, [])] for one in checks
    }
    merged = sorted((_with_problems(one, problems[one.number]) for one in checks), key=lambda one: one.number)
    return VerifyReport(clock(), tuple(merged), tuple(period.label for period in closed))


def _with_problems(one: Check, problems: Iterable[str]) -> Check:
    found = [*([] if one.holds else [one.detail]), *problems]
    return check(one.number, found, one.detail) if found else one


def _stated_points(period: Row[Any]) -> int:
    return int(_certificate(period)["totals"]["outstanding_points"])


def _certificate(period: Row[Any]) -> dict[str, Any]:
    stored = period.certificate
    certificate: dict[str, Any] = stored if isinstance(stored, dict) else json.loads(stored)
    return certificate


def _figure_problems(period: Row[Any], scan: LedgerScan, scope: Scope) -> list[str]:
    """The period's stored figures that are not what its rows make."""
    digits = scope.currency_digits
    entry_lines = scan.entry_lines(period.id)
    positions = positions_of_movements(scan.sums(period.id), entry_lines)
    totals = operator_totals(scan.sums(period.id), entry_lines, settle(positions, digits, scope.billings[period.id]))
    pool_micro = sum(group.pool_value_micro for group in scan.movements if group.period_id <= period.id)
    points = sum(group.pool_points for group in scan.movements if group.period_id <= period.id)
    figures = {
        "operator net": (period.operator_net_minor, totals.operator_net_minor),
        "pool change": (period.pool_change_micro, totals.pool_change_micro),
        "margin": (period.margin_micro, totals.margin_micro),
        "tax": (period.tax_micro, totals.tax_micro),
        "member receivable change": (period.receivable_change_micro, totals.receivable_change_micro),
        "deposit change": (period.deposit_change_micro, totals.deposit_change_micro),
    }
    problems = [
        f"period {period.label}: stored {name} {int(a)} instead of {b}" for name, (a, b) in figures.items() if a != b
    ]
    certified, again = _certificate(period)["totals"], totals_facts(totals, pool_micro, points, digits)
    # Pool and points left are invariants 5 and 4.
    problems += [
        f"period {period.label}: the certificate says {name} {certified.get(name)} instead of {value}"
        for name, value in again.items()
        if name not in ("pool", "outstanding_points") and certified.get(name, NO_MONEY) != value
    ]
    return problems


def _chain_problems(closed: Sequence[Row[Any]], scan: LedgerScan, stored: Stored) -> list[str]:
    """Closed periods whose statements, positions and totals no longer make their certificate's hash."""
    problems = []
    previous: bytes | None = None
    for period in closed:
        if period.previous_sha256 != previous:
            problems.append(f"period {period.label} does not follow the close before it")
        documents = [statement.document for key, statement in sorted(stored.statements.items()) if key[0] == period.id]
        digest = close_digest(
            period.label,
            period.previous_sha256,
            _certificate(period)["totals"],
            scan.positions.get(period.id, {}).values(),
            documents,
        )
        if digest != period.certificate_sha256:
            problems.append(f"period {period.label}: its statements, positions or totals are not what was certified")
        previous = period.certificate_sha256
    return problems

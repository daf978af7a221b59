"""Closing a period, in three transactions, so that tills never wait for the audit (DESIGN.md section 5).

    (a) alone on the period: it has ended and is the next to close; fixed fees, used floats; CLOSING. Tills go on into
        the next one.
    (b) one REPEATABLE READ snapshot: audit, every invariant, statements.
    (c) statements, lines, rounding, the checks of what was just stored, certificate; CLOSED.

Whatever fails after (a) leaves CLOSING, and closing again goes on from there: nothing of (b) or (c) was kept.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.batch import KEY_MAX_CHARACTERS
from domain.database import (
    CLOSING_LOCK_CLASS,
    CONFIGURATION_LOCK_CLASS,
    LOCK_TIMEOUT,
    PERIOD_LOCK_CLASS,
    Database,
    sqlstate,
)
from domain.endings import has_ended, programme_final_id
from domain.errors import RefusalCode, Refused
from domain.ledger import ensure_periods
from domain.members import is_clean_text
from domain.periods import Clock, PeriodSpan, local_date
from domain.positions import Contribution, LineKind
from domain.terms import PROGRAMME_SQL, Configuration, Programme, in_force, load_configuration
from domain.values import OPERATOR_ID, micro_per_minor
from domain.writing import add_positions
from settlement.carrying import load_billing
from settlement.checks import Check
from settlement.clearing import clearing_dates
from settlement.documents import PeriodFacts, Statement, close_digest, position_facts, totals_facts
from settlement.invariants import Scope, check_ledger
from settlement.lines import Billing, OperatorTotals, operator_totals
from settlement.payments import check_payments
from settlement.prepaid import credit_floats
from settlement.reading import SettlementPeriod, period_by_id
from settlement.scan import LedgerScan, scan_ledger
from settlement.stored import check_stored, load_stored, partner_codes, statements_of
from settlement.tenancy import AT_A_CLOSE, check_tenancy
from settlement.writing import PartnerEntry, close_row, write_entries, write_statements

_log = logging.getLogger(__name__)

WAIT_SECONDS = 60
"""How long a close waits for another one that is at work."""

INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ClosedPeriod:
    """Answer to a close: the period with its certificate, and whether it had been closed before."""

    period: SettlementPeriod
    replayed: bool


GATE_SQL = text(f"SELECT pg_try_advisory_xact_lock({CLOSING_LOCK_CLASS}, 0)")
TAKE_PERIOD_SQL = text(
    f"SELECT pg_advisory_xact_lock_shared({CONFIGURATION_LOCK_CLASS}, 0),"
    f" pg_advisory_xact_lock({PERIOD_LOCK_CLASS}, :id)"
)
STATE_SQL = text("SELECT state FROM period WHERE id = :id")
STATE_FOR_CLOSE_SQL = text("SELECT state FROM period WHERE id = :id FOR UPDATE")
KEY_USE_SQL = text("SELECT label FROM period WHERE close_key = :key AND id <> :id")
LAST_CLOSED_SQL = text("SELECT max(id) FROM period WHERE state = 'CLOSED'")
POINTS_OPEN_SQL = text("SELECT EXISTS (SELECT FROM account WHERE available > 0 OR held > 0 OR pending > 0)")
HAS_HISTORY_SQL = text("SELECT EXISTS (SELECT FROM period WHERE imported)")
FIRST_BOOKED_SQL = text(
    """
    SELECT min(p.id) FROM period AS p
     WHERE EXISTS (SELECT FROM command AS c WHERE c.period_id = p.id)
        OR EXISTS (SELECT FROM position AS q WHERE q.period_id = p.id)
    """
)
START_CLOSING_SQL = text("UPDATE period SET state = 'CLOSING', close_key = :key WHERE id = :id")
CLOSED_BEFORE_SQL = text(
    """
    SELECT id, pool_micro, (certificate -> 'totals' ->> 'outstanding_points')::numeric AS points, certificate_sha256
      FROM period WHERE state = 'CLOSED' ORDER BY id
    """
)


async def close_period(database: Database, clock: Clock, label: str, key: str) -> ClosedPeriod:
    """Closes the period with that label, or finds it closed.

    Raises Refused: INPUT_INVALID (the key), PERIOD_NOT_FOUND (no label, or before the first period), PERIOD_NOT_ENDED,
    EARLIER_PERIOD_OPEN, IDEMPOTENCY_CONFLICT (the key closed another period), AUDIT_FAILED naming the places (the
    period stays CLOSING; close again when they are repaired), OVERLOADED (another close is at work for too long),
    POINTS_OPEN (the programme ended).
    """
    if not is_clean_text(key, KEY_MAX_CHARACTERS):
        message = f"an idempotency key has 1 to {KEY_MAX_CHARACTERS} printable characters"
        raise Refused(RefusalCode.INPUT_INVALID, message, "idempotencyKey")
    period_id = await _period_labelled(database, label)
    for _ in range(WAIT_SECONDS):
        async with database.posting() as gate:
            configuration = await _checked(gate, clock, period_id, key)
            if configuration is None:
                return await _closed(database, period_id, replayed=True)
            if (await gate.execute(GATE_SQL)).scalar_one():
                return await _close(database, clock, configuration.programme.calendar.span(period_id), key)
        # Whoever waits gives the connection back meanwhile: the tills need it.
        await asyncio.sleep(1)
    raise Refused(RefusalCode.OVERLOADED, "another close is at work; close again with the same key")


async def _period_labelled(database: Database, label: str) -> int:
    """Ordinal of the period with that label. Raises Refused, also before the first ``coalition apply``."""
    async with database.posting() as connection:
        row = (await connection.execute(PROGRAMME_SQL)).one_or_none()
    if row is None:
        raise Refused(RefusalCode.PERIOD_NOT_FOUND, "there is no period before a coalition is applied", "label")
    calendar = Programme(*row).calendar
    period_id = calendar.labelled(label)
    if period_id is None:
        message = f'a period is named by its label, such as "{calendar.label_example}"'
        raise Refused(RefusalCode.PERIOD_NOT_FOUND, message, "label")
    return period_id


async def _close(database: Database, clock: Clock, span: PeriodSpan, key: str) -> ClosedPeriod:
    async with database.posting() as connection:
        # An empty period may have no row yet; it is committed before a lock on it means anything.
        await ensure_periods(connection, [span])
    period = await _start(database, clock, span, key)
    if period is not None:
        await _finish(database, clock, await _audit(database, period))
    return await _closed(database, span.id, replayed=period is None)


async def _closed(database: Database, period_id: int, *, replayed: bool) -> ClosedPeriod:
    period = await period_by_id(database, OPERATOR_ID, period_id)
    assert period is not None
    return ClosedPeriod(period, replayed)


# ---------------------------------------------------------------- the period is taken


async def _start(database: Database, clock: Clock, span: PeriodSpan, key: str) -> PeriodFacts | None:
    """Transaction (a), or nothing of it when it was done before; None when the period was closed meanwhile."""
    try:
        async with database.posting() as connection:
            await connection.execute(TAKE_PERIOD_SQL, {"id": span.id})
            # A new statement: what was read before the lock may have changed while waiting for it.
            configuration = await _checked(connection, clock, span.id, key)
            if configuration is None:
                return None
            if (await connection.execute(STATE_SQL, {"id": span.id})).scalar_one() == "OPEN":
                await _book_fixed_fees(connection, clock, configuration, span)
                await credit_floats(connection, span.id, clock())
                await connection.execute(START_CLOSING_SQL, {"id": span.id, "key": key})
    except DBAPIError as error:
        if sqlstate(error) == LOCK_TIMEOUT:
            message = "postings hold the period for too long; close again with the same key"
            raise Refused(RefusalCode.OVERLOADED, message) from error
        raise
    programme = configuration.programme
    return PeriodFacts(
        span.id, span.label, span.opens_at, span.closes_at, programme.currency, programme.currency_digits
    )


async def _checked(connection: AsyncConnection, clock: Clock, period_id: int, key: str) -> Configuration | None:
    """The configuration when the period may be closed now, None when it is closed. Raises Refused."""
    used_for = (await connection.execute(KEY_USE_SQL, {"key": key, "id": period_id})).scalar()
    if used_for is not None:
        message = f"this key closed {used_for}; another period needs another key"
        raise Refused(RefusalCode.IDEMPOTENCY_CONFLICT, message, "idempotencyKey")
    if (await connection.execute(STATE_SQL, {"id": period_id})).scalar() == "CLOSED":
        return None
    configuration = await load_configuration(connection)
    next_id = None if configuration is None else await _next_to_close(connection, configuration)
    if configuration is None or next_id is None or period_id < next_id:
        message = "there is no such period: it lies before the coalition's first contract terms or first booking"
        raise Refused(RefusalCode.PERIOD_NOT_FOUND, message, "label")
    calendar = configuration.programme.calendar
    span = calendar.span(period_id)
    if clock() < span.closes_at:
        message = f"{span.label} ends at {span.closes_at.astimezone(calendar.zone).isoformat()}"
        raise Refused(RefusalCode.PERIOD_NOT_ENDED, message, "label")
    last_id = programme_final_id(configuration.programme)
    if last_id is not None and period_id >= last_id and (await connection.execute(POINTS_OPEN_SQL)).scalar_one():
        message = (
            "the programme ended, and points are open still: run `coalition sweep`, or let the worker, and try again"
        )
        raise Refused(RefusalCode.POINTS_OPEN, message, "label")
    if next_id < period_id:
        message = f"{calendar.label(next_id)} is to be closed first"
        raise Refused(RefusalCode.EARLIER_PERIOD_OPEN, message, "label")
    return configuration


async def _next_to_close(connection: AsyncConnection, configuration: Configuration) -> int | None:
    """The period after the last closed one; else the first: of the earliest terms, or of the history imported."""
    last_closed = (await connection.execute(LAST_CLOSED_SQL)).scalar()
    if last_closed is not None:
        return int(last_closed) + 1
    if (await connection.execute(HAS_HISTORY_SQL)).scalar_one():
        first: int | None = (await connection.execute(FIRST_BOOKED_SQL)).scalar()
        if first is not None:
            return first
    starts = configuration.first_terms_from
    return None if starts is None else configuration.programme.calendar.ordinal(starts)


async def _book_fixed_fees(
    connection: AsyncConnection, clock: Clock, configuration: Configuration, span: PeriodSpan
) -> None:
    # Once, not prorated, for whoever's terms cover the period's last instant, suspended partners included, those that
    # left before it not, and nobody once the programme ended.
    if has_ended(configuration.programme, span.closes_at - INSTANT):
        return
    day = local_date(span.closes_at - INSTANT, configuration.programme.zone)
    in_force_then = [
        in_force(versions, day)
        for partner_id, versions in configuration.terms.items()
        if not configuration.partners[partner_id].has_left(day)
    ]
    fees = [terms for terms in in_force_then if terms is not None and terms.fixed_fee_micro]
    booked = await write_entries(
        connection,
        span.id,
        clock(),
        [(fee.partner_id, "FIXED_FEE", None, -fee.fixed_fee_micro, fee.id) for fee in fees],
    )
    await add_positions(
        connection,
        [
            (span.id, Contribution(partner_id, LineKind.FIXED_FEE, 1, 0, amount_micro, 0, row_hash))
            for partner_id, amount_micro, row_hash in booked
        ],
    )


# ---------------------------------------------------------------- the audit


@dataclass(frozen=True, slots=True)
class Audited:
    """What (b) found right and worked out; kept in memory until (c) stores it."""

    period: PeriodFacts
    programme: Programme
    billing: Billing
    scan: LedgerScan
    checks: list[Check]
    statements: list[Statement]
    totals: OperatorTotals
    codes: dict[int, str]
    pool_micro: int
    outstanding_points: int
    previous: bytes | None


async def _audit(database: Database, period: PeriodFacts) -> Audited:
    async with database.posting("REPEATABLE READ") as connection:
        before = (await connection.execute(CLOSED_BEFORE_SQL)).all()
        left = {row.id: (int(row.pool_micro), int(row.points)) for row in before}
        scan = await scan_ledger(database, connection, period.id)
        programme = Programme(*(await connection.execute(PROGRAMME_SQL)).one())
        billing = await load_billing(connection, programme, period.id)
        scope = Scope(period.id, (period.id,), period.currency_digits, left, {period.id: billing})
        checks = await check_ledger(connection, scan, scope)
        checks.append(await check_tenancy(database, connection, period.id, AT_A_CLOSE))
        codes = await partner_codes(connection)
    _require(period, checks)
    statements = statements_of(period, scan.positions.get(period.id, {}), scan, codes, billing)
    sums = scan.sums(period.id)
    totals = operator_totals(sums, scan.entry_lines(period.id), [one.settled for one in statements])
    pool_before_micro, points_before = scope.left_before(period.id)
    return Audited(
        period,
        programme,
        billing,
        scan,
        checks,
        statements,
        totals,
        codes,
        pool_before_micro + totals.pool_change_micro,
        points_before + sum(group.pool_points for group in sums),
        bytes(before[-1].certificate_sha256) if before else None,
    )


def _require(period: PeriodFacts, checks: Sequence[Check]) -> None:
    failed = [check for check in checks if not check.holds]
    if failed:
        places = ". ".join(f"Invariant {check.number} ({check.name}): {check.detail}" for check in failed)
        _log.error("audit of %s failed: %s", period.label, places)
        raise Refused(RefusalCode.AUDIT_FAILED, f"{period.label} stays CLOSING. {places}", "label")


# ---------------------------------------------------------------- the end


async def _finish(database: Database, clock: Clock, audited: Audited) -> None:
    period = audited.period
    async with database.posting() as connection:
        state = (await connection.execute(STATE_FOR_CLOSE_SQL, {"id": period.id})).scalar_one()
        assert state == "CLOSING", "the gate lets one close work at a time"
        await write_statements(connection, period.id, audited.statements)
        await write_entries(
            connection,
            period.id,
            clock(),
            [
                (one.settled.partner_id, "ROUNDING", line.kind.value, -line.residue_micro, None)
                for one in audited.statements
                for line in one.settled.lines
                if line.residue_micro
            ],
        )
        await write_entries(connection, period.id, clock(), _tax_entries(audited))
        stored = await load_stored(connection, [period.id])
        checks = [
            *audited.checks,
            *check_stored(audited.scan, stored, [period], audited.codes, {period.id: audited.billing}),
            await check_payments(connection, period.currency_digits),
        ]
        _require(period, checks)
        certificate, digest = _certificate(audited, checks)
        closed_at = clock()
        await close_row(
            connection,
            {
                "id": period.id,
                "closed_at": closed_at,
                **asdict(clearing_dates(audited.programme, period.closes_at, closed_at)),
                "minimum_minor": audited.billing.minimum_minor,
                "pool_micro": str(audited.pool_micro),
                "pool_change_micro": str(audited.totals.pool_change_micro),
                "margin_micro": str(audited.totals.margin_micro),
                "tax_micro": str(audited.totals.tax_micro),
                "receivable_change_micro": str(audited.totals.receivable_change_micro),
                "deposit_change_micro": str(audited.totals.deposit_change_micro),
                "operator_net_minor": str(audited.totals.operator_net_minor),
                "certificate": json.dumps(certificate),
                "sha256": digest,
                "previous": audited.previous,
            },
        )


def _tax_entries(audited: Audited) -> list[PartnerEntry]:
    per_minor = micro_per_minor(audited.period.currency_digits)
    return [
        (one.settled.partner_id, "TAX", tax.kind.value, tax.tax_minor * per_minor, None)
        for one in audited.statements
        for tax in one.settled.taxes
    ]


def _certificate(audited: Audited, checks: Sequence[Check]) -> tuple[dict[str, Any], bytes]:
    period, statements = audited.period, audited.statements
    totals = totals_facts(audited.totals, audited.pool_micro, audited.outstanding_points, period.currency_digits)
    positions = list(audited.scan.positions.get(period.id, {}).values())
    digest = close_digest(period.label, audited.previous, totals, positions, [one.document for one in statements])
    certificate = {
        "period": period.label,
        "previous": None if audited.previous is None else audited.previous.hex(),
        "sha256": digest.hex(),
        "checks": [
            {"number": check.number, "name": check.name, "holds": check.holds, "detail": check.detail}
            for check in sorted(checks, key=lambda check: check.number)
        ],
        "totals": totals,
        "statements": [{"partner": one.partner_code, "sha256": one.sha256} for one in statements],
        "positions": position_facts(positions),
    }
    return certificate, digest

"""Default: due statements that their partner does not pay are covered, in an order that does not vary (c.2).

One statement, or every one that is due, the oldest first. First what the operator owes the partner of other statements
(both sides are the partner's account: no entry), then its deposit (DEPOSIT_USED, DEPOSIT against PARTNER), and the rest
is bad debt (BAD_DEBT against PARTNER), the operator's loss as everybody's central counterparty: outside of the margin.
One client proposes, another approves, which books it in the open period. What was disputed of a statement stays
withheld, and is not covered.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.booking import OpenPeriod
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.periods import Clock
from domain.proposals import Content, Decision, ProposalKind, ProposalReason, Step
from domain.proposing import add_proposal, check_key, proposal_by_key
from domain.terms import Programme
from domain.values import decimal_from_minor, micro_per_minor
from settlement.approving import approve_in_open_period
from settlement.clearing import ClearingDates, StatementState, clearing_dates, statement_state
from settlement.deposit_reading import deposit_accounts
from settlement.inputs import known_configuration, known_partner, labelled_period, lock_partner
from settlement.writing import write_entry


class DefaultAsk(NamedTuple):
    """Which closed statement a client wants declared in default, and why; ``label`` None: every one that is due."""

    partner_id: int | None
    label: str | None
    reason: ProposalReason
    note: str


class Covering(NamedTuple):
    """What covers a debt, in micro-units: parts of other statements by period id, the deposit, the operator."""

    offsets: tuple[tuple[int, int], ...]
    deposit_micro: int
    bad_debt_micro: int


def waterfall(owed_micro: int, credits_micro: Iterable[tuple[int, int]], held_micro: int) -> Covering:
    """Covers a debt out of credits (period id, amount) in their order, then out of the deposit; the rest is lost."""
    left_micro, offsets = owed_micro, []
    for period_id, credit_micro in credits_micro:
        taken_micro = min(left_micro, credit_micro)
        if taken_micro > 0:
            offsets.append((period_id, taken_micro))
            left_micro -= taken_micro
    deposit_micro = min(left_micro, held_micro)
    return Covering(tuple(offsets), deposit_micro, left_micro - deposit_micro)


def cover(
    debts_micro: Iterable[tuple[int, int]], credits_micro: Iterable[tuple[int, int]], held_micro: int
) -> list[tuple[int, Covering]]:
    """Covers debts (period id, amount) in their order, each by what those before it left."""
    left_micro, found = dict(credits_micro), []
    for period_id, owed_micro in debts_micro:
        covering = waterfall(owed_micro, left_micro.items(), held_micro)
        held_micro -= covering.deposit_micro
        for credit_id, taken_micro in covering.offsets:
            left_micro[credit_id] -= taken_micro
        found.append((period_id, covering))
    return found


STATEMENTS_SQL = text(
    """
    SELECT b.period_id, b.open_minor, b.due_minor - b.withheld_minor AS to_pay_minor, p.closes_at, p.closed_at,
           p.advice_at, p.dispute_until, p.due_at
      FROM statement_balance AS b JOIN period AS p ON p.id = b.period_id AND p.state = 'CLOSED'
     WHERE b.partner_id = :partner_id
       AND (CAST(:period_id AS integer) IS NULL OR b.period_id = CAST(:period_id AS integer))
     ORDER BY b.period_id
    """
)
# What is withheld of a charge is not owed to the partner, though it is not to be paid either (it is 0 or negative).
CREDITS_SQL = text(
    """
    SELECT b.period_id, b.open_minor + b.withheld_minor AS credit_minor, p.closes_at, p.closed_at, p.advice_at,
           p.dispute_until, p.due_at
      FROM statement_balance AS b JOIN period AS p ON p.id = b.period_id AND p.state = 'CLOSED'
     WHERE b.partner_id = :partner_id AND b.open_minor + b.withheld_minor > 0
     ORDER BY b.period_id
    """
)
INSERT_DEFAULT_SQL = text(
    """
    INSERT INTO partner_default (proposal_id, period_id, partner_id, owed_micro, offset_micro, deposit_micro,
                                 bad_debt_micro, deposit_entry_id, bad_debt_entry_id, declared_at)
    VALUES (:proposal_id, :period_id, :partner_id, :owed_micro, :offset_micro, :deposit_micro, :bad_debt_micro,
            CAST(:deposit_entry_id AS bigint), CAST(:bad_debt_entry_id AS bigint), :declared_at)
    """
)
INSERT_OFFSETS_SQL = text(
    """
    INSERT INTO default_offset (proposal_id, partner_id, of_period_id, period_id, amount_micro)
    SELECT :proposal_id, :partner_id, :of_period_id, period_id, amount_micro
      FROM unnest(CAST(:period_ids AS integer[]), CAST(:amounts_micro AS bigint[])) AS taken (period_id, amount_micro)
    """
)


async def propose_default(database: Database, clock: Clock, client_id: str, key: str, ask: DefaultAsk) -> Step:
    """Proposes to declare statements in default; the amount is what is open of them, the most that is ever covered.

    Raises Refused: INPUT_INVALID, STATEMENT_NOT_FOUND, STATEMENT_NOT_DUE, IDEMPOTENCY_CONFLICT.
    """
    check_key(key)
    async with database.posting() as connection:
        configuration = await known_configuration(connection)
        partner_id = known_partner(configuration, ask.partner_id)
        period_id = None if ask.label is None else labelled_period(configuration.programme, ask.label)
        # Under the lock, so that the same key finds the amount that it proposed, whatever was paid since.
        await lock_partner(connection, partner_id)
        earlier = await proposal_by_key(connection, key)
        if earlier is None:
            due = await _due_micro(connection, configuration.programme, partner_id, period_id, clock())
            owed_micro = sum(amount_micro for _, amount_micro in due)
        else:
            owed_micro = earlier.content.amount_micro or 0
        content = Content(
            ProposalKind.DEFAULT, partner_id, ask.reason, ask.note, amount_micro=owed_micro, of_period_id=period_id
        )
        return await add_proposal(connection, clock(), client_id, key, content)


async def approve_default(database: Database, clock: Clock, proposal_id: int, decision: Decision) -> Step:
    """Approves a proposal of kind DEFAULT: covers what is open by now, and books that into the open period, once.

    Raises Refused as ``check_decision`` does, STATEMENT_NOT_DUE when nothing is open any more, EXCEEDS_ORIGINAL when
    more is than was proposed.
    """
    return await approve_in_open_period(database, clock, proposal_id, decision, _declare)


async def _declare(period: OpenPeriod, proposal_id: int, content: Content) -> None:
    connection, programme, partner_id = period.connection, period.configuration.programme, content.partner_id
    assert content.amount_micro is not None
    await lock_partner(connection, partner_id)
    due = await _due_micro(connection, programme, partner_id, content.of_period_id, period.now)
    if sum(owed_micro for _, owed_micro in due) > content.amount_micro:
        what = "the statements" if content.of_period_id is None else "the statement"
        message = f"more is open of {what} by now than was proposed: reject this, and propose what is open"
        raise Refused(RefusalCode.EXCEEDS_ORIGINAL, message, "proposalId")
    held_micro = (await deposit_accounts(connection, [partner_id]))[partner_id].held_micro
    credits_micro = await _credits_micro(connection, programme, partner_id, period.now)
    for period_id, covering in cover(due, credits_micro, held_micro):
        await _book(period, (proposal_id, period_id, partner_id), covering)


async def _book(period: OpenPeriod, key: tuple[int, int, int], covering: Covering) -> None:
    """Books what covers one statement: proposal, period and partner say which."""
    connection, (proposal_id, period_id, partner_id) = period.connection, key
    entry_ids: dict[str, int | None] = {}
    for kind, amount_micro in (("DEPOSIT_USED", covering.deposit_micro), ("BAD_DEBT", covering.bad_debt_micro)):
        entry = (partner_id, kind, None, amount_micro, None)
        written = (await write_entry(connection, period.period_id, period.now, entry)) if amount_micro else (None, None)
        entry_ids[kind] = written[0]
    offset_micro = sum(amount_micro for _, amount_micro in covering.offsets)
    await connection.execute(
        INSERT_DEFAULT_SQL,
        {
            "proposal_id": proposal_id,
            "period_id": period_id,
            "partner_id": partner_id,
            "owed_micro": offset_micro + covering.deposit_micro + covering.bad_debt_micro,
            "offset_micro": offset_micro,
            "deposit_micro": covering.deposit_micro,
            "bad_debt_micro": covering.bad_debt_micro,
            "deposit_entry_id": entry_ids["DEPOSIT_USED"],
            "bad_debt_entry_id": entry_ids["BAD_DEBT"],
            "declared_at": period.now,
        },
    )
    if covering.offsets:
        period_ids, amounts_micro = zip(*covering.offsets, strict=True)
        parameters = {
            "proposal_id": proposal_id,
            "partner_id": partner_id,
            "of_period_id": period_id,
            "period_ids": list(period_ids),
            "amounts_micro": list(amounts_micro),
        }
        await connection.execute(INSERT_OFFSETS_SQL, parameters)


def _dates(programme: Programme, row: object) -> ClearingDates:
    """The calendar of a closed period, also of one that was closed before there was any."""
    closes_at, closed_at, *kept = (
        getattr(row, name) for name in ("closes_at", "closed_at", "advice_at", "dispute_until", "due_at")
    )
    return clearing_dates(programme, closes_at, closed_at) if kept[2] is None else ClearingDates(*kept)


async def _due_micro(
    connection: AsyncConnection, programme: Programme, partner_id: int, period_id: int | None, now: datetime
) -> list[tuple[int, int]]:
    """What the partner owes of a statement that is due, or of every one that is, by period id from the oldest on.

    Raises Refused(STATEMENT_NOT_FOUND, STATEMENT_NOT_DUE).
    """
    parameters = {"period_id": period_id, "partner_id": partner_id}
    rows = (await connection.execute(STATEMENTS_SQL, parameters)).all()
    if period_id is not None and not rows:
        message = "the partner has no closed statement of that label"
        raise Refused(RefusalCode.STATEMENT_NOT_FOUND, message, "label")
    due, why_not = [], "the partner owes nothing that is due"
    for row in rows:
        dates = _dates(programme, row)
        open_minor, to_pay_minor = int(row.open_minor), int(row.to_pay_minor)
        state = statement_state(dates, now, is_draft=False, due_minor=to_pay_minor, open_minor=open_minor)
        if open_minor < 0 and state == StatementState.DUE:
            due.append((row.period_id, -open_minor * micro_per_minor(programme.currency_digits)))
        elif open_minor < 0 and period_id is not None:
            owed = decimal_from_minor(-open_minor, programme.currency_digits)
            due_at = dates.due_at.astimezone(programme.zone).isoformat()
            why_not = f"the statement is {state}: the {owed} open of it is due at {due_at}"
        elif period_id is not None:
            why_not = "the partner owes nothing of that statement"
    if not due:
        raise Refused(RefusalCode.STATEMENT_NOT_DUE, why_not, "label")
    return due


async def _credits_micro(
    connection: AsyncConnection, programme: Programme, partner_id: int, now: datetime
) -> list[tuple[int, int]]:
    """What the operator owes the partner of statements that are no longer disputed, the oldest first."""
    rows = await connection.execute(CREDITS_SQL, {"partner_id": partner_id})
    per_minor = micro_per_minor(programme.currency_digits)
    return [
        (row.period_id, int(row.credit_minor) * per_minor)
        for row in rows
        if now >= _dates(programme, row).dispute_until
    ]

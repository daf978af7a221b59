"""Default: a due statement that its partner does not pay is covered, in an order that does not vary (c.2).

First what the operator owes the partner of other statements (both sides are the partner's account: no entry), then its
deposit (DEPOSIT_USED, DEPOSIT against PARTNER), and the rest is bad debt (BAD_DEBT against PARTNER), the operator's
loss as everybody's central counterparty: outside of the margin. One client proposes, another approves, which books it
in the open period. What was disputed of the statement stays withheld, and is not covered.
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
    """Which closed statement a client wants declared in default, and why."""

    partner_id: int | None
    label: str
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


STATEMENT_SQL = text(
    """
    SELECT b.open_minor, b.due_minor - b.withheld_minor AS to_pay_minor, p.closes_at, p.closed_at, p.advice_at,
           p.dispute_until, p.due_at
      FROM statement_balance AS b JOIN period AS p ON p.id = b.period_id AND p.state = 'CLOSED'
     WHERE b.period_id = :period_id AND b.partner_id = :partner_id
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
    INSERT INTO default_offset (proposal_id, partner_id, period_id, amount_micro)
    SELECT :proposal_id, :partner_id, period_id, amount_micro
      FROM unnest(CAST(:period_ids AS integer[]), CAST(:amounts_micro AS bigint[])) AS taken (period_id, amount_micro)
    """
)


async def propose_default(database: Database, clock: Clock, client_id: str, key: str, ask: DefaultAsk) -> Step:
    """Proposes to declare a statement in default; the amount is what is open of it, the most that is ever covered.

    Raises Refused: INPUT_INVALID, STATEMENT_NOT_FOUND, STATEMENT_NOT_DUE, IDEMPOTENCY_CONFLICT.
    """
    check_key(key)
    async with database.posting() as connection:
        configuration = await known_configuration(connection)
        partner_id = known_partner(configuration, ask.partner_id)
        period_id = labelled_period(configuration.programme, ask.label)
        # Under the lock, so that the same key finds the amount that it proposed, whatever was paid since.
        await lock_partner(connection, partner_id)
        earlier = await proposal_by_key(connection, key)
        if earlier is None:
            owed_micro = await _owed_micro(connection, configuration.programme, (period_id, partner_id), clock())
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
    assert content.of_period_id is not None
    assert content.amount_micro is not None
    await lock_partner(connection, partner_id)
    owed_micro = await _owed_micro(connection, programme, (content.of_period_id, partner_id), period.now)
    if owed_micro > content.amount_micro:
        message = "more is open of the statement by now than was proposed: reject this, and propose what is open"
        raise Refused(RefusalCode.EXCEEDS_ORIGINAL, message, "proposalId")
    held_micro = (await deposit_accounts(connection, [partner_id]))[partner_id].held_micro
    covering = waterfall(owed_micro, await _credits_micro(connection, programme, partner_id, period.now), held_micro)
    entry_ids: dict[str, int | None] = {}
    for kind, amount_micro in (("DEPOSIT_USED", covering.deposit_micro), ("BAD_DEBT", covering.bad_debt_micro)):
        entry = (partner_id, kind, None, amount_micro, None)
        written = (await write_entry(connection, period.period_id, period.now, entry)) if amount_micro else (None, None)
        entry_ids[kind] = written[0]
    await connection.execute(
        INSERT_DEFAULT_SQL,
        {
            "proposal_id": proposal_id,
            "period_id": content.of_period_id,
            "partner_id": partner_id,
            "owed_micro": owed_micro,
            "offset_micro": sum(amount_micro for _, amount_micro in covering.offsets),
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


async def _owed_micro(connection: AsyncConnection, programme: Programme, key: tuple[int, int], now: datetime) -> int:
    """What the partner owes of a statement that is due. Raises Refused(STATEMENT_NOT_FOUND, STATEMENT_NOT_DUE)."""
    parameters = {"period_id": key[0], "partner_id": key[1]}
    row = (await connection.execute(STATEMENT_SQL, parameters)).one_or_none()
    if row is None:
        message = "the partner has no closed statement of that label"
        raise Refused(RefusalCode.STATEMENT_NOT_FOUND, message, "label")
    open_minor = int(row.open_minor)
    if open_minor >= 0:
        message = "the partner owes nothing of that statement"
        raise Refused(RefusalCode.STATEMENT_NOT_DUE, message, "label")
    dates = _dates(programme, row)
    state = statement_state(dates, now, is_draft=False, due_minor=int(row.to_pay_minor), open_minor=open_minor)
    if state != StatementState.DUE:
        owed = decimal_from_minor(-open_minor, programme.currency_digits)
        due_at = dates.due_at.astimezone(programme.zone).isoformat()
        message = f"the statement is {state}: the {owed} open of it is due at {due_at}"
        raise Refused(RefusalCode.STATEMENT_NOT_DUE, message, "label")
    return -open_minor * micro_per_minor(programme.currency_digits)


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

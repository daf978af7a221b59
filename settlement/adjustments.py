"""Money by four eyes: adjustments of a partner's account, and writing off what it owes (SETTLEMENT.md c.2, c.5).

An ADJUSTMENT stands on the statement of the period in which it is approved, its contra side in the margin. A write-off
(BAD_DEBT) takes what is left open of a closed statement; it stands on none, and outside of the margin.
"""

from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.booking import OpenPeriod
from domain.commands import Amount
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.periods import Clock
from domain.positions import ENTRY_LINES, LineKind, entry_line
from domain.proposals import Content, Decision, ProposalKind, ProposalReason, Step
from domain.proposing import add_proposal
from domain.terms import Programme
from domain.values import decimal_from_minor, micro_per_minor
from domain.writing import add_positions
from settlement.approving import approve_in_open_period
from settlement.disputed import DisputeState
from settlement.disputes import check_open, end_dispute, lock_dispute, not_found
from settlement.inputs import (
    known_configuration,
    known_partner,
    labelled_period,
    lock_partner,
    positive_minor,
    signed_micro,
)
from settlement.writing import write_entry

ENTRY_KINDS = {
    ProposalKind.ADJUSTMENT: "ADJUSTMENT",
    ProposalKind.WRITE_OFF: "BAD_DEBT",
    ProposalKind.DISPUTE: "ADJUSTMENT",
}
"""Kinds of proposals that this module carries out, and the partner entry that each books."""


class AdjustmentAsk(NamedTuple):
    """What a client asks to be proposed: ``amount`` signed from the partner's side; a closed line it corrects, or none.

    ``partner_id`` is None for an id that names nobody. ``dispute_id``: of the partner, whose line it corrects then.
    """

    partner_id: int | None
    amount: Amount
    reason: ProposalReason
    note: str
    label: str | None = None
    line_kind: LineKind | None = None
    dispute_id: int | None = None


class WriteOffAsk(NamedTuple):
    """What a client asks to be written off of a closed statement; ``amount`` is positive."""

    partner_id: int | None
    amount: Amount
    reason: ProposalReason
    note: str
    label: str


class StatementOpen(NamedTuple):
    """What is left open of a closed statement, in minor units from the partner's side: negative where it owes."""

    open_minor: int


STATEMENT_SQL = text(
    """
    SELECT s.open_minor,
           EXISTS (SELECT FROM statement_line AS l WHERE l.period_id = s.period_id AND l.partner_id = s.partner_id
                      AND l.kind = CAST(:line_kind AS text)) AS has_line
      FROM statement_balance AS s JOIN period AS p ON p.id = s.period_id AND p.state = 'CLOSED'
     WHERE s.period_id = :period_id AND s.partner_id = :partner_id
    """
)
INSERT_ADJUSTMENT_SQL = text(
    """
    INSERT INTO adjustment (entry_id, proposal_id, period_id, partner_id, kind, amount_micro, reason_code, note,
                            of_period_id, of_line_kind, dispute_id, booked_at)
    VALUES (:entry_id, :proposal_id, :period_id, :partner_id, :kind, :amount_micro, :reason_code, :note,
            CAST(:of_period_id AS integer), :of_line_kind, CAST(:dispute_id AS bigint), :booked_at)
    """
)


async def propose_adjustment(database: Database, clock: Clock, client_id: str, key: str, ask: AdjustmentAsk) -> Step:
    """Proposes a credit or debit of a partner.

    Raises Refused: INPUT_INVALID, AMOUNT_INVALID, CURRENCY_MISMATCH, STATEMENT_NOT_FOUND, DISPUTE_NOT_FOUND,
    IDEMPOTENCY_CONFLICT.
    """
    async with database.posting() as connection:
        configuration = await known_configuration(connection)
        partner_id = known_partner(configuration, ask.partner_id)
        amount_micro = signed_micro(ask.amount, configuration.programme)
        programme, period_id, line_kind = configuration.programme, None, ask.line_kind
        if ask.dispute_id is not None:
            if ask.label is not None or ask.line_kind is not None:
                message = "a dispute says which line it is about: leave label and lineKind out"
                raise Refused(RefusalCode.INPUT_INVALID, message, "disputeId")
            dispute = await lock_dispute(connection, ask.dispute_id)
            if dispute.partner_id != partner_id:
                raise not_found()
            period_id, line_kind = dispute.period_id, dispute.line_kind
        if (ask.label is None) != (ask.line_kind is None):
            message = "name a closed line by label and lineKind, or no line at all"
            raise Refused(RefusalCode.INPUT_INVALID, message, "lineKind" if ask.label else "label")
        if ask.label is not None:
            period_id = labelled_period(programme, ask.label)
            await closed_statement(connection, partner_id, period_id, ask.line_kind)
        content = Content(
            ProposalKind.ADJUSTMENT,
            partner_id,
            ask.reason,
            ask.note,
            amount_micro=amount_micro,
            of_period_id=period_id,
            of_line_kind=line_kind,
            dispute_id=ask.dispute_id,
        )
        return await add_proposal(connection, clock(), client_id, key, content)


async def propose_write_off(database: Database, clock: Clock, client_id: str, key: str, ask: WriteOffAsk) -> Step:
    """Proposes to let a partner off what it owes of a closed statement.

    Raises Refused: INPUT_INVALID, AMOUNT_INVALID, CURRENCY_MISMATCH, STATEMENT_NOT_FOUND, EXCEEDS_ORIGINAL (it owes
    less), IDEMPOTENCY_CONFLICT.
    """
    async with database.posting() as connection:
        configuration = await known_configuration(connection)
        programme = configuration.programme
        partner_id = known_partner(configuration, ask.partner_id)
        minor = positive_minor(ask.amount, programme)
        period_id = labelled_period(programme, ask.label)
        statement = await closed_statement(connection, partner_id, period_id)
        content = Content(
            ProposalKind.WRITE_OFF,
            partner_id,
            ask.reason,
            ask.note,
            amount_micro=minor * micro_per_minor(programme.currency_digits),
            of_period_id=period_id,
        )
        step = await add_proposal(connection, clock(), client_id, key, content)
        if not step.replayed:
            _check_owed(statement, minor, programme)
        return step


async def closed_statement(
    connection: AsyncConnection,
    partner_id: int,
    period_id: int,
    line_kind: LineKind | None = None,
) -> StatementOpen:
    """What is open of a partner's closed statement, which has that line. Raises Refused(STATEMENT_NOT_FOUND)."""
    parameters = {"period_id": period_id, "partner_id": partner_id, "line_kind": line_kind}
    row = (await connection.execute(STATEMENT_SQL, parameters)).one_or_none()
    if row is None:
        message = "the partner has no closed statement of that label"
        raise Refused(RefusalCode.STATEMENT_NOT_FOUND, message, "label")
    if line_kind is not None and not row.has_line:
        raise Refused(RefusalCode.STATEMENT_NOT_FOUND, f"the statement has no line {line_kind}", "lineKind")
    return StatementOpen(int(row.open_minor))


def _check_owed(statement: StatementOpen, minor: int, programme: Programme) -> None:
    owed_minor = max(-statement.open_minor, 0)
    if minor > owed_minor:
        owed = decimal_from_minor(owed_minor, programme.currency_digits)
        message = f"the partner owes {owed} of that statement"
        raise Refused(RefusalCode.EXCEEDS_ORIGINAL, message, "amount.amount")


async def approve_money(database: Database, clock: Clock, proposal_id: int, decision: Decision) -> Step:
    """Approves a proposal of ENTRY_KINDS and books it into the open period, once.

    Raises Refused as ``check_decision`` does, EXCEEDS_ORIGINAL for a write-off of more than is owed by now, and
    DISPUTE_DECIDED for the outcome of a dispute that was withdrawn.
    """
    return await approve_in_open_period(database, clock, proposal_id, decision, _book)


async def _book(period: OpenPeriod, proposal_id: int, content: Content) -> None:
    connection, amount_micro = period.connection, content.amount_micro
    assert amount_micro is not None
    await lock_partner(connection, content.partner_id)
    kind = ENTRY_KINDS[content.kind]
    if content.kind == ProposalKind.DISPUTE:
        await _end_dispute(period, content, amount_micro)
        if amount_micro == 0:
            return
    if content.kind == ProposalKind.WRITE_OFF:
        programme = period.configuration.programme
        assert content.of_period_id is not None
        statement = await closed_statement(connection, content.partner_id, content.of_period_id)
        _check_owed(statement, amount_micro // micro_per_minor(programme.currency_digits), programme)
    entry = (content.partner_id, kind, content.of_line_kind, amount_micro, None)
    entry_id, row_hash = await write_entry(connection, period.period_id, period.now, entry)
    if kind in ENTRY_LINES:
        line = entry_line(content.partner_id, ENTRY_LINES[kind], content.of_line_kind, 1, amount_micro, row_hash)
        await add_positions(connection, [(period.period_id, line)])
    await connection.execute(
        INSERT_ADJUSTMENT_SQL,
        {
            "entry_id": entry_id,
            "proposal_id": proposal_id,
            "period_id": period.period_id,
            "partner_id": content.partner_id,
            "kind": kind,
            "amount_micro": amount_micro,
            "reason_code": content.reason_code,
            "note": content.note,
            "of_period_id": content.of_period_id,
            "of_line_kind": content.of_line_kind,
            "dispute_id": content.dispute_id,
            "booked_at": period.now,
        },
    )


async def _end_dispute(period: OpenPeriod, content: Content, accepted_micro: int) -> None:
    dispute = await lock_dispute(period.connection, content.dispute_id)
    check_open(dispute)
    accepted_minor = accepted_micro // micro_per_minor(period.configuration.programme.currency_digits)
    state = DisputeState.ACCEPTED if accepted_minor else DisputeState.REJECTED
    await end_dispute(
        period.connection, dispute.id, state, period.now, accepted_minor=accepted_minor, note=content.note
    )

"""Disputes: what a partner contests of a line of a closed statement, and what becomes of it.

A dispute is always in the partner's favour: it says that a charge is too high, or a credit too low. While it is open a
disputed charge is no part of what is due, so the lines that nobody disputes settle on time; of a disputed credit all
that stands on the statement is undisputed, and nothing is withheld. The stored statement never changes: what is
withheld is read beside it. The outcome takes four eyes; what is accepted is an adjustment in the open period.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.commands import Amount
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.periods import Clock
from domain.positions import MONEY_LINES, LineKind
from domain.proposals import Content, ProposalKind, ProposalReason, Step, check_note, key_conflict
from domain.proposing import add_proposal, check_key
from domain.terms import Programme
from domain.values import decimal_from_minor, micro_per_minor, minor_from_micro
from settlement.clearing import clearing_dates
from settlement.disputed import COLUMNS, Dispute, DisputeReason, DisputeState, dispute_of, transactions_of_disputes
from settlement.inputs import known_configuration, known_partner, labelled_period, lock_partner, positive_minor

TRANSACTIONS_MAX = 100
"""Most transactions that one dispute names."""


class DisputeAsk(NamedTuple):
    """What is disputed. ``partner_id`` None names nobody; ``command_ids`` None: the whole line, an id of None: nothing
    of the caller's; ``amount`` None: all of it. An operator asks in the partner's name, also after the window.
    """

    partner_id: int | None
    is_operator: bool
    label: str
    line_kind: LineKind
    command_ids: tuple[int | None, ...] | None
    amount: Amount | None
    reason: DisputeReason
    note: str


class OutcomeAsk(NamedTuple):
    """What is proposed to become of a dispute: accepted in full (``amount`` None) or in part, or rejected."""

    dispute_id: int | None
    is_accepted: bool
    amount: Amount | None
    note: str


@dataclass(frozen=True, slots=True)
class DisputeStep:
    """Answer to a step: the dispute after it, and whether this key had taken the step before."""

    dispute: Dispute
    replayed: bool


LINE_SQL = text(
    """
    SELECT l.billed_minor, s.carried_on_minor, p.closes_at, p.closed_at, p.dispute_until,
           (SELECT coalesce(sum(CASE d.state WHEN 'OPEN' THEN d.amount_minor ELSE d.accepted_minor END), 0)
              FROM dispute AS d
             WHERE d.period_id = l.period_id AND d.partner_id = l.partner_id AND d.line_kind = l.kind) AS disputed_minor
      FROM statement_line AS l JOIN period AS p ON p.id = l.period_id AND p.state = 'CLOSED'
      JOIN statement AS s ON s.period_id = l.period_id AND s.partner_id = l.partner_id
     WHERE l.period_id = :period_id AND l.partner_id = :partner_id AND l.kind = :line_kind
    """
)


def _line_columns(line_kind: LineKind) -> tuple[tuple[str, ...], str] | None:
    """The kinds of movement that a line sums, and the column that it sums of them; None where it sums none."""
    found = [(kind.value, column) for kind, lines in MONEY_LINES.items() for line, column in lines if line == line_kind]
    return (tuple(kind for kind, _ in found), found[0][1]) if found else None


MOVEMENTS_SQL = {
    line: (
        columns[0],
        text(
            f"""
            SELECT t.command_id, sum(t.{columns[1]}) AS amount_micro FROM transaction AS t
             WHERE t.command_id = ANY(CAST(:command_ids AS bigint[])) AND t.party_id = :partner_id
               AND t.period_id = :period_id AND t.kind = ANY(CAST(:kinds AS text[]))
             GROUP BY t.command_id
            """  # noqa: S608 (a column of the ledger)
        ),
    )
    for line in LineKind
    if (columns := _line_columns(line)) is not None
}
"""Per line that has transactions: its kinds of movement, and what commands brought into it."""

TAKEN_SQL = text(
    """
    SELECT t.command_id FROM dispute_transaction AS t JOIN dispute AS d ON d.id = t.dispute_id
     WHERE t.command_id = ANY(CAST(:command_ids AS bigint[])) AND d.period_id = :period_id
       AND d.partner_id = :partner_id AND d.line_kind = :line_kind AND d.state IN ('OPEN', 'ACCEPTED')
     ORDER BY t.command_id LIMIT 1
    """
)
INSERT_SQL = text(
    f"""
    INSERT INTO dispute (period_id, partner_id, line_kind, amount_minor, withheld_minor, reason_code, note,
                         idempotency_key, opened_by, opened_at)
    VALUES (:period_id, :partner_id, :line_kind, :amount_minor, :withheld_minor, :reason_code, :note, :key, :client_id,
            :now)
    RETURNING {COLUMNS}
    """  # noqa: S608 (columns of this module)
)
INSERT_TRANSACTIONS_SQL = text(
    """
    INSERT INTO dispute_transaction (dispute_id, command_id, partner_id)
    SELECT :dispute_id, command_id, :partner_id FROM unnest(CAST(:command_ids AS bigint[])) AS command_id
     ORDER BY command_id
    """
)
BY_KEY_SQL = text(
    f"SELECT {COLUMNS} FROM dispute WHERE partner_id = :partner_id AND idempotency_key = :key"  # noqa: S608 (the same)
)
BY_WITHDRAWAL_SQL = text(
    f"SELECT {COLUMNS} FROM dispute WHERE partner_id = :partner_id AND withdrawal_key = :key"  # noqa: S608 (the same)
)
LOCK_SQL = text(f"SELECT {COLUMNS} FROM dispute WHERE id = :id FOR NO KEY UPDATE")  # noqa: S608 (the same)
OUTCOME_SQL = text(
    "SELECT id FROM proposal"
    " WHERE dispute_id = :id AND kind = 'DISPUTE' AND state = 'PROPOSED' AND idempotency_key <> :key"
)
END_SQL = text(
    f"""
    UPDATE dispute SET state = :state, accepted_minor = :accepted_minor, decided_at = :now, decision_note = :note,
           withdrawal_key = :withdrawal_key
     WHERE id = :id
    RETURNING {COLUMNS}
    """  # noqa: S608 (the same)
)
# ---------------------------------------------------------------- opening


async def open_dispute(database: Database, clock: Clock, client_id: str, key: str, ask: DisputeAsk) -> DisputeStep:
    """Disputes a line of a partner's closed statement, or transactions of it.

    Raises Refused: INPUT_INVALID, AMOUNT_INVALID, CURRENCY_MISMATCH, STATEMENT_NOT_FOUND, TRANSACTION_NOT_FOUND,
    DISPUTE_WINDOW_OVER (a partner, after its dispute window), EXCEEDS_ORIGINAL, IDEMPOTENCY_CONFLICT.
    """
    check_key(key)
    check_note(ask.note, "note")
    if ask.line_kind == LineKind.CARRIED_FORWARD:
        message = "this line is what other statements left: dispute their lines"
        raise Refused(RefusalCode.INPUT_INVALID, message, "lineKind")
    async with database.posting() as connection:
        configuration = await known_configuration(connection)
        programme = configuration.programme
        partner_id = known_partner(configuration, ask.partner_id)
        period_id = labelled_period(programme, ask.label)
        # Under the lock, so that no other dispute of the partner's comes between what is read and what is written.
        await lock_partner(connection, partner_id)
        parameters = {"period_id": period_id, "partner_id": partner_id, "line_kind": ask.line_kind}
        line = (await connection.execute(LINE_SQL, parameters)).one_or_none()
        if line is None:
            message = "the partner has no closed statement of that label with that line"
            raise Refused(RefusalCode.STATEMENT_NOT_FOUND, message, "label")
        billed_minor = int(line.billed_minor)
        command_ids, most_minor = None, abs(billed_minor)
        if ask.command_ids is not None:
            command_ids, brought_micro = await _transactions(connection, ask.line_kind, ask.command_ids, parameters)
            most_minor = minor_from_micro(abs(brought_micro), programme.currency_digits)
        amount_minor = _amount_minor(ask, programme, billed_minor, most_minor)
        row = (await connection.execute(BY_KEY_SQL, {"partner_id": partner_id, "key": key})).one_or_none()
        if row is not None:
            return await _replayed(connection, dispute_of(row), ask, parameters, amount_minor, command_ids)
        # Where all of the statement is left to the next one nothing is due, and so nothing to be withheld.
        is_withheld = billed_minor < 0 and line.carried_on_minor == 0
        now = clock()
        dates = clearing_dates(programme, line.closes_at, line.closed_at)
        until = line.dispute_until or dates.dispute_until
        if not ask.is_operator and now >= until:
            end = until.astimezone(programme.zone).isoformat()
            message = f"the statement could be disputed until {end}: ask the operator"
            raise Refused(RefusalCode.DISPUTE_WINDOW_OVER, message, "label")
        if int(line.disputed_minor) + amount_minor > abs(billed_minor):
            left = decimal_from_minor(abs(billed_minor) - int(line.disputed_minor), programme.currency_digits)
            message = f"only {left} of this line is not disputed yet"
            raise Refused(RefusalCode.EXCEEDS_ORIGINAL, message, "amount.amount")
        await _check_untaken(connection, command_ids, parameters)
        row = (
            await connection.execute(
                INSERT_SQL,
                {
                    **parameters,
                    "amount_minor": amount_minor,
                    "withheld_minor": -amount_minor if is_withheld else 0,
                    "reason_code": ask.reason,
                    "note": ask.note,
                    "key": key,
                    "client_id": client_id,
                    "now": now,
                },
            )
        ).one()
        dispute = dispute_of(row)
        if command_ids is not None:
            named = {"dispute_id": dispute.id, "partner_id": partner_id, "command_ids": command_ids}
            await connection.execute(INSERT_TRANSACTIONS_SQL, named)
        return DisputeStep(dispute, replayed=False)


async def _transactions(
    connection: AsyncConnection, line_kind: LineKind, given: tuple[int | None, ...], parameters: dict[str, Any]
) -> tuple[list[int], int]:
    """The disputed transactions, each once, ascending, and what they brought into the line, in micro-units."""
    if line_kind not in MOVEMENTS_SQL:
        message = f"a line {line_kind} has no transactions: dispute the line, or an amount of it"
        raise Refused(RefusalCode.INPUT_INVALID, message, "transactionIds")
    if not 1 <= len(given) <= TRANSACTIONS_MAX:
        message = f"name 1 to {TRANSACTIONS_MAX} transactions, or leave them out to dispute the whole line"
        raise Refused(RefusalCode.INPUT_INVALID, message, "transactionIds")
    kinds, statement = MOVEMENTS_SQL[line_kind]
    asked = sorted({command_id for command_id in given if command_id is not None})
    rows = await connection.execute(statement, {**parameters, "command_ids": asked, "kinds": list(kinds)})
    brought_micro = {row.command_id: int(row.amount_micro) for row in rows}
    for number, command_id in enumerate(given):
        if command_id not in brought_micro:
            message = "the line sums no transaction of yours with this id"
            raise Refused(RefusalCode.TRANSACTION_NOT_FOUND, message, f"transactionIds.{number}")
    return asked, sum(brought_micro.values())


def _amount_minor(ask: DisputeAsk, programme: Programme, billed_minor: int, most_minor: int) -> int:
    if ask.amount is not None:
        minor = positive_minor(ask.amount, programme)
    elif billed_minor > 0:
        message = "the line is a credit: say in amount how much more you should have been credited"
        raise Refused(RefusalCode.INPUT_INVALID, message, "amount")
    else:
        minor = most_minor
    if minor > most_minor or minor == 0:
        most = decimal_from_minor(most_minor, programme.currency_digits)
        message = f"what you dispute stands on the statement with {most}, and no more of it can be disputed"
        if billed_minor > 0:
            message += ": ask the operator to adjust it"
        raise Refused(RefusalCode.EXCEEDS_ORIGINAL, message, "amount.amount")
    return minor


async def _replayed(
    connection: AsyncConnection,
    held: Dispute,
    ask: DisputeAsk,
    parameters: dict[str, Any],
    amount_minor: int,
    command_ids: list[int] | None,
) -> DisputeStep:
    named = (await transactions_of_disputes(connection, [held.id])).get(held.id)
    said = (held.period_id, held.line_kind, held.amount_minor, held.reason_code, held.note, named)
    if said != (parameters["period_id"], ask.line_kind, amount_minor, ask.reason, ask.note, command_ids):
        raise key_conflict("this key was used before to dispute something else")
    return DisputeStep(held, replayed=True)


async def _check_untaken(
    connection: AsyncConnection, command_ids: list[int] | None, parameters: dict[str, Any]
) -> None:
    if command_ids is None:
        return
    taken = (await connection.execute(TAKEN_SQL, {**parameters, "command_ids": command_ids})).scalar()
    if taken is not None:
        message = "one of these transactions is disputed on this line already"
        raise Refused(RefusalCode.EXCEEDS_ORIGINAL, message, "transactionIds")


# ---------------------------------------------------------------- ending


async def withdraw_dispute(
    database: Database, clock: Clock, partner_id: int, key: str, dispute_id: int | None
) -> DisputeStep:
    """Takes back an open dispute of the partner's; what it withheld is due again.

    Raises Refused: INPUT_INVALID, DISPUTE_NOT_FOUND, DISPUTE_DECIDED, IDEMPOTENCY_CONFLICT.
    """
    check_key(key)
    async with database.posting() as connection:
        await lock_partner(connection, partner_id)
        used = (await connection.execute(BY_WITHDRAWAL_SQL, {"partner_id": partner_id, "key": key})).one_or_none()
        if used is not None:
            held = dispute_of(used)
            if held.id != dispute_id:
                raise key_conflict("this key withdrew another dispute")
            return DisputeStep(held, replayed=True)
        dispute = await lock_dispute(connection, dispute_id)
        if dispute.partner_id != partner_id:
            raise not_found()
        check_open(dispute)
        ended = await end_dispute(connection, dispute.id, DisputeState.WITHDRAWN, clock(), withdrawal_key=key)
        return DisputeStep(ended, replayed=False)


async def propose_outcome(database: Database, clock: Clock, client_id: str, key: str, ask: OutcomeAsk) -> Step:
    """Proposes what becomes of a dispute; ``settlement.adjustments`` carries it out when another client approves.

    Raises Refused: INPUT_INVALID, AMOUNT_INVALID, CURRENCY_MISMATCH, DISPUTE_NOT_FOUND, DISPUTE_DECIDED,
    EXCEEDS_ORIGINAL (more than is disputed), IDEMPOTENCY_CONFLICT.
    """
    async with database.posting() as connection:
        programme = (await known_configuration(connection)).programme
        dispute = await lock_dispute(connection, ask.dispute_id)
        accepted_minor = _accepted_minor(ask, dispute, programme)
        content = Content(
            ProposalKind.DISPUTE,
            dispute.partner_id,
            ProposalReason.DISPUTE,
            ask.note,
            amount_micro=accepted_minor * micro_per_minor(programme.currency_digits),
            of_period_id=dispute.period_id,
            of_line_kind=dispute.line_kind,
            dispute_id=dispute.id,
        )
        is_taken = (await connection.execute(OUTCOME_SQL, {"id": dispute.id, "key": key})).one_or_none() is not None
        if is_taken:
            message = "an outcome of this dispute is proposed already: approve or reject that one first"
            raise Refused(RefusalCode.DISPUTE_DECIDED, message, "disputeId")
        step = await add_proposal(connection, clock(), client_id, key, content)
        if not step.replayed:
            check_open(dispute)
        return step


def _accepted_minor(ask: OutcomeAsk, dispute: Dispute, programme: Programme) -> int:
    if not ask.is_accepted:
        if ask.amount is not None:
            message = "a rejection accepts nothing: leave the amount out"
            raise Refused(RefusalCode.INPUT_INVALID, message, "amount")
        return 0
    minor = dispute.amount_minor if ask.amount is None else positive_minor(ask.amount, programme)
    if minor > dispute.amount_minor:
        disputed = decimal_from_minor(dispute.amount_minor, programme.currency_digits)
        raise Refused(RefusalCode.EXCEEDS_ORIGINAL, f"only {disputed} is disputed", "amount.amount")
    return minor


def not_found() -> Refused:
    """The refusal of an id that names no dispute of the caller's."""
    return Refused(RefusalCode.DISPUTE_NOT_FOUND, "there is no such dispute", "disputeId")


async def lock_dispute(connection: AsyncConnection, dispute_id: int | None) -> Dispute:
    """The dispute, which nobody else decides meanwhile. Raises Refused(DISPUTE_NOT_FOUND)."""
    row = None if dispute_id is None else (await connection.execute(LOCK_SQL, {"id": dispute_id})).one_or_none()
    if row is None:
        raise not_found()
    return dispute_of(row)


def check_open(dispute: Dispute) -> None:
    """Raises Refused(DISPUTE_DECIDED) once it was accepted, rejected or withdrawn."""
    if dispute.state != DisputeState.OPEN:
        message = f"the dispute is {dispute.state} since {dispute.decided_at:%Y-%m-%d}"
        raise Refused(RefusalCode.DISPUTE_DECIDED, message, "disputeId")


async def end_dispute(
    connection: AsyncConnection,
    dispute_id: int,
    state: DisputeState,
    now: datetime,
    *,
    accepted_minor: int = 0,
    note: str | None = None,
    withdrawal_key: str | None = None,
) -> Dispute:
    """Ends a locked, open dispute."""
    given = {
        "id": dispute_id,
        "state": state,
        "accepted_minor": accepted_minor,
        "now": now,
        "note": note,
        "withdrawal_key": withdrawal_key,
    }
    return dispute_of((await connection.execute(END_SQL, given)).one())

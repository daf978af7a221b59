"""Deposits: money that a partner leaves with the operator against what it may come to owe (SETTLEMENT.md c.2).

Money paid in is recorded as the bank booked it, money paid out is proposed by one client and approved by another;
either is booked in the open period, BANK against DEPOSIT, and stands on no statement. Prepaid floats are deposits in
the books too, and accounts of their own: what was paid in for points secures nothing, and a deposit buys none.
"""

from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.batch import is_key
from domain.booking import OpenPeriod, in_open_period
from domain.commands import Amount
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.members import is_clean_text
from domain.periods import Clock, local_date
from domain.proposals import Content, Decision, ProposalKind, ProposalReason, Step
from domain.proposing import add_proposal
from domain.terms import Programme
from domain.values import decimal_from_minor, micro_per_minor
from settlement.approving import approve_in_open_period
from settlement.deposit_reading import PAYMENT_COLUMNS, DepositAccount, DepositPayment, deposit_accounts, payment_of
from settlement.inputs import known_configuration, known_partner, lock_partner, positive_minor
from settlement.payments import REFERENCE_MAX_CHARACTERS
from settlement.writing import write_entry

PAYOUT_REFERENCE_PREFIX = "deposit-payout-"
"""What the transfer of a payout carries: this, and the number of its proposal."""


class NewDeposit(NamedTuple):
    """Money that came in for a partner's deposit; ``partner_id`` is None for a name that means nobody."""

    key: str
    partner_id: int | None
    amount: Amount
    value_date: date
    bank_reference: str
    recorded_by: str


class PayoutAsk(NamedTuple):
    """What a client asks to be paid out of a partner's deposit; ``amount`` is positive."""

    partner_id: int | None
    amount: Amount
    reason: ProposalReason
    note: str


@dataclass(frozen=True, slots=True)
class RecordedDeposit:
    """Answer to a recording: the payment, the account after it, and whether the key had recorded it before."""

    payment: DepositPayment
    account: DepositAccount
    replayed: bool


BY_KEY_SQL = text(f"SELECT {PAYMENT_COLUMNS} FROM deposit_payment WHERE idempotency_key = :key")  # noqa: S608 (a constant)
REFERENCE_SQL = text(
    "SELECT idempotency_key FROM deposit_payment"
    " WHERE partner_id = :partner_id AND bank_reference = :bank_reference AND amount_micro > 0"
)
INSERT_SQL = text(
    f"""
    INSERT INTO deposit_payment (id, idempotency_key, proposal_id, partner_id, amount_micro, value_date,
                                 bank_reference, recorded_at, recorded_by)
    VALUES (:id, CAST(:key AS text), CAST(:proposal_id AS bigint), :partner_id, :amount_micro,
            CAST(:value_date AS date), :bank_reference, :recorded_at, :recorded_by)
    RETURNING {PAYMENT_COLUMNS}
    """  # noqa: S608 (a constant)
)


async def record_deposit(database: Database, clock: Clock, given: NewDeposit) -> RecordedDeposit:
    """Records money paid into a deposit, or finds it recorded under the same key.

    Raises Refused: INPUT_INVALID (key, bank reference, partner, a value date that lies ahead), AMOUNT_INVALID,
    CURRENCY_MISMATCH, IDEMPOTENCY_CONFLICT (the key recorded another payment), DUPLICATE_REFERENCE (another key
    recorded this one), TERMS_MISSING, OVERLOADED.
    """
    if not is_key(given.key):
        message = "an idempotency key has 1 to 200 printable characters"
        raise Refused(RefusalCode.INPUT_INVALID, message, "idempotencyKey")
    if not is_clean_text(given.bank_reference, REFERENCE_MAX_CHARACTERS):
        message = f"a bank reference has 1 to {REFERENCE_MAX_CHARACTERS} printable characters"
        raise Refused(RefusalCode.INPUT_INVALID, message, "bankReference")
    return await in_open_period(database, clock, lambda period: _record(period, given))


async def _record(period: OpenPeriod, given: NewDeposit) -> RecordedDeposit:
    connection, programme = period.connection, period.configuration.programme
    partner_id = known_partner(period.configuration, given.partner_id)
    amount_micro = _micro(given.amount, programme)
    await lock_partner(connection, partner_id)
    held = (await connection.execute(BY_KEY_SQL, {"key": given.key})).one_or_none()
    if held is not None:
        payment = payment_of(held)
        asked = (partner_id, amount_micro, given.value_date, given.bank_reference)
        if asked != (payment.partner_id, payment.amount_micro, payment.value_date, payment.bank_reference):
            message = "this key recorded another payment; another payment needs another key"
            raise Refused(RefusalCode.IDEMPOTENCY_CONFLICT, message, "idempotencyKey")
        return RecordedDeposit(payment, await _account(connection, partner_id), replayed=True)
    if given.value_date > local_date(period.now, programme.zone):
        message = "valueDate lies ahead: record a payment when the bank has booked it"
        raise Refused(RefusalCode.INPUT_INVALID, message, "valueDate")
    parameters = {"partner_id": partner_id, "bank_reference": given.bank_reference}
    used = (await connection.execute(REFERENCE_SQL, parameters)).scalar()
    if used is not None:
        message = f'"{given.bank_reference}" was recorded before, under the key "{used}"'
        raise Refused(RefusalCode.DUPLICATE_REFERENCE, message, "bankReference")
    payment = await _book(period, partner_id, amount_micro, given.bank_reference, given.recorded_by, given)
    return RecordedDeposit(payment, await _account(connection, partner_id), replayed=False)


async def _book(
    period: OpenPeriod,
    partner_id: int,
    amount_micro: int,
    bank_reference: str,
    recorded_by: str,
    given: NewDeposit | None = None,
    proposal_id: int | None = None,
) -> DepositPayment:
    """Books money in (as given) or out (as a proposal says)."""
    connection = period.connection
    entry = (partner_id, "DEPOSIT", None, amount_micro, None)
    entry_id, _ = await write_entry(connection, period.period_id, period.now, entry)
    row = (
        await connection.execute(
            INSERT_SQL,
            {
                "id": entry_id,
                "key": None if given is None else given.key,
                "proposal_id": proposal_id,
                "partner_id": partner_id,
                "amount_micro": amount_micro,
                "value_date": None if given is None else given.value_date,
                "bank_reference": bank_reference,
                "recorded_at": period.now,
                "recorded_by": recorded_by,
            },
        )
    ).one()
    return payment_of(row)


async def _account(connection: AsyncConnection, partner_id: int) -> DepositAccount:
    return (await deposit_accounts(connection, [partner_id]))[partner_id]


def _micro(amount: Amount, programme: Programme) -> int:
    return positive_minor(amount, programme) * micro_per_minor(programme.currency_digits)


# ---------------------------------------------------------------- paying out


async def propose_payout(database: Database, clock: Clock, client_id: str, key: str, ask: PayoutAsk) -> Step:
    """Proposes to pay a part of a deposit out.

    Raises Refused: INPUT_INVALID, AMOUNT_INVALID, CURRENCY_MISMATCH, LIMIT_EXCEEDED (so much is not free),
    IDEMPOTENCY_CONFLICT.
    """
    async with database.posting() as connection:
        configuration = await known_configuration(connection)
        partner_id = known_partner(configuration, ask.partner_id)
        amount_micro = _micro(ask.amount, configuration.programme)
        content = Content(ProposalKind.DEPOSIT_PAYOUT, partner_id, ask.reason, ask.note, amount_micro=amount_micro)
        step = await add_proposal(connection, clock(), client_id, key, content)
        if not step.replayed:
            _check_free(await _account(connection, partner_id), content, configuration.programme)
        return step


async def approve_payout(database: Database, clock: Clock, proposal_id: int, decision: Decision) -> Step:
    """Approves a proposal of kind DEPOSIT_PAYOUT and books it into the open period, once.

    Raises Refused as ``check_decision`` does, and LIMIT_EXCEEDED when so much is not free by now.
    """

    async def pay_out(period: OpenPeriod, proposal_id: int, content: Content) -> None:
        await lock_partner(period.connection, content.partner_id)
        account = await _account(period.connection, content.partner_id)
        _check_free(account, content, period.configuration.programme)
        assert content.amount_micro is not None
        reference = f"{PAYOUT_REFERENCE_PREFIX}{proposal_id}"
        await _book(
            period, content.partner_id, -content.amount_micro, reference, decision.client_id, proposal_id=proposal_id
        )

    return await approve_in_open_period(database, clock, proposal_id, decision, pay_out)


def _check_free(account: DepositAccount, content: Content, programme: Programme) -> None:
    """Raises Refused(LIMIT_EXCEEDED). What the bank took back was never there: it may leave a shortfall."""
    most_micro = account.held_micro if content.reason_code == ProposalReason.CORRECTION else account.free_micro
    assert content.amount_micro is not None
    if content.amount_micro > most_micro:
        per_minor, digits = micro_per_minor(programme.currency_digits), programme.currency_digits
        held, free = (
            decimal_from_minor(micro // per_minor, digits) for micro in (account.held_micro, account.free_micro)
        )
        message = f"of the deposit of {held}, {free} is free: the rest secures what is required or owed"
        raise Refused(RefusalCode.LIMIT_EXCEEDED, message, "amount.amount")

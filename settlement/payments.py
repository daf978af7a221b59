"""Payments between operator and partners: recorded as the bank booked them, each on the statement that it pays.

Signs are those of the statement: positive where the operator pays, negative where the partner does. A payment is booked
in the open period, BANK against PARTNER, with the sign turned round: it takes away what the statement left. What was
written off before and comes in is recovered (``settlement.recovering``).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.baskets import checked_amount
from domain.batch import KEY_MAX_CHARACTERS
from domain.booking import OpenPeriod, in_open_period
from domain.commands import Amount
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.members import is_clean_text
from domain.periods import Clock, local_date
from domain.terms import Programme
from domain.values import decimal_from_minor, micro_per_minor
from settlement.checks import Check, check
from settlement.default_checks import default_problems
from settlement.deposit_checks import deposit_problems
from settlement.inputs import lock_partner
from settlement.places import PLACES_MAX
from settlement.reading import StatementKey
from settlement.recovering import recover
from settlement.writing import write_entry

REFERENCE_MAX_CHARACTERS = 140
"""As long as the longest reference that a bank's statement carries."""


@dataclass(frozen=True, slots=True)
class NewPayment:
    """What is recorded: who pays or is paid, on which period's statement, how much (signed as its due), when."""

    key: str
    partner_id: int
    label: str
    amount: Amount
    value_date: date
    bank_reference: str
    recorded_by: str


@dataclass(frozen=True, slots=True)
class Payment:
    """A recorded payment; ``booked_in`` is the period that carries its entry."""

    id: int
    key: str
    partner_id: int
    period_id: int
    amount_minor: int
    value_date: date
    bank_reference: str
    recorded_at: datetime
    booked_in: int


@dataclass(frozen=True, slots=True)
class RecordedPayment:
    """Answer to a recording, and whether the key had recorded it before."""

    payment: Payment
    replayed: bool


_PAYMENTS_SQL = (
    "SELECT p.id, p.idempotency_key, p.partner_id, p.period_id, p.amount_minor, p.value_date, p.bank_reference,"
    " p.recorded_at, e.period_id AS booked_in FROM payment AS p JOIN partner_entry AS e ON e.id = p.id"
)
PAYMENT_BY_KEY_SQL = text(f"{_PAYMENTS_SQL} WHERE p.idempotency_key = :key")
PAYMENTS_OF_STATEMENTS_SQL = text(
    f"{_PAYMENTS_SQL} JOIN unnest(CAST(:period_ids AS integer[]), CAST(:partner_ids AS integer[]))"
    " AS asked (period_id, partner_id) ON asked.period_id = p.period_id AND asked.partner_id = p.partner_id"
    " ORDER BY p.id"
)
STATEMENT_SQL = text(
    """
    SELECT p.id, p.state, s.partner_id IS NOT NULL AS has_statement
      FROM period AS p LEFT JOIN statement AS s ON s.period_id = p.id AND s.partner_id = :partner_id
     WHERE p.label = :label
    """
)
INSERT_PAYMENT_SQL = text(
    """
    INSERT INTO payment (id, idempotency_key, partner_id, period_id, amount_minor, value_date, bank_reference,
                         recorded_at, recorded_by)
    VALUES (:id, :key, :partner_id, :period_id, :amount_minor, :value_date, :bank_reference, :recorded_at,
            :recorded_by)
    """
)
OPEN_STATEMENTS_SQL = text(
    """
    SELECT period_id, partner_id FROM statement_balance
     WHERE open_minor <> 0 AND (period_id, partner_id) > (:after_period, :after_partner)
     ORDER BY period_id, partner_id LIMIT :limit
    """
)


async def record_payment(database: Database, clock: Clock, given: NewPayment) -> RecordedPayment:
    """Records a payment on a closed period's statement, or finds it recorded under the same key.

    Raises Refused: INPUT_INVALID (key, bank reference, a value date that lies ahead), AMOUNT_INVALID,
    CURRENCY_MISMATCH, STATEMENT_NOT_FOUND, IDEMPOTENCY_CONFLICT (the key recorded another payment), TERMS_MISSING,
    OVERLOADED.
    """
    if not is_clean_text(given.key, KEY_MAX_CHARACTERS):
        message = f"an idempotency key has 1 to {KEY_MAX_CHARACTERS} printable characters"
        raise Refused(RefusalCode.INPUT_INVALID, message, "idempotencyKey")
    if not is_clean_text(given.bank_reference, REFERENCE_MAX_CHARACTERS):
        message = f"a bank reference has 1 to {REFERENCE_MAX_CHARACTERS} printable characters"
        raise Refused(RefusalCode.INPUT_INVALID, message, "bankReference")
    return await in_open_period(database, clock, lambda period: _record(period, given))


async def _record(period: OpenPeriod, given: NewPayment) -> RecordedPayment:
    connection, programme = period.connection, period.configuration.programme
    amount_minor = _signed_minor(given.amount, programme)
    await lock_partner(connection, given.partner_id)
    period_id = await _statement_period(connection, given)
    held = (await connection.execute(PAYMENT_BY_KEY_SQL, {"key": given.key})).one_or_none()
    if held is not None:
        return _replayed(Payment(*held), given, period_id, amount_minor)
    if given.value_date > local_date(period.now, programme.zone):
        message = "valueDate lies ahead: record a payment when the bank has booked it"
        raise Refused(RefusalCode.INPUT_INVALID, message, "valueDate")
    amount_micro = amount_minor * micro_per_minor(programme.currency_digits)
    entry = (given.partner_id, "PAYMENT", None, -amount_micro, None)
    entry_id, _ = await write_entry(connection, period.period_id, period.now, entry)
    payment = Payment(
        entry_id,
        given.key,
        given.partner_id,
        period_id,
        amount_minor,
        given.value_date,
        given.bank_reference,
        period.now,
        period.period_id,
    )
    await connection.execute(
        INSERT_PAYMENT_SQL,
        {
            "id": payment.id,
            "key": payment.key,
            "partner_id": payment.partner_id,
            "period_id": payment.period_id,
            "amount_minor": payment.amount_minor,
            "value_date": payment.value_date,
            "bank_reference": payment.bank_reference,
            "recorded_at": payment.recorded_at,
            "recorded_by": given.recorded_by,
        },
    )
    await recover(period, payment.id, (period_id, given.partner_id))
    return RecordedPayment(payment, replayed=False)


def _signed_minor(amount: Amount, programme: Programme) -> int:
    size = checked_amount(Amount(amount.value.copy_abs(), amount.currency), programme, "amount")
    if size == 0:
        raise Refused(RefusalCode.AMOUNT_INVALID, "a payment of nothing pays nothing", "amount")
    return size if amount.value > 0 else -size


async def _statement_period(connection: AsyncConnection, given: NewPayment) -> int:
    row = (
        await connection.execute(STATEMENT_SQL, {"label": given.label, "partner_id": given.partner_id})
    ).one_or_none()
    if row is None or not row.has_statement:
        is_open = row is not None and row.state != "CLOSED"
        why = "its period is not closed yet" if is_open else "the partner has none for this period"
        raise Refused(RefusalCode.STATEMENT_NOT_FOUND, f"there is no such statement: {why}", "label")
    period_id: int = row.id
    return period_id


def _replayed(held: Payment, given: NewPayment, period_id: int, amount_minor: int) -> RecordedPayment:
    asked = (given.partner_id, period_id, amount_minor, given.value_date, given.bank_reference)
    if asked != (held.partner_id, held.period_id, held.amount_minor, held.value_date, held.bank_reference):
        message = "this key recorded another payment; another payment needs another key"
        raise Refused(RefusalCode.IDEMPOTENCY_CONFLICT, message, "idempotencyKey")
    return RecordedPayment(held, replayed=True)


async def payments_of_statements(
    database: Database, viewer_id: int, keys: Sequence[StatementKey]
) -> dict[StatementKey, list[Payment]]:
    """By statement, its payments as they were recorded."""
    found: defaultdict[StatementKey, list[Payment]] = defaultdict(list)
    parameters = {"period_ids": [key[0] for key in keys], "partner_ids": [key[1] for key in keys]}
    async with database.reading(viewer_id) as connection:
        for row in await connection.execute(PAYMENTS_OF_STATEMENTS_SQL, parameters):
            found[(row.period_id, row.partner_id)].append(Payment(*row))
    return {key: found[key] for key in keys}


async def unpaid_statements(
    database: Database, viewer_id: int, limit: int, after: StatementKey = (0, 0)
) -> list[StatementKey]:
    """The payment list: at most ``limit`` statements of which something is open, by period and partner."""
    parameters = {"after_period": after[0], "after_partner": after[1], "limit": limit}
    async with database.reading(viewer_id) as connection:
        return [(row[0], row[1]) for row in await connection.execute(OPEN_STATEMENTS_SQL, parameters)]


# ---------------------------------------------------------------- invariant 16

PAYMENT_PLACES_SQL = text(
    f"""
    SELECT format('payment %s of partner %s: %s', coalesce(p.id, e.id), coalesce(p.partner_id, e.partner_id),
                  CASE WHEN e.id IS NULL THEN 'no entry books it' WHEN p.id IS NULL THEN 'its entry pays no statement'
                       WHEN s.partner_id IS NULL THEN 'it points to no statement'
                       ELSE 'its entry differs in partner, amount or time' END) AS place
      FROM payment AS p
      FULL JOIN (SELECT * FROM partner_entry WHERE kind = 'PAYMENT') AS e ON e.id = p.id
      LEFT JOIN statement AS s ON s.period_id = p.period_id AND s.partner_id = p.partner_id
     WHERE p.id IS NULL OR e.id IS NULL OR s.partner_id IS NULL OR e.partner_id <> p.partner_id
        OR e.amount_micro <> -p.amount_minor * CAST(:per_minor AS bigint) OR e.recorded_at <> p.recorded_at
     ORDER BY coalesce(p.id, e.id) LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a constant)
)
DUE_PLACES_SQL = text(
    f"""
    SELECT format('statement of partner %s for %s: net %s, %s brought in (%s before), %s carried on, due %s',
                  s.partner_id, t.label, s.net_minor, s.carried_in_minor, s.left_before, s.carried_on_minor,
                  s.due_minor) AS place
      FROM (SELECT *, coalesce(lag(carried_on_minor) OVER (PARTITION BY partner_id ORDER BY period_id), 0)
                      AS left_before
              FROM statement) AS s
      JOIN period AS t ON t.id = s.period_id
     WHERE s.due_minor <> s.net_minor + s.carried_in_minor - s.carried_on_minor OR s.carried_in_minor <> s.left_before
        OR (s.due_minor <> 0 AND s.carried_on_minor <> 0)
        OR CASE WHEN EXISTS (SELECT FROM final_statement AS f
                              WHERE f.period_id = s.period_id AND f.partner_id = s.partner_id)
                THEN s.carried_on_minor <> 0 ELSE s.due_minor <> 0 AND abs(s.due_minor) < t.minimum_minor END
     ORDER BY s.period_id, s.partner_id LIMIT {PLACES_MAX + 1}
    """  # noqa: S608 (a constant)
)
INSTRUCTED_SQL = text(
    """
    SELECT count(*) FILTER (WHERE due_minor <> 0) AS statements, coalesce(sum(due_minor), 0) AS due_minor,
           coalesce(sum(net_minor), 0) AS net_minor,
           coalesce(sum(carried_on_minor - carried_in_minor), 0) AS left_minor,
           (SELECT count(*) FROM payment) AS payments,
           (SELECT coalesce(sum(amount_micro), 0) FROM deposit_payment)
               - (SELECT coalesce(sum(deposit_micro), 0) FROM partner_default) AS deposits_micro,
           (SELECT coalesce(sum(amount_micro), 0) FROM partner_entry WHERE kind = 'BAD_DEBT') AS bad_debt_micro
      FROM statement
    """
)


async def check_payments(connection: AsyncConnection, currency_digits: int) -> Check:
    """Invariant 16 over every statement and payment there is."""
    per_minor = micro_per_minor(currency_digits)
    parameters = {"per_minor": per_minor}
    problems = [row.place for row in await connection.execute(PAYMENT_PLACES_SQL, parameters)]
    problems += [row.place for row in await connection.execute(DUE_PLACES_SQL)]
    problems += await deposit_problems(connection)
    problems += await default_problems(connection, currency_digits)
    row = (await connection.execute(INSTRUCTED_SQL)).one()
    due, net, left = (
        decimal_from_minor(int(minor), currency_digits) for minor in (row.due_minor, row.net_minor, row.left_minor)
    )
    if row.due_minor + row.left_minor != row.net_minor:
        problems.append(f"instructed {due}, nets {net}, carried on {left}")
    fact = f"{row.statements} statements instruct {due} = nets {net} - {left} carried on; {row.payments} payments"
    for what, micro in (("deposits of", row.deposits_micro), ("bad debt of", row.bad_debt_micro)):
        fact += f", {what} {decimal_from_minor(int(micro) // per_minor, currency_digits)}" if micro else ""
    return check(16, problems, fact)

"""Top-ups of prepaid floats: money that a partner paid in, a block of its float and a deposit in the books.

A float limits what its partner may award (SETTLEMENT.md c.4); what is awarded is charged on the statement as anybody's
is. The money itself is the partner's until then: BANK against DEPOSIT (c.2). The same statement credits what was drawn
of it, DEPOSIT against PARTNER (``settlement.prepaid``): so paying in charges nothing, and nothing is paid twice.
"""

from datetime import date, datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.batch import is_key
from domain.batch_clock import FUTURE_TOLERANCE
from domain.booking import OpenPeriod, in_open_period
from domain.commands import Amount, BudgetView
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.floats import BLOCK_COLUMNS, FloatBlock
from domain.loading import create_budgets, next_id_block
from domain.members import is_clean_text
from domain.periods import Clock, local_date
from domain.terms import PREPAID, BudgetPlan, Configuration
from domain.values import micro_per_minor
from settlement.inputs import positive_minor
from settlement.writing import write_entry

TEXT_MAX_CHARACTERS = 200
LIMIT_MAX_MICRO = 10**18
"""Most that a float holds; the same bound as for any limit of the coalition file."""


class TopUp(NamedTuple):
    """Money that came in for a partner's float; ``partner_id`` is None for a name that means nobody."""

    key: str
    partner_id: int | None
    amount: Amount
    occurred_at: datetime
    bank_reference: str | None = None
    note: str | None = None


class ToppedUp(NamedTuple):
    """The block, its float now, and whether the key had been used for just that before."""

    block: FloatBlock
    budget: BudgetView
    replayed: bool


BY_KEY_SQL = text(f"SELECT {BLOCK_COLUMNS} FROM float_block AS f WHERE f.idempotency_key = :key")  # noqa: S608
LOCK_SQL = text("SELECT id FROM budget WHERE plan_id = :plan_id AND period_id = 0 FOR NO KEY UPDATE")
WINDOW_SQL = text(
    "SELECT b.partner_id, b.limit_micro, b.overdraft_micro, b.consumed_micro, b.reserved_micro, b.alerted_at,"
    " p.funding, b.id FROM budget AS b JOIN budget_plan AS p ON p.id = b.plan_id WHERE b.id = :id"
)
INSERT_BLOCK_SQL = text(
    """
    INSERT INTO float_block (id, budget_id, partner_id, amount_micro, occurred_at, recorded_at, entry_id,
                             idempotency_key, bank_reference, note)
    VALUES (:id, :budget_id, :partner_id, :amount_micro, CAST(:occurred_at AS timestamptz),
            CAST(:recorded_at AS timestamptz), :entry_id, :key, CAST(:bank_reference AS text), CAST(:note AS text))
    """
)
RAISE_SQL = text(
    """
    UPDATE budget SET limit_micro = limit_micro + :amount_micro, alerted_at = CAST(:alerted_at AS timestamptz)
     WHERE id = :id
    """
)


async def top_up_budget(database: Database, clock: Clock, top_up: TopUp) -> ToppedUp:
    """Adds a block to the partner's float and books the money; the float of today, or else the next one to begin.

    Raises Refused: INPUT_INVALID (key, texts, no such partner, no prepaid budget), AMOUNT_INVALID, CURRENCY_MISMATCH,
    OCCURRED_IN_FUTURE, IDEMPOTENCY_CONFLICT, OVERLOADED.
    """
    _check_texts(top_up)

    async def pay_in(period: OpenPeriod) -> ToppedUp:
        connection, configuration = period.connection, period.configuration
        amount_micro = _amount_micro(configuration, top_up, period.now)
        earlier = await _earlier(connection, top_up, amount_micro)
        if earlier is not None:
            return earlier
        plan = _float_of(configuration, top_up.partner_id, local_date(period.now, configuration.programme.zone))
        ids = await next_id_block(connection)
        await create_budgets(connection, [(plan, 0)], ids[:1])
        budget_id = (await connection.execute(LOCK_SQL, {"plan_id": plan.id})).scalar_one()
        # New statements: whoever held the lock may have used the key.
        earlier = await _earlier(connection, top_up, amount_micro)
        if earlier is not None:
            return earlier
        window = await _window(connection, budget_id)
        if window.limit_micro + amount_micro > LIMIT_MAX_MICRO:
            raise Refused(RefusalCode.AMOUNT_INVALID, "the float would hold too much", "amount.amount")
        entry = (plan.partner_id, "DEPOSIT", None, amount_micro, None)
        entry_id, _ = await write_entry(connection, period.period_id, period.now, entry)
        await connection.execute(
            INSERT_BLOCK_SQL,
            {
                "id": ids[1],
                "budget_id": budget_id,
                "partner_id": plan.partner_id,
                "amount_micro": amount_micro,
                "occurred_at": top_up.occurred_at,
                "recorded_at": period.now,
                "entry_id": entry_id,
                "key": top_up.key,
                "bank_reference": top_up.bank_reference,
                "note": top_up.note,
            },
        )
        # More money never raises an alarm; it may end one.
        used_micro = window.consumed_micro + window.reserved_micro
        alerted_at = window.alerted_at if plan.is_alert(window.limit_micro + amount_micro, used_micro) else None
        parameters = {"id": budget_id, "amount_micro": amount_micro, "alerted_at": alerted_at}
        await connection.execute(RAISE_SQL, parameters)
        [made] = await _blocks(connection, top_up.key)
        return ToppedUp(made, await _window(connection, budget_id), replayed=False)

    return await in_open_period(database, clock, pay_in)


def _check_texts(top_up: TopUp) -> None:
    if not is_key(top_up.key):
        message = "an idempotency key has 1 to 200 printable characters"
        raise Refused(RefusalCode.INPUT_INVALID, message, "idempotencyKey")
    for name, value in (("bankReference", top_up.bank_reference), ("note", top_up.note)):
        if value is not None and not is_clean_text(value, TEXT_MAX_CHARACTERS):
            message = f"{name} has 1 to {TEXT_MAX_CHARACTERS} printable characters"
            raise Refused(RefusalCode.INPUT_INVALID, message, name)


def _amount_micro(configuration: Configuration, top_up: TopUp, now: datetime) -> int:
    if top_up.partner_id not in configuration.partners:
        raise Refused(RefusalCode.INPUT_INVALID, "there is no such partner", "partnerCode")
    minor = positive_minor(top_up.amount, configuration.programme)
    if top_up.occurred_at > now + FUTURE_TOLERANCE:
        raise Refused(RefusalCode.OCCURRED_IN_FUTURE, "the money cannot have come in later than now", "occurredAt")
    return minor * micro_per_minor(configuration.programme.currency_digits)


def _float_of(configuration: Configuration, partner_id: int | None, today: date) -> BudgetPlan:
    """The float of today, or the next one to begin."""
    plans = configuration.budget_plans.get(partner_id or 0, ())
    for plan in plans:
        if plan.is_prepaid and (plan.ends is None or today < plan.ends):
            return plan
    message = f'the partner has no {PREPAID} budget: give it one in the coalition file, with funding = "{PREPAID}"'
    raise Refused(RefusalCode.INPUT_INVALID, message, "partnerCode")


async def _earlier(connection: AsyncConnection, top_up: TopUp, amount_micro: int) -> ToppedUp | None:
    """What the key did before. Raises Refused(IDEMPOTENCY_CONFLICT) where that was something else."""
    found = await _blocks(connection, top_up.key)
    if not found:
        return None
    block = found[0]
    asked = (top_up.partner_id, amount_micro, top_up.occurred_at, top_up.bank_reference, top_up.note)
    if asked != (block.partner_id, block.amount_micro, block.occurred_at, block.bank_reference, block.note):
        message = "this key was used for another top-up; a new one needs a new key"
        raise Refused(RefusalCode.IDEMPOTENCY_CONFLICT, message, "idempotencyKey")
    return ToppedUp(block, await _window(connection, block.budget_id), replayed=True)


async def _blocks(connection: AsyncConnection, key: str) -> list[FloatBlock]:
    return [FloatBlock(*row) for row in await connection.execute(BY_KEY_SQL, {"key": key})]


async def _window(connection: AsyncConnection, budget_id: int) -> BudgetView:
    return BudgetView(*(await connection.execute(WINDOW_SQL, {"id": budget_id})).one())

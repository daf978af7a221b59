"""Negative balances, where the programme allows them: what a member owes, and what pays it back (SETTLEMENT.md c.3).

A return that finds too few points credits the funder of the award in full all the same. What no lot gave is a debt of
the member to the operator, at the issue price that the funder gets back: the pool stays as it is, and the operator
holds a MEMBER_RECEIVABLE. Points that arrive later, however they do, pay debts back at once, the oldest first: they
leave the pool at the price of their own lot, the receivable falls by the debt's price, and the difference of the two is
SPREAD.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text

from domain.batch import Batch, CommandInput, LotUseRow, TransactionRow
from domain.batch_clock import Booking
from domain.commands import CommandKind, CommandRow, MovementKind
from domain.database import BatchConnection, int_array
from domain.errors import LedgerFault
from domain.ledger import fingerprint
from domain.lots import Account, ClawBack, Debt, Lot, allocate, burn_order
from domain.rows import command_row, movement_row
from domain.terms import Programme
from domain.values import OPERATOR_ID

REPAYMENT_KEY_PREFIX = "system:repayment:"
"""Before a repayment's own id, its key."""

DEBT_COLUMNS = (
    "account_id", "id", "command_id", "member_id", "period_id", "funder_id", "terms_id", "price_micro", "points",
    "open_points", "occurred_at",
)  # fmt: skip
"""Every column of ``debt``, in the table's order and that of Debt's fields."""

OPEN_DEBTS_SQL = text(
    f"SELECT {', '.join(DEBT_COLUMNS)} FROM debt"  # noqa: S608 (constants of this module)
    " WHERE account_id = ANY(CAST(:accounts AS bigint[])) AND open_points > 0 ORDER BY id"
)
INSERT_DEBTS_SQL = text(
    f"INSERT INTO debt ({', '.join(DEBT_COLUMNS)})"  # noqa: S608 (constants of this module)
    f" SELECT {', '.join(DEBT_COLUMNS)} FROM unnest(CAST(:rows AS debt[])) AS new ORDER BY account_id, id"
)
UPDATE_DEBTS_SQL = text(
    """
    UPDATE debt SET open_points = new.open_points
      FROM unnest(CAST(:accounts AS bigint[]), CAST(:ids AS bigint[]), CAST(:open AS bigint[]))
        AS new (account_id, id, open_points)
     WHERE debt.account_id = new.account_id AND debt.id = new.id
    """
)
UPDATE_OWED_SQL = text(
    """
    UPDATE account SET owed = new.owed
      FROM unnest(CAST(CAST(:ids AS text) AS bigint[]), CAST(CAST(:owed AS text) AS bigint[])) AS new (id, owed)
     WHERE account.id = new.id
    """
)


async def load_debts(connection: BatchConnection, batch: Batch) -> None:
    """Step 6: what the batch's accounts owe; no statement where none does."""
    batch.owing = {account.id for account in batch.accounts.values() if account.owed}
    if batch.owing:
        for row in (await connection.execute(OPEN_DEBTS_SQL, {"accounts": list(batch.owing)})).all():
            batch.accounts[row[0]].debts.append(Debt(*row))


async def write_debts(connection: BatchConnection, batch: Batch) -> None:
    """Step 8: debts that the batch made or that something was paid of, and what their accounts owe in all.

    Raises LedgerFault where another one changed them.
    """
    accounts = [batch.accounts[account_id] for account_id in sorted(batch.owing)]
    debts = [debt for account in accounts for debt in account.debts]
    new = [debt for debt in debts if debt.is_new]
    paid = [debt for debt in debts if debt.is_changed and not debt.is_new]
    if not new and not paid:
        return
    rows = [tuple(getattr(debt, column) for column in DEBT_COLUMNS) for debt in new]
    changes = {
        "accounts": [debt.account_id for debt in paid],
        "ids": [debt.id for debt in paid],
        "open": [debt.open_points for debt in paid],
    }
    owed = {"ids": int_array(sorted(batch.owing)), "owed": int_array([account.owed for account in accounts])}
    written = (await connection.execute(INSERT_DEBTS_SQL, {"rows": rows})).rowcount if new else 0
    written += (await connection.execute(UPDATE_DEBTS_SQL, changes)).rowcount if paid else 0
    written += (await connection.execute(UPDATE_OWED_SQL, owed)).rowcount
    if written != len(new) + len(paid) + len(accounts):
        raise LedgerFault(f"debts of accounts {sorted(batch.owing)} were changed meanwhile")


# ---------------------------------------------------------------- made


def overdrawable(programme: Programme, account: Account, points: int) -> int:
    """How many of the points that a return could not take back the member may owe."""
    if programme.claw_back != ClawBack.NEGATIVE_BALANCE:
        return 0
    most = programme.negative_limit_points
    return points if most is None else max(min(points, most - account.owed), 0)


def owe(batch: Batch, account: Account, member_id: int, overdrawn: TransactionRow) -> None:
    """Notes what an OVERDRAW movement leaves: the account owes its points, at the price of the award's terms."""
    assert overdrawn.funder_id is not None
    assert overdrawn.terms_id is not None
    points = -overdrawn.points
    debt = Debt(
        account_id=account.id,
        id=overdrawn.id,
        command_id=overdrawn.command_id,
        member_id=member_id,
        period_id=overdrawn.period_id,
        funder_id=overdrawn.funder_id,
        terms_id=overdrawn.terms_id,
        price_micro=batch.configuration.terms_by_id[overdrawn.terms_id].issue_price_micro,
        points=points,
        open_points=points,
        occurred_at=overdrawn.occurred_at,
        is_new=True,
    )
    account.debts.append(debt)
    account.owed += points
    batch.owing.add(account.id)


# ---------------------------------------------------------------- paid back


def pay_back(batch: Batch, occurred_at: datetime | None) -> None:
    """Takes what is usable of every account that owes for its debts, the oldest first, out of lots in burn order.

    ``occurred_at`` is that of the command that was just decided. Each debt is paid by a command of the operator's own:
    to whom a member owes points is no business of the partner whose command brought the points that pay them.
    """
    moment = occurred_at or batch.clock.recorded_at
    for account in [batch.accounts[account_id] for account_id in sorted(batch.owing)]:
        # Whatever was usable before was taken when the account began to owe: these are all among the loaded lots.
        usable = burn_order(account.lots, batch.clock.expiry_instant(moment)) if account.owed else []
        repay_with(batch, account, usable, moment)


def repay_with(batch: Batch, account: Account, lots: Sequence[Lot], occurred_at: datetime) -> None:
    """Takes what is in these lots for the account's debts, the oldest first."""
    for debt in account.debts:
        parts = allocate(lots, debt.open_points)
        if parts:
            _repay(batch, account, debt, parts, occurred_at)


def _repay(batch: Batch, account: Account, debt: Debt, parts: Sequence[tuple[Lot, int]], occurred_at: datetime) -> None:
    points = sum(part for _, part in parts)
    row = _command_row(batch, debt, points, batch.clock.booking(occurred_at), occurred_at)
    print_ = fingerprint(
        kind=row.kind,
        member_id=row.member_id,
        store_id=row.store_id,
        points=row.points,
        reverses_id=row.reverses_id,
        occurred_at=row.occurred_at,
    )
    batch.new_commands.append((row, CommandInput(print_, reference_unique=False)))
    for lot, part in parts:
        transaction_id = next(batch.new_ids)
        batch.new_transactions.append(_movement(row, debt, lot, transaction_id, part))
        batch.new_lot_uses.append(_lot_use(batch, row, lot, transaction_id, part))
        lot.take(part)
    debt.repay(points)
    account.owed -= points
    account.change(-points)
    account.note_next_expiry()


def _command_row(batch: Batch, debt: Debt, points: int, booking: Booking, occurred_at: datetime) -> CommandRow:
    command_id = next(batch.new_ids)
    return command_row(
        batch,
        CommandKind.REPAYMENT,
        id_=command_id,
        partner_id=OPERATOR_ID,
        key=f"{REPAYMENT_KEY_PREFIX}{command_id}",
        account_id=debt.account_id,
        member_id=debt.member_id,
        points=points,
        reverses_id=debt.command_id,
        occurred_at=occurred_at,
        period_id=booking.period_id,
        moved_points=-points,
    )


def _movement(row: CommandRow, debt: Debt, lot: Lot, transaction_id: int, points: int) -> TransactionRow:
    """One lot's part: the pool gives its price, and the receivable (``issue_value_micro``) falls by the debt's."""
    return movement_row(
        row,
        transaction_id,
        MovementKind.REPAY,
        -points,
        party_id=OPERATOR_ID,
        issuer_id=lot.issuer_id,
        issue_value_micro=points * debt.price_micro,
        pool_value_micro=-points * lot.price_micro,
        terms_id=debt.terms_id,
        lot_id=lot.id,
        reverses_id=debt.id,
        reverses_period_id=debt.period_id,
    )


def _lot_use(batch: Batch, row: CommandRow, lot: Lot, transaction_id: int, points: int) -> LotUseRow:
    return LotUseRow(
        account_id=lot.account_id,
        id=next(batch.new_ids),
        lot_id=lot.id,
        transaction_id=transaction_id,
        kind=MovementKind.REPAY,
        points=points,
        period_id=row.period_id,
        issuer_id=lot.issuer_id,
        funder_id=lot.funder_id,
        redeemer_id=None,
        price_micro=lot.price_micro,
    )

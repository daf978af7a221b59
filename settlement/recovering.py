"""Recovery: what a partner pays of a statement after it was written off (SETTLEMENT.md c.2, bad debt).

The payment is booked as any other, BANK against PARTNER; as far as it brings more than was still open, a BAD_DEBT entry
of the other sign takes the loss back. What it brings beyond that stays open with the other sign, and nothing vanishes.
A payment that the bank takes back is recorded with the other sign, and what it had recovered is bad debt again.
"""

from sqlalchemy import text

from domain.booking import OpenPeriod
from domain.values import micro_per_minor
from settlement.writing import write_entry

BALANCE_SQL = text(
    """
    SELECT written_off_minor, recovered_minor, open_minor + withheld_minor + recovered_minor AS beyond_minor
      FROM statement_balance WHERE period_id = :period_id AND partner_id = :partner_id
    """
)
INSERT_SQL = text(
    """
    INSERT INTO recovery (entry_id, payment_id, period_id, partner_id, amount_micro)
    VALUES (:entry_id, :payment_id, :period_id, :partner_id, :amount_micro)
    """
)


def recovered_minor(written_off_minor: int, beyond_minor: int) -> int:
    """How much of what was written off has come in; ``beyond_minor``: what covers the statement beyond what is due."""
    return min(written_off_minor, max(beyond_minor, 0))


async def recover(period: OpenPeriod, payment_id: int, key: tuple[int, int]) -> None:
    """Books what a payment just recorded changes of what a statement (period id, partner id) recovered."""
    period_id, partner_id = key
    parameters = {"period_id": period_id, "partner_id": partner_id}
    row = (await period.connection.execute(BALANCE_SQL, parameters)).one()
    change_minor = recovered_minor(int(row.written_off_minor), int(row.beyond_minor)) - int(row.recovered_minor)
    if change_minor == 0:
        return
    amount_micro = change_minor * micro_per_minor(period.configuration.programme.currency_digits)
    entry = (partner_id, "BAD_DEBT", None, -amount_micro, None)
    entry_id, _ = await write_entry(period.connection, period.period_id, period.now, entry)
    await period.connection.execute(
        INSERT_SQL, {**parameters, "entry_id": entry_id, "payment_id": payment_id, "amount_micro": amount_micro}
    )

"""Deposits as people and programs read them: account by account, and what was paid in and out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

PAYMENTS_SHOWN_MAX = 100
"""Most payments of one deposit that are read at once: the latest ones."""


@dataclass(frozen=True, slots=True)
class DepositAccount:
    """A partner's deposit, in micro-units.

    ``owes_micro`` is what the partner would owe if everything were settled now: minus its account in the books, what
    is open of statements, disputed or not closed yet included; 0 where it is the operator who owes. ``defaulted_at``:
    when a statement was last declared in default.
    """

    partner_id: int
    required_micro: int
    held_micro: int
    owes_micro: int
    defaulted_at: datetime | None = None

    @property
    def shortfall_micro(self) -> int:
        """What is missing of what is required."""
        return max(self.required_micro - self.held_micro, 0)

    @property
    def free_micro(self) -> int:
        """What may be paid out: what neither the requirement nor a debt needs."""
        return max(self.held_micro - max(self.required_micro, self.owes_micro), 0)


@dataclass(frozen=True, slots=True)
class DepositPayment:
    """Money paid into a deposit (positive) or out of it; ``key`` is None of the latter, ``value_date`` too."""

    id: int
    key: str | None
    proposal_id: int | None
    partner_id: int
    amount_micro: int
    value_date: date | None
    bank_reference: str
    recorded_at: datetime


PAYMENT_COLUMNS = "id, idempotency_key, proposal_id, partner_id, amount_micro, value_date, bank_reference, recorded_at"
ACCOUNTS_SQL = text(
    "SELECT partner_id, required_micro, held_micro, owes_micro, defaulted_at FROM deposit_account"
    " WHERE partner_id = ANY(CAST(:ids AS integer[]))"
)
PAGE_SQL = text(
    "SELECT partner_id, required_micro, held_micro, owes_micro, defaulted_at FROM deposit_account"
    " WHERE partner_id > :after AND is_used ORDER BY partner_id LIMIT :limit"
)
PAYMENTS_SQL = text(
    f"""
    SELECT {PAYMENT_COLUMNS}
      FROM (SELECT *, row_number() OVER (PARTITION BY partner_id ORDER BY id DESC) AS place FROM deposit_payment
             WHERE partner_id = ANY(CAST(:ids AS integer[]))) AS d
     WHERE place <= {PAYMENTS_SHOWN_MAX} ORDER BY id DESC
    """  # noqa: S608 (constants)
)


def payment_of(row: Row[Any]) -> DepositPayment:
    """A row selected as PAYMENT_COLUMNS."""
    return DepositPayment(*tuple(row))


def _account(row: Row[Any]) -> DepositAccount:
    partner_id, required, held, owes, defaulted_at = tuple(row)
    return DepositAccount(partner_id, int(required), int(held), int(owes), defaulted_at)


async def deposit_accounts(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, DepositAccount]:
    """By partner id, its deposit, also where none was ever asked for."""
    return {row[0]: _account(row) for row in await connection.execute(ACCOUNTS_SQL, {"ids": list(ids)})}


async def deposits_page(connection: AsyncConnection, after: int, limit: int) -> list[DepositAccount]:
    """Deposits that are required or were paid into, of partners after that id, ascending."""
    return [_account(row) for row in await connection.execute(PAGE_SQL, {"after": after, "limit": limit})]


async def payments_of_deposits(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, list[DepositPayment]]:
    """By partner id, what was paid in and out, latest first."""
    found: defaultdict[int, list[DepositPayment]] = defaultdict(list)
    for row in await connection.execute(PAYMENTS_SQL, {"ids": list(ids)}):
        found[row.partner_id].append(payment_of(row))
    return dict(found)

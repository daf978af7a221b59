"""Prepaid floats in few words: a coalition with one, money paid in, and what stands in its blocks."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from domain.commands import Amount
from settlement.top_ups import ToppedUp, TopUp, top_up_budget
from settlement.verifying import verify
from tests.domain.coalitions import Table, Value, coalition, partner
from tests.domain.tills import Till

PRICE = 11_000
"""Gross price of one of the grocer's points, in micro-units."""


def float_of(**budget: Value) -> Table:
    """A prepaid budget that opens with nothing, unless told otherwise."""
    return {"funding": "PREPAID", "limit": "0", **budget}


def prepaid(**budget: Value) -> str:
    """A coalition whose grocer pays in advance."""
    return coalition(partner("grocer", budgets=float_of(**budget)), partner("fuel"))


def top_up(
    till: Till,
    amount: str,
    key: str,
    *,
    code: str = "grocer",
    at: datetime | None = None,
    currency: str = "EUR",
    **texts: Any,
) -> TopUp:
    """Money that came in now."""
    known = till.configuration.partners_by_code.get(code)
    partner_id = None if known is None else known.id
    return TopUp(key, partner_id, Amount(Decimal(amount), currency), at or till.clock.now, **texts)


async def paid_in(till: Till, *amounts: str, code: str = "grocer") -> list[ToppedUp]:
    """The blocks that these payments, a minute apart, become; their keys are top-1, top-2 and so on."""
    made = []
    for number, amount in enumerate(amounts, 1):
        made.append(await top_up_budget(till.database, till.clock, top_up(till, amount, f"top-{number}", code=code)))
        till.clock.forward(minutes=1)
    return made


async def used(till: Till) -> list[int]:
    """What is used of each block in micro-units, from the oldest on."""
    return [micro for (micro,) in await till.rows("SELECT used_micro FROM float_block ORDER BY occurred_at, id")]


async def uses(till: Till, key: str) -> list[tuple[str | None, int]]:
    """(key of the block's payment, micro-units) that the movements of a command drew or gave back, in order."""
    return [
        (row[0], row[1])
        for row in await till.rows(
            "SELECT b.idempotency_key, u.amount_micro FROM float_use AS u JOIN float_block AS b ON b.id = u.block_id"
            "  JOIN transaction AS t ON t.id = u.transaction_id JOIN command AS c ON c.id = t.command_id"
            " WHERE c.idempotency_key = :key ORDER BY t.id, u.amount_micro < 0, b.occurred_at, b.id",
            key=key,
        )
    ]


async def failing(till: Till) -> dict[int, str]:
    """The invariants that a verification finds broken, with what it says."""
    report = await verify(till.database, till.clock)
    return {check.number: check.detail for check in report.checks if not check.holds}

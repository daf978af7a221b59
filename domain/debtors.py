"""Who owes points to the operator, and since when: a page at a time, oldest first."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


class DebtKey(NamedTuple):
    """Where a debt stands in the list: when the goods came back, and its id."""

    occurred_at: datetime
    id: int


class OpenDebt(NamedTuple):
    """What a member still owes of one award of one return: ``open_points`` of ``points``, worth ``price_micro`` each.

    ``funder_id`` was credited (0: the operator), ``command_id`` is the return.
    """

    key: DebtKey
    member_id: int
    issuer_id: int
    funder_id: int
    command_id: int
    points: int
    open_points: int
    price_micro: int

    @property
    def value_micro(self) -> int:
        """What the operator is owed."""
        return self.open_points * self.price_micro


OPEN_DEBTS_SQL = text(
    """
    SELECT d.occurred_at, d.id, d.member_id, t.partner_id, d.funder_id, d.command_id, d.points, d.open_points,
           d.price_micro
      FROM debt AS d JOIN terms AS t ON t.id = d.terms_id
     WHERE d.open_points > 0 AND (d.occurred_at, d.id) > (CAST(:after_at AS timestamptz), CAST(:after_id AS bigint))
     ORDER BY d.occurred_at, d.id LIMIT :limit
    """
)


async def debts_page(connection: AsyncConnection, after: DebtKey, limit: int) -> Sequence[OpenDebt]:
    """The next debts after that place in the list. Only the operator sees any."""
    parameters = {"after_at": after.occurred_at, "after_id": after.id, "limit": limit}
    rows = await connection.execute(OPEN_DEBTS_SQL, parameters)
    return [OpenDebt(DebtKey(at, id_), *rest) for at, id_, *rest in rows]

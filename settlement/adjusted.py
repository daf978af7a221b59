"""Adjustments as their partner reads them, beside the statement whose line ADJUSTMENT they make."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.positions import LineKind
from domain.proposals import ProposalReason


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One adjustment, signed from the partner's side; ``of_`` says which closed line it corrects."""

    period_id: int
    partner_id: int
    amount_micro: int
    reason_code: ProposalReason
    note: str
    of_period_id: int | None
    of_line_kind: LineKind | None
    dispute_id: int | None
    booked_at: datetime


OF_STATEMENTS_SQL = text(
    """
    SELECT a.period_id, a.partner_id, a.amount_micro, a.reason_code, a.note, a.of_period_id, a.of_line_kind,
           a.dispute_id, a.booked_at
      FROM adjustment AS a
      JOIN unnest(CAST(:period_ids AS integer[]), CAST(:partner_ids AS integer[])) AS asked (period_id, partner_id)
     USING (period_id, partner_id)
     WHERE a.kind = 'ADJUSTMENT'
     ORDER BY a.entry_id
    """
)


async def adjustments_of_statements(
    connection: AsyncConnection, keys: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], list[Adjustment]]:
    """By statement (period id, partner id), what its line ADJUSTMENT sums, in the order of booking."""
    parameters = {"period_ids": [key[0] for key in keys], "partner_ids": [key[1] for key in keys]}
    found: dict[tuple[int, int], list[Adjustment]] = {}
    for row in await connection.execute(OF_STATEMENTS_SQL, parameters):
        period_id, partner_id, amount_micro, reason, note, of_period_id, of_line, dispute_id, at = row
        line = None if of_line is None else LineKind(of_line)
        one = Adjustment(
            period_id, partner_id, amount_micro, ProposalReason(reason), note, of_period_id, line, dispute_id, at
        )
        found.setdefault((period_id, partner_id), []).append(one)
    return found

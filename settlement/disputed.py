"""Disputes as they stand, for whoever may see them; ``settlement.disputes`` opens and ends them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.positions import LineKind


class DisputeState(StrEnum):
    """Where a dispute is in its life; it leaves OPEN once."""

    OPEN = "OPEN"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    WITHDRAWN = "WITHDRAWN"


class DisputeReason(StrEnum):
    """Why a line is disputed."""

    NOT_OURS = "NOT_OURS"
    WRONG_AMOUNT = "WRONG_AMOUNT"
    WRONG_TERMS = "WRONG_TERMS"
    DUPLICATE = "DUPLICATE"
    GOODS_RETURNED = "GOODS_RETURNED"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class Dispute:
    """A row of ``dispute``; amounts in minor units, ``withheld_minor`` signed as the line."""

    id: int
    period_id: int
    partner_id: int
    line_kind: LineKind
    amount_minor: int
    withheld_minor: int
    reason_code: DisputeReason
    note: str
    key: str
    opened_by: str
    opened_at: datetime
    state: DisputeState
    accepted_minor: int
    decided_at: datetime | None
    decision_note: str | None
    withdrawal_key: str | None


class DisputeConditions(NamedTuple):
    """Which disputes to list; None does not limit."""

    partner_id: int | None = None
    state: DisputeState | None = None
    period_id: int | None = None


COLUMNS = (
    "id, period_id, partner_id, line_kind, amount_minor, withheld_minor, reason_code, note, idempotency_key, opened_by,"
    " opened_at, state, accepted_minor, decided_at, decision_note, withdrawal_key"
)
BY_ID_SQL = text(
    f"SELECT {COLUMNS} FROM dispute WHERE id = ANY(CAST(:ids AS bigint[]))"  # noqa: S608 (columns of this module)
)
TRANSACTIONS_SQL = text(
    """
    SELECT dispute_id, command_id FROM dispute_transaction WHERE dispute_id = ANY(CAST(:ids AS bigint[]))
     ORDER BY dispute_id, command_id
    """
)
PAGE_SQL = text(
    f"""
    SELECT {COLUMNS} FROM dispute
     WHERE id < :before AND (CAST(:partner_id AS integer) IS NULL OR partner_id = :partner_id)
       AND (CAST(:state AS text) IS NULL OR state = :state)
       AND (CAST(:period_id AS integer) IS NULL OR period_id = :period_id)
     ORDER BY id DESC LIMIT :limit
    """  # noqa: S608 (columns of this module)
)
OF_STATEMENTS_SQL = text(
    f"""
    SELECT {COLUMNS} FROM dispute
      JOIN unnest(CAST(:period_ids AS integer[]), CAST(:partner_ids AS integer[])) AS asked (period_id, partner_id)
     USING (period_id, partner_id)
     ORDER BY id
    """  # noqa: S608 (columns of this module)
)


def dispute_of(row: Sequence[Any]) -> Dispute:
    """A row selected as COLUMNS."""
    id_, period_id, partner_id, line_kind, amount, withheld, reason, note, key, client, at, state, *rest = row
    return Dispute(
        id_, period_id, partner_id, LineKind(line_kind), amount, withheld, DisputeReason(reason), note, key, client, at,
        DisputeState(state), *rest,
    )  # fmt: skip


async def disputes_by_id(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, Dispute]:
    """Disputes by their ids, as far as the viewer may see them."""
    rows = await connection.execute(BY_ID_SQL, {"ids": list(ids)})
    return {dispute.id: dispute for dispute in map(dispute_of, rows)}


async def disputes_page(
    connection: AsyncConnection, before: int, limit: int, conditions: DisputeConditions
) -> list[Dispute]:
    """At most ``limit`` disputes that the viewer may see, from before that id on, latest first."""
    parameters = {"before": before, "limit": limit, **conditions._asdict()}
    return [dispute_of(row) for row in await connection.execute(PAGE_SQL, parameters)]


async def disputes_of_statements(
    connection: AsyncConnection, keys: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], list[Dispute]]:
    """By statement (period id, partner id), its disputes in the order in which they were opened."""
    parameters = {"period_ids": [key[0] for key in keys], "partner_ids": [key[1] for key in keys]}
    found: dict[tuple[int, int], list[Dispute]] = {}
    for dispute in map(dispute_of, await connection.execute(OF_STATEMENTS_SQL, parameters)):
        found.setdefault((dispute.period_id, dispute.partner_id), []).append(dispute)
    return found


async def transactions_of_disputes(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, list[int]]:
    """By dispute, the ids of the commands that it names; a dispute of a whole line has none."""
    found: dict[int, list[int]] = {}
    for dispute_id, command_id in await connection.execute(TRANSACTIONS_SQL, {"ids": list(ids)}):
        found.setdefault(dispute_id, []).append(command_id)
    return found

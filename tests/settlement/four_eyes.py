"""Proposals and approvals in few words, on the worked example's rows."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import text

from domain.commands import Amount
from domain.database import Database
from domain.periods import Clock
from domain.positions import LineKind
from domain.proposals import Decision, Proposal, ProposalReason, ProposalState, Step
from settlement.adjustments import AdjustmentAsk, WriteOffAsk, approve_money, propose_adjustment, propose_write_off

PROPOSER, APPROVER, THIRD = "client-1", "client-2", "client-3"


def euros(amount: str) -> Amount:
    return Amount(Decimal(amount), "EUR")


def standing(instant: datetime) -> Clock:
    return lambda: instant


async def adjustment(
    database: Database,
    now: datetime,
    partner_id: int | None,
    amount: str,
    *,
    key: str = "p-1",
    label: str | None = None,
    line: LineKind | None = None,
    currency: str = "EUR",
) -> Proposal:
    """A proposed adjustment."""
    ask = AdjustmentAsk(
        partner_id, Amount(Decimal(amount), currency), ProposalReason.CORRECTION, "agreed by letter", label, line
    )
    return (await propose_adjustment(database, standing(now), PROPOSER, key, ask)).proposal


async def write_off(
    database: Database, now: datetime, partner_id: int, label: str, amount: str, *, key: str = "w-1"
) -> Proposal:
    """A proposed write-off."""
    ask = WriteOffAsk(partner_id, euros(amount), ProposalReason.UNCOLLECTABLE, "insolvent", label)
    return (await propose_write_off(database, standing(now), PROPOSER, key, ask)).proposal


async def approve(
    database: Database, now: datetime, proposal: Proposal, *, client: str = APPROVER, key: str | None = None
) -> Step:
    """The approval of a proposal of money."""
    decision = Decision(ProposalState.APPROVED, client, key or f"a-{proposal.id}", None)
    return await approve_money(database, standing(now), proposal.id, decision)


async def rows(database: Database, sql: str) -> list[tuple[Any, ...]]:
    async with database.posting() as connection:
        return [tuple(row) for row in await connection.execute(text(sql))]

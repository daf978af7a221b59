"""Approvals that book money into the open period: what all kinds of them share."""

from collections.abc import Awaitable, Callable

from domain.booking import OpenPeriod, in_open_period
from domain.database import Database
from domain.periods import Clock
from domain.proposals import Content, Decision, Step, check_decision
from domain.proposing import check_step, lock_proposals, settle_proposal

Book = Callable[[OpenPeriod, int, Content], Awaitable[None]]
"""Does what a proposal (its id, its content) says, in the transaction that approves it."""


async def approve_in_open_period(
    database: Database, clock: Clock, proposal_id: int, decision: Decision, book: Book
) -> Step:
    """Approves a proposal and books it, once. Raises Refused as ``check_decision`` and ``book`` do."""
    check_step(decision)

    async def approve(period: OpenPeriod) -> Step:
        held = await lock_proposals(period.connection, [proposal_id], [decision.key])
        step = check_decision(held, proposal_id, decision)
        if step.replayed:
            return step
        await book(period, proposal_id, step.proposal.content)
        settled = await settle_proposal(period.connection, proposal_id, decision, period.now)
        return Step(settled, replayed=False)

    return await in_open_period(database, clock, approve)

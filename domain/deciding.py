"""Deciding a batch: each command in its turn, by the module of its kind."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from domain.adjusting import decide_adjust
from domain.asked import member_of
from domain.batch import Batch, Member
from domain.burning import decide_burn
from domain.commands import (
    Adjust,
    Authorize,
    Burn,
    Capture,
    Command,
    ConfirmPayment,
    CreatePool,
    Earn,
    Enroll,
    JoinPool,
    LeavePool,
    Merge,
    Outcome,
    Posted,
    Refusal,
    Reverse,
    Sweep,
    Transfer,
    Unmerge,
    Void,
)
from domain.database import BatchConnection
from domain.earning import decide_earn
from domain.enrolling import decide_enroll, key_conflict
from domain.errors import Refused
from domain.holding import decide_authorize, decide_capture, decide_void, time_out_due
from domain.merging import decide_merge, decide_unmerge
from domain.owing import pay_back
from domain.parking import decide_reversal, under_key, with_what_waited
from domain.paying import decide_payment
from domain.pooling import decide_create_pool, decide_join_pool, decide_leave_pool
from domain.sweeping import decide_sweep
from domain.transferring import decide_transfer
from domain.writing import write_ahead

AHEAD_COMMANDS = 100
"""From how many accepted commands on their rows are written while the rest of the batch is decided."""
BREATH_COMMANDS = 20


async def decide_all(connection: BatchConnection, batch: Batch, commands: Sequence[Command]) -> list[Outcome]:
    """Decides commands in order; of a large batch the first rows are written while the others are being decided."""
    outcomes: list[Outcome] = []
    ahead: asyncio.Task[None] | None = None
    try:
        for command in commands:
            outcomes.append(decide(batch, command))
            if len(outcomes) % BREATH_COMMANDS or len(commands) <= AHEAD_COMMANDS:
                continue
            if len(batch.new_commands) >= AHEAD_COMMANDS and (ahead is None or ahead.done()):
                if ahead is not None:
                    ahead.result()
                ahead = asyncio.create_task(write_ahead(connection, batch))
            # The database answers meanwhile, and is given the next statement.
            await asyncio.sleep(0)
    finally:
        # One statement at a time on a connection: it is free again before anything else happens to it.
        if ahead is not None:
            await ahead
    return outcomes


DECIDERS: dict[type[Command], Callable[[Batch, Any], Outcome]] = {
    Enroll: decide_enroll,
    Earn: lambda batch, command: decide_earn(batch, command, member_of(batch, command.member)),
    Burn: lambda batch, command: decide_burn(batch, command, _burning_member(batch, command)),
    Authorize: lambda batch, command: decide_authorize(batch, command, _burning_member(batch, command)),
    Capture: decide_capture,
    Void: decide_void,
    Adjust: lambda batch, command: decide_adjust(batch, command, member_of(batch, command.member)),
    Reverse: decide_reversal,
    ConfirmPayment: decide_payment,
    Sweep: decide_sweep,
    Merge: lambda batch, command: decide_merge(
        batch, command, member_of(batch, command.keep), member_of(batch, command.duplicate)
    ),
    Unmerge: decide_unmerge,
    CreatePool: lambda batch, command: decide_create_pool(batch, command, member_of(batch, command.member)),
    JoinPool: lambda batch, command: decide_join_pool(batch, command, member_of(batch, command.member)),
    LeavePool: lambda batch, command: decide_leave_pool(batch, command, member_of(batch, command.member)),
    Transfer: lambda batch, command: decide_transfer(
        batch, command, member_of(batch, command.source), member_of(batch, command.target)
    ),
}
"""Who decides a command, by its kind."""


def decide(batch: Batch, command: Command) -> Outcome:
    """What becomes of one command; a refusal changes nothing of the batch."""
    try:
        # Hot: nearly always nothing waits, and nobody owes points.
        outcome: Outcome
        outcome = _decide_beside_parked(batch, command) if batch.parked else DECIDERS[type(command)](batch, command)
    except Refused as refused:
        outcome = Refusal(refused.code, refused.message, refused.field, command.key)
    if batch.owing:
        # Also after a refusal: a hold that it found past its time has set points free.
        pay_back(batch, command.occurred_at)
    return outcome


def _decide_beside_parked(batch: Batch, command: Command) -> Outcome:
    """Also posts what waited for the command; the key of what waits is taken."""
    if not isinstance(command, Reverse | Sweep) and under_key(batch, command.partner_id, command.key) is not None:
        raise key_conflict()
    outcome = DECIDERS[type(command)](batch, command)
    return with_what_waited(batch, outcome) if isinstance(outcome, Posted) else outcome


def _burning_member(batch: Batch, command: Burn | Authorize) -> Member | None:
    """Whose points are wanted; what is held past its time is free again."""
    member = member_of(batch, command.member)
    if member is not None:
        time_out_due(batch, batch.accounts[member.account_id], command.occurred_at)
    return member

"""Points by four eyes: what the operator gives, and takes back, at its own expense (SETTLEMENT.md c.2).

Given points are a lot of the partner whose terms price it, funded by the operator: SUBSIDY pays its value into the
pool. Points are taken out of lots that the operator funded, at their prices, and the value goes back to SUBSIDY: taking
points that a partner paid for would move that partner's money to the operator (ARCHITECTURE.md, decision 12).

Points given to a member who owes as many or more are a debt written off: they pay it and never reach the member. So
that is possible when nothing is issued any more, and when the programme has ended.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import text

from domain.batch import Batch, CommandInput, Member, Original, TransactionRow
from domain.burning import lot_use
from domain.commands import Adjust, Command, CommandKind, CommandRow, MemberRef, MovementKind, Posted
from domain.database import BatchConnection, Connection, Database
from domain.errors import RefusalCode, Refused
from domain.ledger import fingerprint
from domain.lots import Account, Lot, allocate, burn_order
from domain.owing import repay_with
from domain.periods import Clock
from domain.proposals import (
    Content,
    Decision,
    Proposal,
    ProposalState,
    Step,
    check_decision,
)
from domain.proposing import add_proposal, check_step, lock_proposals
from domain.receipts import balance_view, replayed
from domain.rows import command_row, movement_row
from domain.taking_part import check_takes_part
from domain.terms import Terms, load_configuration
from domain.values import OPERATOR_ID, POINTS_MAX

ADJUSTMENT_KEY_PREFIX = "system:adjustment:"
"""Before a proposal's id, the key of the command that carries it out: whoever approves, it is posted once."""


async def propose_points(
    database: Database,
    clock: Clock,
    client_id: str,
    key: str,
    content: Content,
) -> Step:
    """Proposes to give points to a member, or to take some.

    Raises Refused: INPUT_INVALID (no such partner), AMOUNT_INVALID, IDEMPOTENCY_CONFLICT.
    """
    points = content.points
    assert points is not None
    if not 1 <= abs(points) <= POINTS_MAX:
        message = f"points are from 1 to {POINTS_MAX}, negative to take them"
        raise Refused(RefusalCode.AMOUNT_INVALID, message, "points")
    async with database.posting() as connection:
        configuration = await load_configuration(connection)
        if configuration is None or content.partner_id not in configuration.partners:
            raise Refused(RefusalCode.INPUT_INVALID, "there is no such partner", "partnerId")
        return await add_proposal(connection, clock(), client_id, key, content)


def adjust_command(proposal: Proposal, decision: Decision, clock: Clock) -> Adjust:
    """The command that approves a proposal of points and carries it out, for the posting queue."""
    check_step(decision)
    member = MemberRef(member_id=proposal.content.member_id)
    return Adjust(OPERATOR_ID, f"{ADJUSTMENT_KEY_PREFIX}{proposal.id}", member, clock(), proposal.id, decision)


ADJUSTMENT_SQL = text("SELECT id FROM command WHERE partner_id = :partner_id AND idempotency_key = :key")


async def adjustment_of(connection: Connection, proposal_id: int) -> int | None:
    """Id of the command that the approval of a proposal of points posted."""
    parameters = {"partner_id": OPERATOR_ID, "key": f"{ADJUSTMENT_KEY_PREFIX}{proposal_id}"}
    rows = (await connection.execute(ADJUSTMENT_SQL, parameters)).all()
    return rows[0][0] if rows else None


async def load_adjustments(connection: BatchConnection, commands: Sequence[Command]) -> dict[int, Proposal]:
    """The proposals that these commands approve, locked: before budgets and accounts, as everywhere."""
    asked = [command for command in commands if isinstance(command, Adjust)]
    if not asked:
        return {}
    return await lock_proposals(connection, {one.proposal_id for one in asked}, {one.decision.key for one in asked})


def decide_adjust(batch: Batch, command: Adjust, member: Member | None) -> Posted:
    """Approves a proposal of points and moves them. Raises Refused and changes nothing."""
    step = check_decision(batch.proposals, command.proposal_id, command.decision)
    if step.replayed:
        return replayed(batch, batch.by_key[(command.partner_id, command.key)], draws_on_budget=False)
    content = step.proposal.content
    assert content.points is not None
    member = batch.active_member(member)
    account = batch.accounts[member.account_id]
    row = command_row(
        batch,
        CommandKind.ADJUSTMENT,
        partner_id=OPERATOR_ID,
        key=command.key,
        account_id=account.id,
        member_id=member.id,
        points=abs(content.points),
        reason=content.reason_code,
        occurred_at=command.occurred_at,
        moved_points=content.points,
    )
    is_write_off = 0 < content.points <= account.owed
    lot = None
    if content.points > 0:
        if not is_write_off:
            check_takes_part(batch, content.partner_id, command.occurred_at)
        lot = _give(batch, row, account, batch.terms_at(content.partner_id, command.occurred_at))
    else:
        _take(batch, row, account)
    print_ = fingerprint(
        kind=row.kind,
        member_id=row.member_id,
        store_id=row.store_id,
        points=row.points,
        reason=row.reason,
        occurred_at=row.occurred_at,
    )
    batch.new_commands.append((row, CommandInput(print_, reference_unique=False)))
    if is_write_off and lot is not None:
        # Here, and not with what else is usable after a command: at the end of the programme nothing is.
        repay_with(batch, account, [lot], command.occurred_at)
    batch.remember(Original(row, print_, None))
    batch.proposals[command.proposal_id] = replace(
        step.proposal,
        state=ProposalState.APPROVED,
        decided_by=command.decision.client_id,
        decided_at=batch.clock.recorded_at,
        decision_note=command.decision.note,
        decision_key=command.decision.key,
    )
    batch.decisions.append((command.proposal_id, command.decision))
    return Posted(
        command=row,
        points=abs(row.moved_points),
        awards=(),
        declined_points=0,
        shortfall_points=0,
        balance=balance_view(batch, account.id, command.occurred_at),
        budget=None,
        replayed=False,
    )


def _give(batch: Batch, row: CommandRow, account: Account, terms: Terms) -> Lot:
    programme = batch.configuration.programme
    lot = Lot(
        account_id=account.id,
        id=next(batch.new_ids),
        transaction_id=next(batch.new_ids),
        issuer_id=terms.partner_id,
        funder_id=OPERATOR_ID,
        terms_id=terms.id,
        price_micro=terms.issue_price_micro,
        breakage_share_ppm=terms.breakage_share_ppm,
        granted=row.moved_points,
        remaining=row.moved_points,
        earned_at=row.occurred_at,
        expires_at=programme.lot_expiry(row.occurred_at),
        grace_until=None,
        rolling_months=programme.rolling_months,
        is_new=True,
    )
    batch.new_transactions.append(_movement(row, lot, lot.transaction_id, row.moved_points))
    batch.new_lots.append(lot)
    account.add(lot)
    return lot


def _take(batch: Batch, row: CommandRow, account: Account) -> None:
    points = -row.moved_points
    instant = batch.clock.expiry_instant(row.occurred_at)
    own = [lot for lot in burn_order(account.lots, instant) if lot.funder_id == OPERATOR_ID]
    held = sum(lot.remaining for lot in own)
    if held < points:
        message = f"the member has {held} points that the operator funded; a partner's are reversed by the partner"
        raise Refused(RefusalCode.INSUFFICIENT_POINTS, message, "proposalId")
    for lot, part in allocate(own, points):
        transaction_id = next(batch.new_ids)
        lot.take(part)
        batch.new_transactions.append(_movement(row, lot, transaction_id, -part))
        batch.new_lot_uses.append(lot_use(batch, lot, transaction_id, MovementKind.ADJUST, part, row.period_id, None))
    account.change(-points)
    account.note_next_expiry()


def _movement(row: CommandRow, lot: Lot, transaction_id: int, points: int) -> TransactionRow:
    """One lot's part; a row each, so that every row is at the prices of its own terms."""
    value_micro = points * lot.price_micro
    return movement_row(
        row,
        transaction_id,
        MovementKind.ADJUST,
        points,
        party_id=OPERATOR_ID,
        funder_id=OPERATOR_ID,
        issuer_id=lot.issuer_id,
        issue_value_micro=-value_micro,
        pool_value_micro=value_micro,
        terms_id=lot.terms_id,
        lot_id=lot.id,
    )

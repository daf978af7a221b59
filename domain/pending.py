"""Reading pending awards: what a batch may confirm or cancel, and the budget windows that it then needs."""

from collections.abc import Collection, Sequence

from sqlalchemy import text

from domain.asked import LocksMissing, MoreLocks, member_of
from domain.batch import Batch, Original
from domain.commands import Authorize, Burn, Command, ConfirmPayment, Sweep, Transfer
from domain.database import BatchConnection
from domain.lots import PendingAward

# What is open may be confirmed; of a purchase that is named, what was confirmed may be returned as well.
PENDING_SQL = text(
    """
    SELECT p.account_id, p.id, p.transaction_id, p.command_id, p.member_id, p.partner_id, p.issuer_id, p.funder_id,
           p.terms_id, p.rule_id, p.budget_id, p.granted, p.open_points, p.reserved_micro, p.release_at,
           p.waits_for_payment, p.earned_at, c.store_id, c.reference, t.id, t.period_id
      FROM pending_award AS p
      JOIN command AS c ON c.id = p.command_id
      LEFT JOIN LATERAL (SELECT m.id, m.period_id
                           FROM command AS k JOIN transaction AS m ON m.command_id = k.id
                          WHERE p.open_points = 0 AND k.reverses_id = p.command_id AND k.kind = 'CONFIRMATION'
                            AND m.kind = 'CONFIRM' AND m.lot_id = p.id) AS t
        ON true
     WHERE p.command_id = ANY(CAST(:commands AS bigint[]))
        OR (p.account_id = ANY(CAST(:accounts AS bigint[])) AND p.open_points > 0)
     ORDER BY p.id
    """
)
RESERVED_BUDGETS_SQL = text(
    """
    SELECT DISTINCT budget_id FROM pending_award
     WHERE (command_id = ANY(CAST(:commands AS bigint[])) OR account_id = ANY(CAST(:accounts AS bigint[])))
       AND open_points > 0 AND budget_id IS NOT NULL
    """
)


async def load_pending(
    connection: BatchConnection,
    batch: Batch,
    commands: Sequence[Command],
    originals: Sequence[Original],
    original_ids: Collection[int],
) -> None:
    """Step 6: the pending awards that these commands may confirm or cancel; no statement where there are none.

    ``original_ids`` are those of the originals that may be reversed or paid; others are only shown again. Raises
    LocksMissing where awards reserve money of windows that are not locked.
    """
    begun = [o for o in originals if any(a.is_pending for a in o.awards)]
    accounts = [account_id for account_id in _confirming(batch, commands) if batch.accounts[account_id].pending]
    if not begun and not accounts:
        return
    rows = await connection.execute(
        PENDING_SQL, {"commands": [original.command.id for original in begun], "accounts": accounts}
    )
    awards = {}
    for *fields, confirm_id, confirm_period_id in rows.all():
        award = PendingAward(*fields)
        if confirm_id is not None:
            award.confirmed = (confirm_id, confirm_period_id)
        awards[award.id] = award
    # Of a purchase that is only shown again, the account may be one that its member left, and nobody locked.
    locked = [award for award in awards.values() if award.account_id in batch.accounts]
    for award in locked:
        batch.accounts[award.account_id].awards.append(award)
    for original in begun:
        for stored in original.awards:
            if stored.is_pending and stored.lot_id is not None:
                stored.pending = awards[stored.lot_id]
                stored.budget_id = stored.pending.budget_id
    horizon = max(batch.clock.expiry_instant(c.occurred_at or batch.clock.recorded_at) for c in commands)
    missing = {
        award.budget_id
        for award in locked
        if award.budget_id is not None
        and award.open_points
        and (award.command_id in original_ids or award.is_due(horizon))
    } - {budget.id for budget in batch.budgets.values()}
    if missing:
        raise LocksMissing(MoreLocks(budget_ids=missing))


def _confirming(batch: Batch, commands: Sequence[Command]) -> set[int]:
    """Accounts whose due awards these commands confirm, whatever else they do."""
    members = [member_of(batch, command.member) for command in commands if isinstance(command, Burn | Authorize)]
    members += [member_of(batch, command.source) for command in commands if isinstance(command, Transfer)]
    swept = {command.account_id for command in commands if isinstance(command, Sweep)}
    return {member.account_id for member in members if member is not None} | (swept & batch.accounts.keys())


async def reserved_budgets(
    connection: BatchConnection, commands: Sequence[Command], originals: Sequence[Original]
) -> set[int]:
    """Step 0: windows that these commands may need for pending awards, so that they are locked with the others."""
    accounts = [command.account_id for command in commands if isinstance(command, Sweep)]
    if not accounts and not any(isinstance(command, ConfirmPayment) for command in commands):
        return set()
    parameters = {"commands": [original.command.id for original in originals], "accounts": accounts}
    return {budget_id for (budget_id,) in (await connection.execute(RESERVED_BUDGETS_SQL, parameters)).all()}

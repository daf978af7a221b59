"""What an accepted command is answered with: balances after it, and the first answer again for a replay."""

from datetime import datetime

from domain.batch import Batch, Original, StoredAward
from domain.commands import AwardResult, BalanceView, Posted
from domain.standing import member_now


def balance_view(batch: Batch, account_id: int, occurred_at: datetime) -> BalanceView:
    """The account's points as they stand in the batch, without expired ones and less what it owes."""
    account = batch.accounts[account_id]
    usable = account.usable(batch.clock.expiry_instant(occurred_at))
    return BalanceView(account.id, usable - account.owed, account.pending, account.held)


def award_results(batch: Batch, purchase: Original) -> tuple[AwardResult, ...]:
    """The awards of a purchase, in stored order; what they wait for is as of now."""
    results = []
    for award in purchase.awards:
        rule_code, campaign_code = batch.configuration.award_codes(award.rule_id)
        pending_until, for_payment = _waits_for(award)
        results.append(
            AwardResult(
                rule_code, award.funder_id, award.requested, award.granted, pending_until, for_payment, campaign_code
            )
        )
    return tuple(results)


def _waits_for(award: StoredAward) -> tuple[datetime | None, bool]:
    if award.pending is None or not award.pending.open_points:
        return None, False
    return award.pending.release_at, award.pending.waits_for_payment


def replayed(batch: Batch, earlier: Original, *, draws_on_budget: bool) -> Posted:
    """The first posting of a key again, with today's balances (DESIGN.md section 4, ``command``).

    ``draws_on_budget`` says that it is a purchase or a return, whose budget window the batch has locked. A command
    that an earlier attempt of this very batch committed (its answer was lost with the connection) is answered as the
    first posting that it is, to the first that asks.
    """
    row = earlier.command
    budget = batch.budget(row.partner_id, batch.clock.booking(row.occurred_at)) if draws_on_budget else None
    return Posted(
        command=row,
        points=abs(row.moved_points),
        awards=award_results(batch, earlier),
        declined_points=row.declined_points,
        shortfall_points=earlier.shortfall_points,
        balance=balance_view(batch, member_now(batch, earlier).account_id, row.occurred_at),
        budget=None if budget is None else budget.view(),
        replayed=batch.is_replay(row),
    )

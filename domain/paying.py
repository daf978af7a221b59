"""Deciding about payments: the operator has the money of a purchase, where points wait for that."""

from domain.batch import Batch, CommandInput, Original
from domain.commands import CommandKind, ConfirmPayment, MovementKind, Posted
from domain.confirming import confirm, confirmation_row, movement
from domain.endings import lapses, waits_for_partner
from domain.enrolling import key_conflict
from domain.errors import RefusalCode, Refused
from domain.ledger import fingerprint
from domain.lots import PendingAward
from domain.originals import original_of
from domain.receipts import award_results, balance_view, replayed
from domain.standing import is_left, member_now
from domain.taking_part import check_settles
from domain.transferring import pass_on


def decide_payment(batch: Batch, command: ConfirmPayment) -> Posted:
    """Accepts that a purchase was paid; its points are usable at once where its return window is over.

    The command is booked in the name of the purchase's partner, among whose keys its own is; who may send it is the
    edge's to check.

    Raises Refused and changes nothing.
    """
    batch.check_key(command.key)
    earlier = batch.by_key.get((command.partner_id, command.key))
    ref = command.original._replace(kind=CommandKind.EARN)
    purchase = original_of(batch, command.partner_id, ref, earlier, is_paid=True)
    bought = purchase.command
    print_ = fingerprint(
        kind=CommandKind.CONFIRMATION,
        member_id=bought.member_id,
        store_id=bought.store_id,
        reference=bought.reference,
        reverses_id=bought.id,
        occurred_at=command.occurred_at,
    )
    if earlier is not None:
        if earlier.fingerprint != print_:
            raise key_conflict()
        again = replayed(batch, earlier, draws_on_budget=False)
        return again._replace(awards=award_results(batch, purchase))
    batch.clock.check_occurred(command.occurred_at)
    awards = [award.pending for award in purchase.awards if award.pending is not None]
    period_id = batch.clock.booking(command.occurred_at).period_id
    waiting = [award for award in awards if award.waits_for_payment and award.open_points]
    instant = batch.clock.expiry_instant(command.occurred_at)
    paid = [award for award in waiting if not lapses(batch.configuration, award, period_id, instant)]
    if not paid or any(waits_for_partner(batch.configuration, award) for award in paid):
        # That a bonus's funder paid is of no concern to a partner that left.
        check_settles(batch, command.partner_id, command.occurred_at)
    if not paid:
        message = "no points of this purchase wait for a payment: they never did, it was confirmed, or all is returned"
        raise Refused(RefusalCode.NOTHING_PENDING, message)
    return _accept(batch, command, purchase, paid, print_)


def _accept(
    batch: Batch, command: ConfirmPayment, purchase: Original, paid: list[PendingAward], print_: bytes
) -> Posted:
    for award in paid:
        award.waits_for_payment = False
        award.is_changed = True
    instant = batch.clock.expiry_instant(command.occurred_at)
    due = [award for award in paid if award.is_due(instant)]
    period_id = batch.clock.booking(command.occurred_at).period_id
    row = confirmation_row(batch, paid, command.key, command.occurred_at, period_id)
    if not due:
        row = row._replace(points=0, moved_points=0)
    # What became usable is no part of what was asked, and so not of the fingerprint.
    batch.new_commands.append((row, CommandInput(print_, reference_unique=False, whole=True)))
    for award in due:
        confirm(batch, row, award)
    if due and is_left(batch, purchase):
        pass_on(batch, row, batch.accounts[row.account_id], member_now(batch, purchase), instant)
    if not due:
        # Before the end of the return window nothing moves; that the payment was booked is a row all the same.
        transaction_id = next(batch.new_ids)
        batch.new_transactions.append(movement(row, paid[0], MovementKind.EARN_PENDING, transaction_id, 0, 0))
    batch.remember(Original(row, print_, None))
    return Posted(
        command=row,
        points=row.moved_points,
        awards=award_results(batch, purchase),
        declined_points=0,
        shortfall_points=0,
        balance=balance_view(batch, member_now(batch, purchase).account_id, command.occurred_at),
        budget=None,
        replayed=False,
    )

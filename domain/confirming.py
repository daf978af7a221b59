"""Pending points: awards that begin pending, what cancels them, and what makes them usable (SETTLEMENT.md c.2).

An award is pending while one of two conditions is open: the return window of the purchase is not over, or the operator
did not say that the money came in, where the risk class of the partner of the purchase or of the award's funder asks
for that. While it is pending it reserves budget and carries no money.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from domain.awards import Award
from domain.batch import Batch, Budget, CommandInput, StoredAward, TransactionRow
from domain.commands import CommandKind, CommandRow, MovementKind
from domain.endings import lapses
from domain.ledger import fingerprint
from domain.lots import Account, Lot, PendingAward
from domain.periods import local_date, local_midnight
from domain.rows import command_row, movement_row
from domain.terms import PAID_FIRST, Terms
from domain.values import OPERATOR_ID

CONFIRMATION_KEY = "system:confirm:{}"
"""Key of a confirmation, by the first award that it confirms: a second one would find the key taken."""


class Waiting(NamedTuple):
    """What an award waits for."""

    release_at: datetime
    for_payment: bool


def waiting_of(batch: Batch, partner_id: int, funder_id: int, terms: Terms, occurred_at: datetime) -> Waiting | None:
    """What an award of a purchase of then waits for when it is booked now; None: it is usable at once.

    ``terms`` are those of the partner where the purchase was. That partner's risk class and the funder's count; what
    the operator funds waits for the partner's alone. The return window ends at the local midnight after the day of the
    purchase and ``pending_days`` more. One that is over already (a purchase that is sent late) makes nothing pending;
    in historical import that is as of the purchase.
    """
    for_payment = batch.partner(partner_id).risk == PAID_FIRST or (
        funder_id != OPERATOR_ID and batch.partner(funder_id).risk == PAID_FIRST
    )
    if not for_payment and not terms.pending_days:
        return None
    release_at = occurred_at
    if terms.pending_days:
        zone = batch.configuration.programme.zone
        release_at = local_midnight(local_date(occurred_at, zone) + timedelta(days=terms.pending_days + 1), zone)
    if for_payment or release_at > batch.clock.expiry_instant(occurred_at):
        return Waiting(release_at, for_payment)
    return None


def write_pending_award(
    batch: Batch, row: CommandRow, award: Award, terms: Terms, budget: Budget | None, waiting: Waiting
) -> StoredAward:
    """An award of a purchase that is not usable yet: budget is reserved, no money moves, no lot is opened."""
    points = award.granted_points
    transaction_id, award_id = next(batch.new_ids), next(batch.new_ids)
    pending = PendingAward(
        account_id=row.account_id,
        id=award_id,
        transaction_id=transaction_id,
        command_id=row.id,
        member_id=row.member_id,
        partner_id=row.partner_id,
        issuer_id=award.funder_id or row.partner_id,
        funder_id=award.funder_id,
        terms_id=terms.id,
        rule_id=None if award.rule is None else award.rule.id,
        budget_id=None if budget is None else budget.id,
        granted=points,
        open_points=points,
        reserved_micro=0 if budget is None else points * terms.charge_price_micro(award.funder_id),
        release_at=waiting.release_at,
        waits_for_payment=waiting.for_payment,
        earned_at=row.occurred_at,
        store_id=row.store_id,
        reference=row.reference,
        is_new=True,
    )
    batch.new_transactions.append(
        movement(row, pending, MovementKind.EARN_PENDING, transaction_id, points, award.requested_points)
    )
    batch.new_awards.append(pending)
    account = batch.accounts[row.account_id]
    account.awards.append(pending)
    account.change_pending(points)
    if budget is not None:
        budget.reserve(pending.reserved_micro, batch.clock.recorded_at)
    return StoredAward(
        transaction_id, pending.rule_id, award.requested_points, points, award.funder_id, terms.id,
        pending.budget_id, award_id, is_pending=True, pending=pending,
    )  # fmt: skip


def movement(
    row: CommandRow, award: PendingAward, kind: MovementKind, transaction_id: int, points: int, requested_points: int
) -> TransactionRow:
    """A movement of a pending award that carries no money."""
    return movement_row(
        row,
        transaction_id,
        kind,
        points,
        account_id=award.account_id,
        partner_id=award.partner_id,
        store_id=award.store_id,
        party_id=award.funder_id,
        funder_id=award.funder_id,
        issuer_id=award.issuer_id,
        requested_points=requested_points,
        terms_id=award.terms_id,
        rule_id=award.rule_id,
        lot_id=award.id,
    )


# ---------------------------------------------------------------- cancelled


def cancel(batch: Batch, row: CommandRow, award: PendingAward, points: int) -> None:
    """Takes away points of an award that is still pending, and what they reserved; ``row`` is the return."""
    batch.new_transactions.append(
        movement(row, award, MovementKind.CANCEL, next(batch.new_ids), -points, requested_points=points)
    )
    price_micro = batch.configuration.terms_by_id[award.terms_id].charge_price_micro(award.funder_id)
    freed_micro = points * price_micro if award.budget_id is not None else 0
    award.close(points, freed_micro)
    batch.accounts[award.account_id].change_pending(-points)
    if freed_micro and award.budget_id is not None:
        batch.budget_by_id(award.budget_id).reserve(-freed_micro, row.recorded_at)


# ---------------------------------------------------------------- confirmed


def confirmable_points(batch: Batch, account: Account, instant: datetime) -> int:
    """Pending points that nothing keeps from being usable then."""
    expires_at = batch.configuration.programme.lot_expiry
    due = due_awards(batch, account, batch.clock.booking(instant).period_id, instant)
    return sum(award.open_points for award in due if expires_at(award.earned_at) > instant)


def due_awards(batch: Batch, account: Account, period_id: int, instant: datetime) -> list[PendingAward]:
    """The pending awards that nothing keeps from being confirmed then, in that period."""
    due = [award for award in account.awards if award.is_due(instant)]
    return [award for award in due if not lapses(batch.configuration, award, period_id, instant)]


def confirm_due(batch: Batch, account: Account, period_id: int, instant: datetime) -> int:
    """Makes usable what is due then, a command per purchase, booked in that period; answers how many points it was.

    A confirmation happened when the return window was over; it is booked by whatever comes by first.
    """
    due = sorted(due_awards(batch, account, period_id, instant), key=attrgetter("command_id", "id"))
    points = 0
    for _, group in groupby(due, key=attrgetter("command_id")):
        awards = list(group)
        first = awards[0]
        row = confirmation_row(batch, awards, CONFIRMATION_KEY.format(first.id), first.release_at, period_id)
        print_ = fingerprint(
            kind=row.kind,
            member_id=row.member_id,
            store_id=row.store_id,
            reference=row.reference,
            points=row.points,
            reverses_id=row.reverses_id,
            occurred_at=row.occurred_at,
        )
        batch.new_commands.append((row, CommandInput(print_, reference_unique=False)))
        for award in awards:
            confirm(batch, row, award)
        points += row.moved_points
    return points


def confirmation_row(
    batch: Batch, awards: Sequence[PendingAward], key: str, occurred_at: datetime, period_id: int
) -> CommandRow:
    """The command that confirms these awards of one purchase, in the name of its partner."""
    first = awards[0]
    points = sum(award.open_points for award in awards)
    return command_row(
        batch,
        CommandKind.CONFIRMATION,
        partner_id=first.partner_id,
        key=key,
        account_id=first.account_id,
        member_id=first.member_id,
        store_id=first.store_id,
        reference=first.reference,
        points=points,
        reverses_id=first.command_id,
        occurred_at=occurred_at,
        period_id=period_id,
        moved_points=points,
    )


def confirm(batch: Batch, row: CommandRow, award: PendingAward) -> None:
    """Opens the lot of one award and books its money, at the award's own terms, in the window that reserved it."""
    terms = batch.configuration.terms_by_id[award.terms_id]
    by_partner = award.funder_id != OPERATOR_ID
    points, drawn_micro = award.open_points, award.reserved_micro
    transaction_id = next(batch.new_ids)
    moved = movement(row, award, MovementKind.CONFIRM, transaction_id, points, requested_points=points)
    batch.new_transactions.append(
        moved._replace(
            issue_value_micro=-points * terms.issue_price_micro,
            service_fee_micro=-points * terms.service_fee_micro if by_partner else 0,
            pool_value_micro=points * terms.issue_price_micro,
            budget_id=award.budget_id,
            budget_micro=drawn_micro,
        )
    )
    if award.budget_id is not None:
        batch.budget_by_id(award.budget_id).consume_reserved(drawn_micro)
    award.close(points, drawn_micro)
    award.confirmed = (transaction_id, row.period_id)
    account = batch.accounts[award.account_id]
    account.change_pending(-points)
    lot = Lot(
        account_id=award.account_id,
        id=award.id,
        transaction_id=transaction_id,
        issuer_id=award.issuer_id,
        funder_id=award.funder_id,
        terms_id=terms.id,
        price_micro=terms.issue_price_micro,
        breakage_share_ppm=terms.breakage_share_ppm,
        granted=points,
        remaining=points,
        earned_at=award.earned_at,
        expires_at=batch.configuration.programme.lot_expiry(award.earned_at),
        grace_until=None,
        rolling_months=batch.configuration.programme.rolling_months,
        is_new=True,
    )
    batch.new_lots.append(lot)
    account.add(lot)

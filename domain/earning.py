"""Deciding about purchases: points by the partner's rules and by campaigns, granted by budgets, kept in lots."""

from domain.awards import NOTHING_RETURNED, Award, RatedLine, decide_awards, eligible_minor, requested_awards
from domain.baskets import checked_amount, lines_text, rated_lines
from domain.batch import Batch, Budget, CommandInput, Member, Original, StoredAward, TransactionRow
from domain.batch_clock import Booking
from domain.campaign_awards import Bonus, campaign_bonuses
from domain.campaigns import Purchase, base_of
from domain.commands import AwardResult, CommandKind, CommandRow, Earn, MovementKind, Posted
from domain.confirming import Waiting, waiting_of, write_pending_award
from domain.enrolling import key_conflict
from domain.errors import RefusalCode, Refused
from domain.expiring import note_use
from domain.ledger import fingerprint
from domain.lots import Lot
from domain.receipts import award_results, balance_view, replayed
from domain.standing import print_member_id
from domain.taking_part import check_issues
from domain.terms import Terms
from domain.values import OPERATOR_ID


def decide_earn(batch: Batch, command: Earn, member: Member | None) -> Posted:
    """Accepts a purchase with its awards. Raises Refused and changes nothing."""
    batch.check_key(command.key)
    programme = batch.configuration.programme
    store_id = batch.store_id(command.partner_id, command.store)
    amount_minor = checked_amount(command.amount, programme, "amount")
    lines = None if command.lines is None else rated_lines(command.lines, programme)
    batch.check_reference(command.reference)
    batch.check_channel(command.channel)
    earlier = batch.by_key.get((command.partner_id, command.key))
    print_ = fingerprint(
        kind=CommandKind.EARN,
        member_id=print_member_id(batch, member, earlier),
        store_id=store_id,
        reference=command.reference,
        channel=command.channel,
        amount_minor=amount_minor,
        lines=lines_text(lines),
        occurred_at=command.occurred_at,
    )
    if earlier is not None and not batch.is_quote:
        if earlier.fingerprint != print_:
            raise key_conflict()
        return replayed(batch, earlier, draws_on_budget=True)
    batch.clock.check_occurred(command.occurred_at)
    check_issues(batch, command.partner_id, command.occurred_at)
    member = batch.active_member(member)
    if lines is not None and sum(line.amount_minor for line in lines) != amount_minor:
        message = "the lines do not sum to the amount: give every line, net of discounts"
        raise Refused(RefusalCode.AMOUNT_INVALID, message, "lines")
    batch.check_reference_free(command.partner_id, CommandKind.EARN, command.reference, store_id)
    return _accept(batch, command, member, store_id, amount_minor, lines, print_)


def _accept(
    batch: Batch,
    command: Earn,
    member: Member,
    store_id: int,
    amount_minor: int,
    lines: tuple[RatedLine, ...] | None,
    print_: bytes,
) -> Posted:
    terms = batch.terms_at(command.partner_id, command.occurred_at)
    rules = batch.configuration.rules_at(command.partner_id, command.occurred_at)
    booking = batch.clock.booking(command.occurred_at)
    budget = batch.budget(command.partner_id, booking)
    digits = batch.configuration.programme.currency_digits
    awards = decide_awards(
        requested_awards(rules, amount_minor, lines, digits),
        command.partner_id,
        terms,
        None if budget is None else budget.plan,
        0 if budget is None else budget.available_micro,
    ) or [Award(None, 0, 0, command.partner_id)]
    bonuses: list[Bonus] = []
    in_all = awards
    if batch.configuration.campaigns:
        purchase = Purchase(base_of(rules), amount_minor, lines, digits)
        bonuses = campaign_bonuses(batch, command, purchase, awards, terms, budget)
        in_all = awards + [bonus.award for bonus in bonuses]
    granted = sum([award.granted_points for award in in_all])
    declined = sum([award.requested_points for award in in_all]) - granted
    # By position, here and below: by name, the rows of a purchase cost a fifth of deciding about it.
    points = reverses_id = reason = None  # what only burns and reversals have
    row = CommandRow(
        next(batch.new_ids), command.partner_id, command.key, CommandKind.EARN, member.account_id, member.id, store_id,
        command.reference, command.channel, amount_minor, points, reverses_id, reason, declined, command.occurred_at,
        batch.clock.recorded_at, booking.period_id, granted,
    )  # fmt: skip
    eligible = eligible_minor(rules[0], amount_minor, lines, NOTHING_RETURNED) if rules else 0
    stored = CommandInput(print_, batch.partner(command.partner_id).reference_unique, eligible, lines_text(lines))
    batch.new_commands.append((row, stored))
    note_use(batch, row)
    original = Original(row, print_, lines)
    # Of its own awards, that is: what the operator takes over waits as they do.
    waiting = waiting_of(batch, command.partner_id, command.partner_id, terms, command.occurred_at)
    # What the operator takes over draws on no partner's budget.
    original.awards = [
        _write_award(batch, row, award, terms, booking, budget if award.funder_id else None, waiting)
        for award in awards
    ]
    for award, funder_terms, window in bonuses:
        waits = waiting_of(batch, command.partner_id, award.funder_id, terms, command.occurred_at)
        original.awards.append(_write_award(batch, row, award, funder_terms, booking, window, waits))
    batch.remember(original)
    results = tuple(
        [
            AwardResult(None if rule is None else rule.code, funder_id, requested_points, granted_points)
            for rule, requested_points, granted_points, funder_id in awards
        ]
    )
    if waiting is not None or bonuses:
        results = award_results(batch, original)
    shortfall_points, is_replayed = 0, False
    return Posted(
        row, granted, results, declined, shortfall_points,
        balance_view(batch, member.account_id, command.occurred_at), None if budget is None else budget.view(),
        is_replayed,
    )  # fmt: skip


def _write_award(
    batch: Batch,
    row: CommandRow,
    award: Award,
    terms: Terms,
    booking: Booking,
    budget: Budget | None,
    waiting: Waiting | None,
) -> StoredAward:
    if waiting is not None and award.granted_points:  # nothing of zero points can wait
        return write_pending_award(batch, row, award, terms, budget, waiting)
    # An operator-funded award costs its issue value and no fee; its issuer is the partner where the purchase was.
    by_partner = award.funder_id != OPERATOR_ID
    points = award.granted_points
    price_micro = terms.gross_price_micro if by_partner else terms.issue_price_micro
    drawn_micro = 0 if budget is None else points * price_micro
    transaction_id = next(batch.new_ids)
    lot_id = next(batch.new_ids) if points else None
    rule_id = None if award.rule is None else award.rule.id
    budget_id = None if budget is None else budget.id
    pool_value_micro = points * terms.issue_price_micro
    service_fee_micro = -points * terms.service_fee_micro if by_partner else 0
    shortfall_points = reimbursement_micro = breakage_share_micro = 0
    reverses_id = reverses_period_id = None
    party_id = funder_id = award.funder_id
    issuer_id = funder_id or row.partner_id
    movement = TransactionRow(
        row.account_id, transaction_id, row.id, MovementKind.EARN, booking.period_id, row.partner_id, party_id,
        funder_id, issuer_id, row.store_id, points, award.requested_points, shortfall_points, -pool_value_micro,
        service_fee_micro, reimbursement_micro, breakage_share_micro, pool_value_micro, budget_id, drawn_micro,
        terms.id, rule_id, lot_id, reverses_id, reverses_period_id, row.occurred_at, row.recorded_at,
    )  # fmt: skip
    batch.new_transactions.append(movement)
    if budget is not None and points:
        budget.draw(drawn_micro, batch.clock.recorded_at)
    if lot_id is not None:
        programme = batch.configuration.programme
        grace_until = None
        lot = Lot(
            row.account_id, lot_id, transaction_id, issuer_id, funder_id, terms.id, terms.issue_price_micro,
            terms.breakage_share_ppm, points, points, row.occurred_at, programme.lot_expiry(row.occurred_at),
            grace_until, programme.rolling_months, is_new=True,
        )  # fmt: skip
        batch.new_lots.append(lot)
        batch.accounts[row.account_id].add(lot)
    return StoredAward(
        transaction_id, rule_id, award.requested_points, points, award.funder_id, terms.id, budget_id, lot_id
    )

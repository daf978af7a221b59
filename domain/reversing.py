"""Deciding about reversals: goods returned after a purchase, or points given back after a burn (SETTLEMENT.md c.3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from domain.awards import RatedLine, Returned, award_kept, match_returned_lines
from domain.baskets import checked_amount, lines_text, rated_lines
from domain.batch import Batch, CommandInput, Original, StoredAward, TransactionRow
from domain.burning import check_points, lot_use, make_usable
from domain.campaign_awards import parts_before_and_after
from domain.commands import CommandKind, CommandRow, MovementKind, Posted, Reverse
from domain.confirming import cancel
from domain.enrolling import key_conflict
from domain.errors import RefusalCode, Refused
from domain.holding import time_out_due
from domain.ledger import fingerprint
from domain.lots import Charge, ClawBack, Lot, Missing, allocate, burn_order, held_in_burn_order
from domain.originals import original_of
from domain.owing import overdrawable, owe
from domain.recalling import note_missing
from domain.receipts import balance_view, replayed
from domain.rows import command_row, movement_row
from domain.standing import is_left, member_now
from domain.taking_back import take_back
from domain.taking_part import check_reversal_window, check_settles
from domain.transferring import move_by_itself, pass_on


@dataclass(frozen=True, slots=True)
class Ask:
    """How much a reversal asks for, in whole numbers; all None: everything that is left."""

    amount_minor: int | None
    lines: tuple[RatedLine, ...] | None
    points: int | None

    @property
    def is_whole(self) -> bool:
        """Whether no quantity was named."""
        return self.amount_minor is None and self.points is None


def decide_reverse(batch: Batch, command: Reverse) -> Posted:
    """Accepts a reversal of one of the caller's own purchases or burns. Raises Refused and changes nothing."""
    batch.check_key(command.key)
    earlier = batch.by_key.get((command.partner_id, command.key))
    original = original_of(batch, command.partner_id, command.original, earlier)
    ask = read_ask(batch, command)
    print_ = fingerprint(
        kind=CommandKind.REVERSAL,
        member_id=original.command.member_id,
        store_id=original.command.store_id,
        reference=original.command.reference,
        amount_minor=ask.amount_minor,
        points=ask.points,
        lines=lines_text(ask.lines),
        reverses_id=original.command.id,
        reason=command.reason,
        occurred_at=command.occurred_at,
    )
    if earlier is not None:
        if earlier.fingerprint != print_:
            raise key_conflict()
        return replayed(batch, earlier, draws_on_budget=original.command.kind == CommandKind.EARN)
    batch.clock.check_occurred(command.occurred_at)
    check_settles(batch, command.partner_id, command.occurred_at)
    check_reversal_window(batch, original.command, command.occurred_at)
    if original.command.kind == CommandKind.EARN:
        return _reverse_earn(batch, command, original, ask, print_)
    return _reverse_burn(batch, command, original, ask, print_)


def read_ask(batch: Batch, command: Reverse) -> Ask:
    """What a reversal asks for, in whole numbers. Raises Refused naming the input at fault."""
    batch.check_reason(command.reason)
    programme = batch.configuration.programme
    amount_minor = None if command.amount is None else checked_amount(command.amount, programme, "amount")
    lines = None if command.lines is None else rated_lines(command.lines, programme)
    if command.points is not None:
        check_points(command.points)
    if lines is not None:
        total = sum(line.amount_minor for line in lines)
        if amount_minor not in (None, total):
            raise Refused(RefusalCode.AMOUNT_INVALID, "the lines do not sum to the amount", "lines")
        amount_minor = total
    return Ask(amount_minor, lines, command.points)


# ---------------------------------------------------------------- purchases


def _reverse_earn(batch: Batch, command: Reverse, original: Original, ask: Ask, print_: bytes) -> Posted:
    if ask.points is not None:
        message = "a purchase is returned by amount or by lines, not by points"
        raise Refused(RefusalCode.INPUT_INVALID, message, "points")
    purchase = original.command
    assert purchase.amount_minor is not None
    kept_minor = purchase.amount_minor - original.returned.total_minor
    if original.is_returned:
        raise Refused(RefusalCode.ALREADY_REVERSED, "everything of this purchase was returned before")
    amount_minor = kept_minor if ask.amount_minor is None else ask.amount_minor
    if amount_minor == 0 and kept_minor > 0:
        raise Refused(RefusalCode.AMOUNT_INVALID, "a return needs an amount above 0", "amount")
    if amount_minor > kept_minor:
        message = "more would be returned than the member still keeps of this purchase"
        raise Refused(RefusalCode.EXCEEDS_ORIGINAL, message, "amount")
    after = _after_return(original, ask, amount_minor)
    for account_id in {purchase.account_id, member_now(batch, original).account_id}:
        # What is held past its time is free again, and within the return's reach.
        time_out_due(batch, batch.accounts[account_id], command.occurred_at)
    row = _command_row(batch, command, original, amount_minor=amount_minor, points=None)
    stored = CommandInput(print_, reference_unique=False, lines=lines_text(ask.lines), whole=ask.is_whole)
    batch.new_commands.append((row, stored))
    reversal = _EarnReversal(batch, row, original, after)
    taken, shortfall = reversal.write()
    original.is_returned = amount_minor == kept_minor
    original.returned = after
    return _posted(batch, row._replace(moved_points=-taken), print_, original, shortfall)


def _after_return(original: Original, ask: Ask, amount_minor: int) -> Returned:
    if ask.lines is None:
        return original.returned.plus(amount_minor, ())
    if original.lines is None:
        message = "the purchase came without lines: return it by amount"
        raise Refused(RefusalCode.INPUT_INVALID, message, "lines")
    return original.returned.plus(0, match_returned_lines(original.lines, original.returned, ask.lines))


class _EarnReversal:
    """Takes back, per award, what the member no longer keeps: A(before) - A(after), in stored order."""

    def __init__(self, batch: Batch, row: CommandRow, original: Original, after: Returned) -> None:
        self.batch = batch
        self.row = row
        self.original = original
        self.after = after
        self.account = batch.accounts[original.command.account_id]
        self.account_now = batch.accounts[member_now(batch, original).account_id]
        self.instant = batch.clock.expiry_instant(row.occurred_at)
        self.booking = batch.clock.booking(row.occurred_at)

    def write(self) -> tuple[int, int]:
        """Writes the rows; answers (points taken, points that could not be taken)."""
        back = list(zip(self.original.awards, self._backs(), strict=True))
        # A return that takes no points is still a row, so that sales and exports see it.
        rows = [(award, points) for award, points in back if points] or back[:1]
        done = [self._write_award(award, points) for award, points in rows]
        return sum(taken for taken, _ in done), sum(missing for _, missing in done)

    def _backs(self) -> list[int]:
        """Points that each award gives back, in stored order; the parts of one bonus follow each other."""
        campaigns = self.batch.configuration.campaigns_by_id
        parts: dict[int, Iterator[tuple[int, int]]] = {}
        backs = []
        for award in self.original.awards:
            campaign = None if award.rule_id is None else campaigns.get(award.rule_id)
            if campaign is None:
                backs.append(self._back(award))
                continue
            if campaign.id not in parts:
                parts[campaign.id] = iter(parts_before_and_after(self.batch, campaign, self.original, self.after))
            before, after = next(parts[campaign.id])
            backs.append(min(award.granted, before) - min(award.granted, after))
        return backs

    def _back(self, award: StoredAward) -> int:
        rule = None if award.rule_id is None else self.batch.configuration.rules_by_id[award.rule_id]
        purchase = self.original.command
        assert purchase.amount_minor is not None
        digits = self.batch.configuration.programme.currency_digits
        before, after = (
            award_kept(rule, award.granted, purchase.amount_minor, self.original.lines, returned, digits)
            for returned in (self.original.returned, self.after)
        )
        return before - after

    def _write_award(self, award: StoredAward, points: int) -> tuple[int, int]:
        """Answers as ``write`` does, of one award."""
        if award.pending is not None and award.pending.confirmed is None:
            # What lapsed before was charged to nobody, so that none of it is missing.
            part = min(points, award.pending.open_points)
            cancel(self.batch, self.row, award.pending, part)
            return part, 0
        parts = self._fetched(self._allocate(award, points))
        own = next((lot for lot in self.account.lots if lot.id == award.lot_id), None)
        if not parts or parts[0][0] is not own:
            parts = [(own, 0), *parts]
        missing = points - sum(part for _, part in parts)
        owed = overdrawable(self.batch.configuration.programme, self.account_now, missing)
        for number, (lot, part) in enumerate(parts):
            written = self._write_row(award, lot, part, missing - owed if number == 0 else 0)
            if written.shortfall_points:
                self._note_missing(award, written)
        if owed:
            overdrawn = self._write_row(award, None, owed, 0, MovementKind.OVERDRAW)
            owe(self.batch, self.account_now, member_now(self.batch, self.original).id, overdrawn)
        return points - missing + owed, missing - owed

    def _allocate(self, award: StoredAward, points: int) -> list[tuple[Lot | None, int]]:
        usable = burn_order(self.account.lots, self.instant)
        if self.account_now is not self.account:
            usable += burn_order(self.account_now.lots, self.instant)
        return [*allocate(self._reached(award, usable), points)]

    def _reached(self, award: StoredAward, lots: Sequence[Lot]) -> list[Lot]:
        """Those of the lots that a return of the award may take points of, the award's own first, else in their order.

        Claw-back: the same lot, then others by the programme's policy, then a debt or a shortfall (SETTLEMENT.md c.3).
        The usual one takes those of the same issuer and funder, so that no partner is credited out of the operator's
        money.
        """
        own = [lot for lot in lots if award.lot_id is not None and self._is_of(award, lot)]
        # First what certainly is: a lot of another purchase of that instant looks the same once it has moved.
        own.sort(key=lambda lot: award.lot_id not in (lot.id, lot.parent_id))
        others = [lot for lot in lots if lot not in own]
        if self.batch.configuration.programme.claw_back == ClawBack.OWN_LOT_THEN_ISSUER:
            payer = (self._issuer_id(award), award.funder_id)
            others = [lot for lot in others if (lot.issuer_id, lot.funder_id) == payer]
        return [*own, *others]

    def _is_of(self, award: StoredAward, lot: Lot) -> bool:
        """Whether the lot is the award's, or came of it: it moves when its member is merged, or shares a household."""
        if award.lot_id in (lot.id, lot.parent_id):
            return True
        # Moved more than once: the lots between lie on accounts that the batch need not know, but what a purchase gave
        # its lot, each child kept.
        kept = (lot.issuer_id, lot.funder_id, lot.terms_id, lot.earned_at)
        purchase = self.original.command
        return lot.parent_id is not None and kept == (
            self._issuer_id(award), award.funder_id, award.terms_id, purchase.occurred_at,
        )  # fmt: skip

    def _issuer_id(self, award: StoredAward) -> int:
        return award.funder_id or self.original.command.partner_id

    def _fetched(self, parts: list[tuple[Lot | None, int]]) -> list[tuple[Lot | None, int]]:
        """The same parts, all of them lots of the purchase's account: what lies elsewhere is moved there first."""
        away = [(lot, part) for lot, part in parts if lot is not None and lot.account_id != self.account.id]
        if not away:
            return parts
        fetched = move_by_itself(self.batch, self.row, away, self.account_now, self.account)
        return [*(each for each in parts if each not in away), *zip(fetched, [part for _, part in away], strict=True)]

    def _write_row(
        self,
        award: StoredAward,
        lot: Lot | None,
        points: int,
        shortfall: int,
        kind: MovementKind = MovementKind.EARN_REVERSAL,
    ) -> TransactionRow:
        charge, booking = self._charge(award), self.booking
        return take_back(
            self.batch, self.row, self.account, charge, booking, lot=lot, points=points, shortfall=shortfall, kind=kind
        )

    def _charge(self, award: StoredAward) -> Charge:
        purchase = self.original.command
        # The movement that carried the money: of an award that was pending, its confirmation.
        confirmed = None if award.pending is None else award.pending.confirmed
        return Charge(
            purchase.partner_id, purchase.store_id, award.funder_id, self._issuer_id(award), award.terms_id,
            award.rule_id, award.budget_id, *(confirmed or (award.transaction_id, purchase.period_id)),
        )  # fmt: skip

    def _note_missing(self, award: StoredAward, written: TransactionRow) -> None:
        """What was not to be had, although holds had set it aside, is taken when they let it go."""
        accounts = [self.account] if self.account_now is self.account else [self.account, self.account_now]
        held = [lot for account in accounts for lot in held_in_burn_order(account.lots)]
        purchase = self.original.command
        missing = Missing(
            account_id=self.account.id,
            id=written.id,
            purchase_id=purchase.id,
            member_id=purchase.member_id,
            reference=purchase.reference,
            charge=self._charge(award),
            open_points=written.shortfall_points,
        )
        note_missing(accounts, missing, self._reached(award, held))


# ---------------------------------------------------------------- burns


def _reverse_burn(batch: Batch, command: Reverse, original: Original, ask: Ask, print_: bytes) -> Posted:
    if ask.amount_minor is not None:
        message = "a burn is refunded by points, not by amount or lines"
        raise Refused(RefusalCode.INPUT_INVALID, message, "amount")
    left = sum(use.points - use.restored for use in original.uses)
    if left == 0:
        raise Refused(RefusalCode.ALREADY_REVERSED, "all points of this burn were given back before")
    points = left if ask.points is None else ask.points
    if points > left:
        message = f"only {left} points of this burn are not given back yet"
        raise Refused(RefusalCode.EXCEEDS_ORIGINAL, message, "points")
    row = _command_row(batch, command, original, amount_minor=None, points=points)
    stored = CommandInput(print_, reference_unique=False, whole=ask.is_whole)
    batch.new_commands.append((row, stored))
    _restore(batch, row, original, points)
    return _posted(batch, row._replace(moved_points=points), print_, original, 0)


def _restore(batch: Batch, row: CommandRow, original: Original, points: int) -> None:
    account = batch.accounts[row.account_id]
    instant = batch.clock.expiry_instant(row.occurred_at)
    lots = {lot.id: lot for lot in account.lots}
    transaction_id = next(batch.new_ids)
    pool_micro = 0
    to_give = points
    for use in reversed(original.uses):
        part = min(to_give, use.points - use.restored)
        if part == 0:
            continue
        lot = lots[use.lot_id]
        make_usable(batch, account, lot, row, instant)
        lot.restore(part)
        use.restored += part
        to_give -= part
        pool_micro += part * lot.price_micro
        batch.new_lot_uses.append(
            lot_use(batch, lot, transaction_id, MovementKind.BURN_REVERSAL, part, row.period_id, row.partner_id)
        )
    account.change(points)
    account.note_next_expiry()
    assert original.burn_terms_id is not None
    reimbursement_micro = batch.configuration.terms_by_id[original.burn_terms_id].reimbursement_micro
    batch.new_transactions.append(
        movement_row(
            row,
            transaction_id,
            MovementKind.BURN_REVERSAL,
            points,
            party_id=row.partner_id,
            reimbursement_micro=-points * reimbursement_micro,
            pool_value_micro=pool_micro,
            terms_id=original.burn_terms_id,
            reverses_id=original.burn_transaction_id,
            reverses_period_id=original.command.period_id,
        )
    )
    if is_left(batch, original):
        pass_on(batch, row, account, member_now(batch, original), instant)


# ---------------------------------------------------------------- both


def _command_row(
    batch: Batch, command: Reverse, original: Original, *, amount_minor: int | None, points: int | None
) -> CommandRow:
    return command_row(
        batch,
        CommandKind.REVERSAL,
        partner_id=command.partner_id,
        key=command.key,
        account_id=original.command.account_id,
        member_id=original.command.member_id,
        store_id=original.command.store_id,
        reference=original.command.reference,
        amount_minor=amount_minor,
        points=points,
        reverses_id=original.command.id,
        reason=command.reason,
        occurred_at=command.occurred_at,
    )


def _posted(batch: Batch, row: CommandRow, print_: bytes, original: Original, shortfall: int) -> Posted:
    reversal = Original(row, print_, None, shortfall_points=shortfall)
    batch.remember(reversal)
    budget = None
    if original.command.kind == CommandKind.EARN:
        window = batch.budget(row.partner_id, batch.clock.booking(row.occurred_at))
        budget = None if window is None else window.view()
    return Posted(
        command=row,
        points=abs(row.moved_points),
        awards=(),
        declined_points=0,
        shortfall_points=shortfall,
        balance=balance_view(batch, member_now(batch, original).account_id, row.occurred_at),
        budget=budget,
        replayed=False,
    )

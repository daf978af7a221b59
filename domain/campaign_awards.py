"""Deciding who pays for a campaign's bonus, and which budgets a batch must lock for it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from domain.awards import NOTHING_RETURNED, Award, Returned
from domain.batch import Batch, Budget, Original, budget_window
from domain.batch_clock import Booking
from domain.campaigns import Purchase, base_of, campaign_points, granted_of, parts_kept, parts_of
from domain.commands import Command, CommandKind, Earn, Reverse
from domain.errors import RefusalCode, Refused
from domain.lots import Charge
from domain.taking_part import issue_refusal
from domain.terms import BudgetPlan, Campaign, Terms
from domain.values import OPERATOR_ID, POINTS_MAX


class Bonus(NamedTuple):
    """A campaign's award to one funder, with the terms that price it and the window that it draws on, if on one."""

    award: Award
    terms: Terms
    budget: Budget | None


def campaign_bonuses(
    batch: Batch,
    command: Earn,
    purchase: Purchase,
    own: Sequence[Award],
    terms: Terms,
    budget: Budget | None,
) -> list[Bonus]:
    """The campaigns' awards after the till's ``own`` ones, at whose ``terms`` and on whose ``budget`` those are.

    None of them refuses the purchase, but that one command earns too much: Refused(AMOUNT_INVALID).
    """
    campaigns = batch.configuration.campaigns_at(command.partner_id, command.occurred_at)
    if not campaigns:
        return []
    left_micro: dict[int, int] = {}
    if budget is not None:
        own_points = sum([award.granted_points for award in own if award.funder_id != OPERATOR_ID])
        left_micro[budget.id] = budget.available_micro - own_points * terms.gross_price_micro
    payers = _Payers(batch, terms, command.occurred_at, batch.clock.booking(command.occurred_at), left_micro)
    bonuses = payers.bonuses(campaigns, purchase)
    if sum(award.requested_points for award in (*own, *(bonus.award for bonus in bonuses))) > POINTS_MAX:
        message = f"the purchase would earn more than {POINTS_MAX} points with its campaigns; post it in parts"
        raise Refused(RefusalCode.AMOUNT_INVALID, message, "amount")
    return bonuses


@dataclass(slots=True)
class _Payers:
    """Who may pay for parts of a purchase's bonuses: ``left_micro`` is what each window has after the awards so far.

    ``till_terms`` are those of the partner where the purchase is: at their issue price the operator pays.
    """

    batch: Batch
    till_terms: Terms
    occurred_at: datetime
    booking: Booking
    left_micro: dict[int, int]

    def bonuses(self, campaigns: Sequence[Campaign], purchase: Purchase) -> list[Bonus]:
        """A campaign after the other, and its funders in the order of their codes."""
        bonuses = []
        for campaign in campaigns:
            points = campaign_points(campaign, purchase, NOTHING_RETURNED)
            for (funder_id, _), part in zip(campaign.funding, parts_of(campaign, points), strict=True):
                if part:
                    bonuses.append(self._paid(campaign, funder_id, part))
        return bonuses

    def _paid(self, campaign: Campaign, funder_id: int, asked: int) -> Bonus:
        by_operator = funder_id == OPERATOR_ID
        terms = self.till_terms if by_operator else self._terms_of(funder_id)
        budget = self._budget_of(campaign, funder_id)
        if terms is None or (budget is None and not by_operator):
            # Nobody to charge: the row says so with no points, and so at no price.
            return Bonus(Award(campaign, asked, 0, funder_id), terms or self.till_terms, None)
        if budget is None:
            return Bonus(Award(campaign, asked, asked, OPERATOR_ID), terms, None)
        price_micro = terms.charge_price_micro(funder_id)
        left_micro = self.left_micro.get(budget.id, budget.available_micro)
        granted = granted_of(asked, price_micro, budget.plan.on_limit, left_micro)
        if granted is None:
            return Bonus(Award(campaign, asked, asked, OPERATOR_ID), self.till_terms, None)
        self.left_micro[budget.id] = left_micro - granted * price_micro
        return Bonus(Award(campaign, asked, granted, funder_id), terms, budget)

    def _terms_of(self, funder_id: int) -> Terms | None:
        """The funder's own terms when it happened; None while it may not issue points."""
        if issue_refusal(self.batch, funder_id, self.occurred_at) is not None:
            return None
        return self.batch.configuration.terms_at(funder_id, self.occurred_at)

    def _budget_of(self, campaign: Campaign, funder_id: int) -> Budget | None:
        if campaign.budget is not None:
            return self.batch.budgets[budget_window(campaign.budget, self.booking)]
        return None if funder_id == OPERATOR_ID else self.batch.budget(funder_id, self.booking)


def campaign_windows(
    batch: Batch, commands: Sequence[Command], originals: Sequence[Original]
) -> Iterator[tuple[tuple[int, int], BudgetPlan]]:
    """The windows, beside those of the tills' partners, that bonuses of this batch may draw on or credit.

    A return may mean any purchase of its partner that was found, or that stands in the same batch.
    """
    bought: dict[int, set[datetime]] = {}
    for original in originals:
        if original.command.kind == CommandKind.EARN:
            bought.setdefault(original.command.partner_id, set()).add(original.command.occurred_at)
    for command in commands:
        if isinstance(command, Earn):
            bought.setdefault(command.partner_id, set()).add(command.occurred_at)
    for command in commands:
        if isinstance(command, Earn):
            yield from _windows(
                batch, command.partner_id, [command.occurred_at], batch.clock.booking(command.occurred_at)
            )
        elif isinstance(command, Reverse):
            instants = bought.get(command.partner_id, ())
            yield from _windows(batch, command.partner_id, instants, batch.clock.booking(command.occurred_at))


def _windows(
    batch: Batch, partner_id: int, instants: Iterable[datetime], booking: Booking
) -> Iterator[tuple[tuple[int, int], BudgetPlan]]:
    configuration = batch.configuration
    for instant in instants:
        for campaign in configuration.campaigns_at(partner_id, instant):
            if campaign.budget is not None:
                plans: list[BudgetPlan | None] = [campaign.budget]
            else:
                plans = [configuration.plan_on(funder_id, booking.day) for funder_id, _ in campaign.funding]
            yield from ((budget_window(plan, booking), plan) for plan in plans if plan is not None)


def parts_before_and_after(
    batch: Batch, campaign: Campaign, original: Original, after: Returned
) -> list[tuple[int, int]]:
    """Of each part that a purchase asked a funder for, in stored order: its points at most before and after a return.

    ``after`` is all that came back with this return.
    """
    configuration = batch.configuration
    first_rule_id = original.awards[0].rule_id
    first_rule = None if first_rule_id is None else configuration.rules_by_id.get(first_rule_id)
    assert original.command.amount_minor is not None
    digits = configuration.programme.currency_digits
    base_rule = base_of([first_rule] if first_rule else [])
    purchase = Purchase(base_rule, original.command.amount_minor, original.lines, digits)
    whole, kept_before, kept_after = (
        campaign_points(campaign, purchase, returned) for returned in (NOTHING_RETURNED, original.returned, after)
    )
    kept = zip(parts_kept(campaign, whole, kept_before), parts_kept(campaign, whole, kept_after), strict=True)
    return [both for both, asked in zip(kept, parts_of(campaign, whole), strict=True) if asked]


def credited_budget(batch: Batch, award: Charge, booking: Booking) -> Budget | None:
    """The window that a return of the award credits; None where it drew on none, or where the money lapses.

    In the window of the award: released. After it: by ``after_period`` of the funder's current window. The one window
    of a campaign's own budget lasts as long as its points may come back. A float takes back whatever was drawn from
    it, whenever, and nothing else: it holds what was paid in.
    """
    campaign = None if award.rule_id is None else batch.configuration.campaigns_by_id.get(award.rule_id)
    if campaign is not None and campaign.budget is not None:
        return None if award.budget_id is None else batch.budgets[budget_window(campaign.budget, booking)]
    if award.funder_id == OPERATOR_ID:
        return None
    own = next((budget for budget in batch.budgets.values() if budget.id == award.budget_id), None)
    if own is not None and own.plan.is_prepaid:
        return own
    current = batch.budget(award.funder_id, booking)
    if current is None or current.id == award.budget_id:
        return current
    return current if current.plan.after_period == "CREDIT_CURRENT" and not current.plan.is_prepaid else None

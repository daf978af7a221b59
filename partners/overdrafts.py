"""Overdrafts of budget windows by four eyes: what a window may spend beyond its limit, until an instant or its end.

A coalition file may bring one with a partner's first budget, as a part of its contract; it never raises one.
"""

from datetime import date, datetime
from typing import NamedTuple

from sqlalchemy import text

from domain.awards import OnLimit
from domain.baskets import checked_amount
from domain.batch import budget_window
from domain.batch_clock import Booking
from domain.booking import OpenPeriod, in_open_period
from domain.commands import Amount
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.loading import create_budgets, next_id_block
from domain.periods import Clock, local_date
from domain.proposals import Content, Decision, ProposalKind, ProposalReason, Step, check_decision
from domain.proposing import add_proposal, check_step, lock_proposals, settle_proposal
from domain.terms import BudgetPlan, Configuration, load_configuration
from domain.values import micro_per_minor
from partners.plan import Plan
from partners.toml_section import plain


class OverdraftAsk(NamedTuple):
    """What a client asks for: how much more, of the window of that period's first day (None: of today), until when.

    ``partner_id`` is None for an id that names nobody.
    """

    partner_id: int | None
    amount: Amount
    reason: ProposalReason
    note: str
    label: str | None = None
    until: datetime | None = None


RAISE_SQL = text(
    """
    UPDATE budget SET overdraft_micro = overdraft_micro + :amount_micro
     WHERE plan_id = :plan_id AND period_id = :period_id
    RETURNING id
    """
)
INSERT_SQL = text(
    """
    INSERT INTO overdraft (proposal_id, budget_id, partner_id, amount_micro, until)
    VALUES (:proposal_id, :budget_id, :partner_id, :amount_micro, CAST(:until AS timestamptz))
    """
)


async def propose_overdraft(database: Database, clock: Clock, client_id: str, key: str, ask: OverdraftAsk) -> Step:
    """Proposes an overdraft of one budget window.

    Raises Refused: INPUT_INVALID (no such partner or window, one that does not allow overdrafts, ``until`` past),
    AMOUNT_INVALID, CURRENCY_MISMATCH, PERIOD_NOT_FOUND, IDEMPOTENCY_CONFLICT.
    """
    async with database.posting() as connection:
        configuration = await load_configuration(connection)
        if configuration is None or ask.partner_id not in configuration.partners:
            raise Refused(RefusalCode.INPUT_INVALID, "there is no such partner", "partnerId")
        programme, now = configuration.programme, clock()
        minor = checked_amount(ask.amount, programme, "amount", is_positive=True)
        content = Content(
            ProposalKind.OVERDRAFT,
            ask.partner_id,
            ask.reason,
            ask.note,
            amount_micro=minor * micro_per_minor(programme.currency_digits),
            window_day=_window_day(configuration, ask.label, now),
            until=ask.until,
        )
        step = await add_proposal(connection, now, client_id, key, content)
        if not step.replayed:
            _window(configuration, content, now)
        return step


def _window_day(configuration: Configuration, label: str | None, now: datetime) -> date:
    calendar = configuration.programme.calendar
    if label is None:
        return local_date(now, calendar.zone)
    period_id = calendar.labelled(label)
    if period_id is None:
        message = f'a period is named by its label, such as "{calendar.label_example}"'
        raise Refused(RefusalCode.PERIOD_NOT_FOUND, message, "label")
    return calendar.first_day(period_id)


def _window(configuration: Configuration, content: Content, now: datetime) -> tuple[BudgetPlan, int]:
    """Plan and period (0: all of the plan's) of the window that may be overdrawn. Raises Refused(INPUT_INVALID)."""
    day = content.window_day
    assert day is not None
    plan = configuration.plan_on(content.partner_id, day)
    if plan is None:
        raise Refused(RefusalCode.INPUT_INVALID, f"the partner has no budget on {day}", "label")
    if plan.on_limit != OnLimit.OVERDRAFT:
        message = f"the budget says {plan.on_limit} at its limit: give it OVERDRAFT, or a higher limit"
        raise Refused(RefusalCode.INPUT_INVALID, message, "partnerId")
    if content.until is not None and content.until <= now:
        raise Refused(RefusalCode.INPUT_INVALID, "until must lie in the future", "until")
    _, period_id = budget_window(plan, Booking(configuration.programme.calendar.ordinal(day), day))
    return plan, period_id


async def approve_overdraft(database: Database, clock: Clock, proposal_id: int, decision: Decision) -> Step:
    """Approves a proposed overdraft and raises its window's, once.

    Raises Refused as ``check_decision`` does, and INPUT_INVALID where the window is over, or allows none by now.
    """
    check_step(decision)

    async def raise_it(period: OpenPeriod) -> Step:
        connection, configuration = period.connection, period.configuration
        step = check_decision(await lock_proposals(connection, [proposal_id], [decision.key]), proposal_id, decision)
        if step.replayed:
            return step
        content = step.proposal.content
        plan, window_id = _window(configuration, content, period.now)
        today = local_date(period.now, configuration.programme.zone)
        if window_id < period.period_id if plan.per_period else plan.ends is not None and plan.ends <= today:
            raise Refused(RefusalCode.INPUT_INVALID, "nothing is booked into that window any more", "proposalId")
        ids = await next_id_block(connection)
        await create_budgets(connection, [(plan, window_id)], ids[:1])
        parameters = {"plan_id": plan.id, "period_id": window_id, "amount_micro": content.amount_micro}
        budget_id = (await connection.execute(RAISE_SQL, parameters)).scalar_one()
        await connection.execute(
            INSERT_SQL,
            {
                "proposal_id": proposal_id,
                "budget_id": budget_id,
                "partner_id": content.partner_id,
                "amount_micro": content.amount_micro,
                "until": content.until,
            },
        )
        settled = await settle_proposal(connection, proposal_id, decision, period.now)
        return Step(settled, replayed=False)

    return await in_open_period(database, clock, raise_it)


# ---------------------------------------------------------------- by the coalition file


def refusals_of_raises(current: Configuration, plan: Plan) -> list[str]:
    """A line per budget that a file would let overdraw by more than stands, which is for two clients to decide.

    What stands is what the budget has, or the one that it follows. A partner's first budget may bring its own.
    """
    refusals = []
    for change in plan.budgets:
        partner, new = current.partners_by_code.get(change.partner_code), change.new
        plans = () if partner is None else current.budget_plans.get(partner.id, ())
        if new is None or not plans:
            continue
        earlier = [one for one in plans if one.starts <= new.starts]
        stands_micro = max(earlier, key=lambda one: one.starts).overdraft_micro if earlier else 0
        if new.overdraft_micro > stands_micro:
            refusals.append(
                f"{change.subject}: approved_overdraft {plain(new.overdraft_micro)} is more than the"
                f" {plain(stands_micro)} that stands: an overdraft is proposed and approved by two clients of the"
                " operator (proposeOverdraft, approveProposal); keep the key as it was"
            )
    return refusals

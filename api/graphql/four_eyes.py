"""Four eyes: what one client of the operator proposes, and another one approves or rejects."""

import logging
from datetime import datetime
from typing import Annotated

import strawberry
from graphql import GraphQLError

from api.graphql.context import Context, Info, page_size
from api.graphql.disputed import dispute_number
from api.graphql.fields import guarded_field
from api.graphql.ids import plain_number
from api.graphql.line_kinds import StatementLineKind
from api.graphql.members import MemberRef
from api.graphql.money import After, Connection, First, MoneyInput, connection_of, cursor_key
from api.graphql.proposals import REASON, Proposal, ProposalReceipt, ProposalResult
from api.graphql.refusals import Refusal, refusable_field, refusal_of
from api.graphql.scalars import Points
from api.graphql.scopes import PROPOSAL_SCOPES, in_words
from domain import commands, proposals, proposing
from domain.adjusting import adjust_command, propose_points
from domain.errors import RefusalCode, Refused
from domain.positions import LineKind
from domain.proposals import Content, Decision, ProposalKind, ProposalReason, ProposalState, Step
from domain.values import OPERATOR_ID
from partners.overdrafts import OverdraftAsk, approve_overdraft, propose_overdraft
from settlement.adjustments import AdjustmentAsk, WriteOffAsk, approve_money, propose_adjustment, propose_write_off
from settlement.defaults import approve_default
from settlement.deposits import approve_payout

_log = logging.getLogger(__name__)

NO_PROPOSAL_BEFORE = 2**63 - 1
NO_DISPUTE = 0
"""What an id names that is nobody's dispute."""
KEY = "Your key for this step, 1 to 200 printable characters; the same key with the same input finds it again."
NOTE = "Why, for people: 1 to 1,000 characters on one line."
SHOWN_NOTE = f"{NOTE} The partner reads it beside its statement."
PARTNER = "The partner's id."


@strawberry.input(description="A credit or debit of a partner to be proposed.")
class ProposeAdjustmentInput:
    """An adjustment of money."""

    idempotency_key: str = strawberry.field(description=KEY)
    partner_id: strawberry.ID = strawberry.field(description=PARTNER)
    amount: MoneyInput = strawberry.field(
        description="How much, signed from the partner's side: positive credits it, negative debits it; not 0."
    )
    reason: ProposalReason = strawberry.field(description=REASON)
    note: str = strawberry.field(description=SHOWN_NOTE)
    label: str | None = strawberry.field(
        description='The closed statement that it corrects, such as "2017-03", together with lineKind; or neither.'
    )
    line_kind: StatementLineKind | None = strawberry.field(description="The line of that statement.")
    dispute_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The dispute of the partner that it answers, whose line it corrects; then without label and"
        " lineKind. So more is credited than a dispute can accept, which never exceeds its line.",
    )


@strawberry.input(description="Points that the operator would give to a member, or take.")
class ProposePointsInput:
    """An adjustment of points."""

    idempotency_key: str = strawberry.field(description=KEY)
    member: MemberRef = strawberry.field(description="Whose points.")
    points: Points = strawberry.field(
        description="How many to give; negative to take, out of points that the operator funded. As many as the member"
        " owes, or fewer: its debt is written off, also when the programme has ended."
    )
    partner_id: strawberry.ID = strawberry.field(
        description="The partner whose terms of the day of approval price what is given, and who counts as its issuer."
    )
    reason: ProposalReason = strawberry.field(description=REASON)
    note: str = strawberry.field(description=NOTE)


@strawberry.input(description="What a partner's budget window may spend beyond its limit, to be proposed.")
class ProposeOverdraftInput:
    """An overdraft."""

    idempotency_key: str = strawberry.field(description=KEY)
    partner_id: strawberry.ID = strawberry.field(description=PARTNER)
    amount: MoneyInput = strawberry.field(description="How much more, beside what was approved before.")
    reason: ProposalReason = strawberry.field(description=REASON)
    note: str = strawberry.field(description=NOTE)
    label: str | None = strawberry.field(
        description='The period whose window it is, such as "2017-03"; the window of today when left out.'
    )
    until: datetime | None = strawberry.field(
        description="From when on nothing more is spent out of it; the end of the window when left out."
    )


@strawberry.input(description="What a partner owes of a closed statement and would be let off.")
class ProposeWriteOffInput:
    """A write-off."""

    idempotency_key: str = strawberry.field(description=KEY)
    partner_id: strawberry.ID = strawberry.field(description=PARTNER)
    label: str = strawberry.field(description='The closed statement, by its period\'s label, such as "2017-03".')
    amount: MoneyInput = strawberry.field(description="How much of what is open.")
    reason: ProposalReason = strawberry.field(description=REASON)
    note: str = strawberry.field(description=SHOWN_NOTE)


@strawberry.input(description="A decision about a proposal.")
class DecideProposalInput:
    """An approval, rejection or withdrawal."""

    idempotency_key: str = strawberry.field(description=KEY)
    proposal_id: strawberry.ID = strawberry.field(description="The proposal's id.")
    note: str | None = strawberry.field(description="Why, for people; 1 to 1,000 characters on one line.")


@strawberry.input(description="Which proposals to list; conditions that you leave out do not limit.")
class ProposalFilter:
    """Conditions on proposals."""

    state: ProposalState | None = strawberry.field(description="Only in this state.")
    kind: ProposalKind | None = strawberry.field(description="Only of this kind.")
    partner_id: strawberry.ID | None = strawberry.field(description="Only what concerns this partner.")


_APPROVALS = {
    ProposalKind.OVERDRAFT: approve_overdraft,
    ProposalKind.DEPOSIT_PAYOUT: approve_payout,
    ProposalKind.DEFAULT: approve_default,
}
"""What approves a kind, where it is neither money on an account nor points."""


def receipt(step: Step, key: str) -> ProposalReceipt:
    """The answer to a step, which the log tells too."""
    if not step.replayed:
        row = step.proposal
        _log.info("proposal %d (%s) is %s", row.id, row.content.kind, row.state)
    return ProposalReceipt(proposal=Proposal(row=step.proposal), replayed=step.replayed, idempotency_key=key)


async def decide(context: Context, given: DecideProposalInput, state: ProposalState) -> ProposalReceipt | Refusal:
    """Takes the step that ends a proposal. Raises Refused, and FORBIDDEN without the scope of its kind."""
    services, key = context.services, given.idempotency_key
    decision = Decision(state, context.principal.client_id, key, given.note)
    numbers = services.ids.decode(context.viewer_id, "Proposal", given.proposal_id)
    async with services.database.posting() as connection:
        found = None if numbers is None else await proposing.proposal_by_id(connection, numbers[0])
    if found is None:
        raise Refused(RefusalCode.PROPOSAL_NOT_FOUND, "there is no such proposal", "proposalId")
    _require_scope(context, found.content.kind)
    if state != ProposalState.APPROVED:
        return receipt(await proposing.end_proposal(services.database, services.clock, found.id, decision), key)
    if found.content.kind == ProposalKind.POINTS:
        return await _approve_points(context, found, decision)
    approve = _APPROVALS.get(found.content.kind, approve_money)
    return receipt(await approve(services.database, services.clock, found.id, decision), key)


def _require_scope(context: Context, kind: ProposalKind) -> None:
    requirement = PROPOSAL_SCOPES[kind]
    if not context.allows(requirement):
        message = f"proposals of kind {kind} need scope {in_words(requirement)}"
        raise GraphQLError(message, extensions={"code": "FORBIDDEN", "requiredScopes": requirement})


async def _approve_points(context: Context, found: proposals.Proposal, decision: Decision) -> ProposalReceipt | Refusal:
    """Points move through the posting queue, which decides the proposal in the transaction that moves them."""
    services = context.services
    outcome = await services.queue.post(adjust_command(found, decision, services.clock))
    if isinstance(outcome, commands.Refusal):
        return refusal_of(outcome._replace(key=decision.key))
    async with services.database.posting() as connection:
        after = await proposing.proposal_by_id(connection, found.id)
    assert after is not None
    return receipt(Step(after, outcome.replayed), decision.key)


@strawberry.type
class ProposalQueries:
    """Query fields about proposals."""

    @guarded_field("Query.proposals", "Proposals of the operator's clients, latest first.")
    async def proposals(
        self,
        info: Info,
        filter: Annotated[
            ProposalFilter | None, strawberry.argument(description="Which ones; all of them when left out.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[Proposal]:
        """A page of proposals."""
        context, size = info.context, page_size(first)
        before = cursor_key(context, "Proposal", after)
        partner_id = None
        if filter is not None and filter.partner_id is not None:
            partner_id = plain_number("Partner", filter.partner_id) or OPERATOR_ID
        async with context.services.database.reading(context.viewer_id) as connection:
            rows = await proposing.proposals_page(
                connection,
                NO_PROPOSAL_BEFORE if before is None else before,
                size + 1,
                state=None if filter is None else filter.state,
                kind=None if filter is None else filter.kind,
                partner_id=partner_id,
            )
        return connection_of("Proposal", size, after, [(row.id, Proposal(row=row)) for row in rows])


@strawberry.type
class ProposalMutations:
    """Mutation fields about proposals."""

    @refusable_field(
        "Mutation.proposeAdjustment", "Proposes a credit or debit of a partner; another client approves it."
    )
    async def propose_adjustment(
        self, info: Info, input: Annotated[ProposeAdjustmentInput, strawberry.argument(description="The adjustment.")]
    ) -> ProposalResult | None:
        """Proposes an adjustment of money."""
        context, key = info.context, input.idempotency_key
        ask = AdjustmentAsk(
            plain_number("Partner", input.partner_id),
            input.amount.as_amount(),
            input.reason,
            input.note,
            input.label,
            None if input.line_kind is None else LineKind(input.line_kind.value),
            None if input.dispute_id is None else dispute_number(context, input.dispute_id) or NO_DISPUTE,
        )
        services = context.services
        step = await propose_adjustment(services.database, services.clock, context.principal.client_id, key, ask)
        return receipt(step, key)

    @refusable_field(
        "Mutation.proposePointsAdjustment",
        "Proposes to give points to a member, or to take some, at the operator's expense; another client approves it.",
    )
    async def propose_points_adjustment(
        self, info: Info, input: Annotated[ProposePointsInput, strawberry.argument(description="The points.")]
    ) -> ProposalResult | None:
        """Proposes an adjustment of points."""
        context, key = info.context, input.idempotency_key
        services = context.services
        member_key = input.member.key(context)
        member = None if member_key is None else await context.loaders.members.find(member_key)
        if member is None:
            message = "no member has this id or identifier"
            raise Refused(RefusalCode.MEMBER_NOT_FOUND, message, "member")
        content = Content(
            ProposalKind.POINTS,
            plain_number("Partner", input.partner_id) or OPERATOR_ID,
            input.reason,
            input.note,
            points=input.points,
            member_id=member.id,
        )
        step = await propose_points(services.database, services.clock, context.principal.client_id, key, content)
        return receipt(step, key)

    @refusable_field(
        "Mutation.proposeOverdraft",
        "Proposes what a budget window may spend beyond its limit; another client approves it.",
    )
    async def propose_overdraft(
        self, info: Info, input: Annotated[ProposeOverdraftInput, strawberry.argument(description="The overdraft.")]
    ) -> ProposalResult | None:
        """Proposes an overdraft."""
        context, key = info.context, input.idempotency_key
        ask = OverdraftAsk(
            plain_number("Partner", input.partner_id),
            input.amount.as_amount(),
            input.reason,
            input.note,
            input.label,
            input.until,
        )
        services = context.services
        step = await propose_overdraft(services.database, services.clock, context.principal.client_id, key, ask)
        return receipt(step, key)

    @refusable_field(
        "Mutation.proposeWriteOff",
        "Proposes to let a partner off what it owes of a closed statement; another client approves it.",
    )
    async def propose_write_off(
        self, info: Info, input: Annotated[ProposeWriteOffInput, strawberry.argument(description="The write-off.")]
    ) -> ProposalResult | None:
        """Proposes a write-off."""
        context, key = info.context, input.idempotency_key
        ask = WriteOffAsk(
            plain_number("Partner", input.partner_id),
            input.amount.as_amount(),
            input.reason,
            input.note,
            input.label,
        )
        services = context.services
        step = await propose_write_off(services.database, services.clock, context.principal.client_id, key, ask)
        return receipt(step, key)

    @refusable_field(
        "Mutation.approveProposal",
        "Approves what another client proposed, and does it. The scope is that of its kind: settlement:operate for"
        " money, points:adjust for points, program:write for overdrafts.",
    )
    async def approve_proposal(
        self, info: Info, input: Annotated[DecideProposalInput, strawberry.argument(description="Which one.")]
    ) -> ProposalResult | None:
        """Approves a proposal."""
        info.context.forget()
        return await decide(info.context, input, ProposalState.APPROVED)

    @refusable_field("Mutation.rejectProposal", "Rejects what another client proposed; scopes as for approveProposal.")
    async def reject_proposal(
        self, info: Info, input: Annotated[DecideProposalInput, strawberry.argument(description="Which one.")]
    ) -> ProposalResult | None:
        """Rejects a proposal."""
        return await decide(info.context, input, ProposalState.REJECTED)

    @refusable_field(
        "Mutation.withdrawProposal", "Takes back what your own client proposed; scopes as for approveProposal."
    )
    async def withdraw_proposal(
        self, info: Info, input: Annotated[DecideProposalInput, strawberry.argument(description="Which one.")]
    ) -> ProposalResult | None:
        """Withdraws a proposal."""
        return await decide(info.context, input, ProposalState.WITHDRAWN)

"""Proposals as the schema shows them."""

from datetime import datetime
from typing import Annotated

import strawberry

from api.graphql.context import Info
from api.graphql.disputed import Dispute
from api.graphql.fields import described_enum, described_field, guarded_field
from api.graphql.line_kinds import StatementLineKind
from api.graphql.members import Member
from api.graphql.money import (
    Money,
    money_from_micro,
)
from api.graphql.partners import Partner, known_partner
from api.graphql.refusals import Refusal
from api.graphql.scalars import Points
from api.graphql.transactions import Transaction
from domain import proposals
from domain.adjusting import adjustment_of
from domain.proposals import ProposalKind, ProposalReason, ProposalState

described_enum(
    ProposalKind,
    "What a proposal would do. New kinds may come.",
    {
        "ADJUSTMENT": "Credit or debit a partner, on its statement of the period in which it is approved.",
        "POINTS": "Give points to a member, or take some, at the operator's expense.",
        "OVERDRAFT": "Let a partner's budget window spend beyond its limit.",
        "WRITE_OFF": "Let a partner off what it owes of a closed statement.",
        "DISPUTE": "Accept a dispute in whole or part, or reject it (amount 0).",
        "DEPOSIT_PAYOUT": "Pay a part of a partner's deposit out.",
        "DEFAULT": "Cover a due statement that its partner does not pay; amount is what it owed then, the most that is"
        " covered.",
    },
)
described_enum(
    ProposalState,
    "Where a proposal is in its life. It is decided once.",
    {
        "PROPOSED": "Nothing was done yet; another client than the one that proposed it decides.",
        "APPROVED": "Another client approved it, and so it was done.",
        "REJECTED": "Another client rejected it.",
        "WITHDRAWN": "The client that proposed it took it back.",
    },
)
described_enum(
    ProposalReason,
    "Why something is proposed, as far as it can be counted.",
    {
        "CORRECTION": "Something was booked wrongly.",
        "AGREEMENT": "It was agreed with the partner.",
        "GOODWILL": "Nobody is obliged to it.",
        "FRAUD": "Points were got by deceit.",
        "UNCOLLECTABLE": "The partner cannot pay.",
        "DISPUTE": "A partner disputed a line.",
        "OTHER": "Something else: see the note.",
    },
)

REASON = "Why, as far as it can be counted."


@strawberry.type(description="What needs four eyes: proposed by one client of the operator, decided by another.")
class Proposal:
    """A proposal as it stands."""

    row: strawberry.Private[proposals.Proposal]

    @described_field("Opaque id of the proposal.")
    def id(self, info: Info) -> strawberry.ID:
        """The viewer's id of the proposal."""
        context = info.context
        return strawberry.ID(context.services.ids.encode(context.viewer_id, "Proposal", self.row.id))

    @described_field("What it would do.")
    def kind(self) -> ProposalKind:
        """The kind."""
        return self.row.content.kind

    @described_field("Where it is in its life.")
    def state(self) -> ProposalState:
        """The state."""
        return self.row.state

    @described_field("Whom it concerns; of POINTS, whose terms price them and who counts as their issuer.")
    async def partner(self, info: Info) -> Partner:
        """The partner."""
        return await known_partner(info.context, self.row.content.partner_id)

    @described_field(
        "The amount, six decimals; null for POINTS. Of an ADJUSTMENT signed from the partner's side: negative, it pays."
    )
    def amount(self, info: Info) -> Money | None:
        """The amount."""
        micro = self.row.content.amount_micro
        return None if micro is None else money_from_micro(micro, info.context.programme)

    @described_field("Points to give, negative to take; null unless POINTS.")
    def points(self) -> Points | None:
        """The points."""
        points = self.row.content.points
        return None if points is None else Points(points)

    @guarded_field("Proposal.member", "Whose points; null unless POINTS.")
    async def member(self, info: Info) -> Member | None:
        """The member, with the balance of now."""
        member_id = self.row.content.member_id
        row = None if member_id is None else await info.context.loaders.members.find(member_id)
        return None if row is None else Member(row=row)

    @described_field('Label of the closed statement that it is about, such as "2017-03"; null when it is about none.')
    def statement_label(self, info: Info) -> str | None:
        """The closed statement's period."""
        period_id = self.row.content.of_period_id
        return None if period_id is None else info.context.programme.calendar.label(period_id)

    @described_field("The line of that statement that it corrects; null when it corrects none.")
    def line_kind(self) -> StatementLineKind | None:
        """The closed line."""
        kind = self.row.content.of_line_kind
        return None if kind is None else StatementLineKind(kind)

    @described_field("When an OVERDRAFT ends; null where it lasts as long as its window, and for other kinds.")
    def until(self) -> datetime | None:
        """End of an overdraft."""
        return self.row.content.until

    @described_field(REASON)
    def reason(self) -> ProposalReason:
        """The reason."""
        return self.row.content.reason_code

    @described_field("Why, in words.")
    def note(self) -> str:
        """The note."""
        return self.row.content.note

    @described_field("Client id of who proposed it.")
    def proposed_by(self) -> str:
        """The proposer."""
        return self.row.proposed_by

    @described_field("When it was proposed.")
    def proposed_at(self) -> datetime:
        """Time of the proposal."""
        return self.row.proposed_at

    @described_field("Client id of who approved, rejected or withdrew it; null while it is PROPOSED.")
    def decided_by(self) -> str | None:
        """Who decided."""
        return self.row.decided_by

    @described_field("When it was decided; null while it is PROPOSED.")
    def decided_at(self) -> datetime | None:
        """Time of the decision."""
        return self.row.decided_at

    @described_field("What whoever decided it noted.")
    def decision_note(self) -> str | None:
        """The decision's note."""
        return self.row.decision_note

    @described_field("The DISPUTE whose outcome it is; null for other kinds.")
    async def dispute(self, info: Info) -> Dispute | None:
        """The dispute."""
        dispute_id = self.row.content.dispute_id
        row = None if dispute_id is None else await info.context.loaders.disputes.load(dispute_id)
        return None if row is None else Dispute(row=row)

    @described_field("The transaction that approved POINTS made; null otherwise.")
    async def transaction(self, info: Info) -> Transaction | None:
        """What the approval posted."""
        context = info.context
        if self.row.content.kind != ProposalKind.POINTS or self.row.state != ProposalState.APPROVED:
            return None
        async with context.services.database.reading(context.viewer_id) as connection:
            command_id = await adjustment_of(connection, self.row.id)
        row = None if command_id is None else await context.loaders.transactions.load(command_id)
        return None if row is None else Transaction(row=row)


@strawberry.type(description="A step of a proposal was taken.")
class ProposalReceipt:
    """Answer to a step."""

    proposal: Proposal = strawberry.field(description="The proposal after it.")
    replayed: bool = strawberry.field(description="Whether this key took the step before; then nothing changed now.")
    idempotency_key: str = strawberry.field(description="The key of the step.")


ProposalResult = Annotated[
    ProposalReceipt | Refusal,
    strawberry.union("ProposalResult", description="The proposal, or why the step was not taken."),
]

"""Members' accounts: points that move between them, and merges of members who are one person."""

from datetime import datetime
from typing import Annotated

import strawberry

from api.graphql.context import Context, Info
from api.graphql.fields import described_field, guarded_field
from api.graphql.inputs import KEY, OCCURRED_LATER_AT
from api.graphql.members import Balance, Member, MemberRef
from api.graphql.refusals import Refusal, refusal_of
from api.graphql.scalars import Points
from api.graphql.till import REPLAYED, balance_after
from api.graphql.transactions import Transaction
from domain import commands


@strawberry.input(
    description="Points that one member gives to another. A partner needs the programme's consent"
    " (TRANSFER_NOT_ALLOWED) and is bound by its limits (LIMIT_EXCEEDED); the operator is not."
)
class TransferPointsInput:
    """A transfer."""

    idempotency_key: str = strawberry.field(description=KEY)
    from_: MemberRef = strawberry.field(name="from", description="Who gives.")
    to: MemberRef = strawberry.field(description="Who receives; points keep their issuer, price and expiry.")
    points: Points = strawberry.field(description="How many points, 1 to 1,000,000,000; first to expire, first to go.")
    occurred_at: datetime = strawberry.field(description=OCCURRED_LATER_AT)
    reason: str | None = strawberry.field(description="Why, for your own records.")

    def as_command(self, context: Context) -> commands.Transfer:
        """The domain's command of it, from the viewer."""
        return commands.Transfer(
            partner_id=context.viewer_id,
            key=self.idempotency_key,
            source=self.from_.as_ref(context),
            target=self.to.as_ref(context),
            points=self.points,
            occurred_at=self.occurred_at,
            reason=self.reason,
        )


@strawberry.type(description="Points were moved to another member. Its balance is not told here.")
class TransferReceipt:
    """Answer to a transfer."""

    posted: strawberry.Private[commands.Posted]

    @described_field("The transaction as booked, from the giver's side.")
    def transaction(self) -> Transaction:
        """The stored command."""
        return Transaction(row=self.posted.command)

    @described_field("Points moved, positive.")
    def points(self) -> Points:
        """Moved points."""
        return Points(self.posted.points)

    @described_field("The giver's points after it.")
    def balance(self, info: Info) -> Balance:
        """The balance of the account that the points left."""
        return balance_after(self.posted, info.context)

    @described_field("The key of the command.")
    def idempotency_key(self) -> str:
        """The key."""
        return self.posted.command.key

    @described_field(REPLAYED)
    def replayed(self) -> bool:
        """Whether it was posted before."""
        return self.posted.replayed


@strawberry.input(
    description="Two members who are one person. From now on keep stands for duplicate: it has its points and"
    " identifiers, and the duplicate's ids mean it. Pending points follow when they are confirmed."
)
class MergeMembersInput:
    """A merge."""

    idempotency_key: str = strawberry.field(description=KEY)
    keep: MemberRef = strawberry.field(description="Who stays.")
    duplicate: MemberRef = strawberry.field(description="Whose account is closed; none of its points may be held.")
    reason: str | None = strawberry.field(description="Why, for your own records.")

    def as_command(self, context: Context) -> commands.Merge:
        """The domain's command of it, from the operator."""
        keep, duplicate = self.keep.as_ref(context), self.duplicate.as_ref(context)
        return commands.Merge(context.viewer_id, self.idempotency_key, keep, duplicate, self.reason)


@strawberry.input(
    description="A merge that was a mistake; name it in exactly one way. What the kept member earned since stays there."
)
class UnmergeMembersInput:
    """The undoing of a merge."""

    idempotency_key: str = strawberry.field(description=KEY)
    transaction_id: strawberry.ID | None = strawberry.field(description="The merge, by the id of its transaction.")
    original_key: str | None = strawberry.field(description="The merge, by the key under which it was sent.")
    reason: str | None = strawberry.field(description="Why, for your own records.")

    def as_command(self, context: Context) -> commands.Unmerge:
        """The domain's command of it, from the operator."""
        numbers = None
        if self.transaction_id is not None:
            numbers = context.services.ids.decode(context.viewer_id, "Transaction", self.transaction_id)
        original = commands.OriginalRef(
            command_id=numbers[-1] if numbers else None,
            key=self.original_key,
            given=sum(way is not None for way in (self.transaction_id, self.original_key)),
        )
        return commands.Unmerge(context.viewer_id, self.idempotency_key, original, self.reason)


@strawberry.type(description="Two members were merged, or a merge was undone.")
class MergeReceipt:
    """Answer to a merge and to its undoing."""

    posted: strawberry.Private[commands.Posted]

    @described_field("The transaction as booked; of an undone merge, reverses names the merge.")
    def transaction(self) -> Transaction:
        """The stored command."""
        return Transaction(row=self.posted.command)

    @described_field("The member that is kept, as of now.")
    async def kept(self, info: Info) -> Member:
        """Who stands for both, or stood for both."""
        return await self._member(info, self.posted.command.member_id)

    @described_field("The duplicate, as of now: the kept member while the merge stands.")
    async def duplicate(self, info: Info) -> Member:
        """Who is merged, or stands alone again."""
        command = self.posted.command
        if command.reverses_id is not None:
            merge = await info.context.loaders.transactions.load(command.reverses_id)
            assert merge is not None
            command = merge
        return await self._member(info, command.member_id)

    async def _member(self, info: Info, member_id: int) -> Member:
        row = await info.context.loaders.members.find(member_id)
        assert row is not None
        return Member(row=row)

    @described_field("Points that moved between the two, positive.")
    def points(self) -> Points:
        """Moved points."""
        return Points(self.posted.points)

    @described_field("The key of the command.")
    def idempotency_key(self) -> str:
        """The key."""
        return self.posted.command.key

    @described_field(REPLAYED)
    def replayed(self) -> bool:
        """Whether it was posted before."""
        return self.posted.replayed


MergeMembersResult = Annotated[
    MergeReceipt | Refusal,
    strawberry.union("MergeMembersResult", description="A receipt, or why there is none."),
]
UnmergeMembersResult = Annotated[
    MergeReceipt | Refusal,
    strawberry.union("UnmergeMembersResult", description="A receipt, or why there is none."),
]
TransferPointsResult = Annotated[
    TransferReceipt | Refusal,
    strawberry.union("TransferPointsResult", description="A receipt, or why there is none."),
]


@strawberry.type
class AccountMutations:
    """Mutation fields about members' accounts."""

    @guarded_field("Mutation.transferPoints", "Moves points from one member to another; no money moves.")
    async def transfer_points(
        self, info: Info, input: Annotated[TransferPointsInput, strawberry.argument(description="The transfer.")]
    ) -> TransferPointsResult | None:
        """Posts a transfer."""
        info.context.forget()
        outcome = await info.context.services.queue.post(input.as_command(info.context))
        if isinstance(outcome, commands.Refusal):
            return refusal_of(outcome)
        assert isinstance(outcome, commands.Posted)
        return TransferReceipt(posted=outcome)

    @guarded_field("Mutation.mergeMembers", "Lets one member stand for another who is the same person.")
    async def merge_members(
        self, info: Info, input: Annotated[MergeMembersInput, strawberry.argument(description="The merge.")]
    ) -> MergeMembersResult | None:
        """Posts a merge."""
        return await _merged(info, input.as_command(info.context))

    @guarded_field(
        "Mutation.unmergeMembers", "Undoes a merge, while none of the points that moved with it was used or expired."
    )
    async def unmerge_members(
        self, info: Info, input: Annotated[UnmergeMembersInput, strawberry.argument(description="The merge to undo.")]
    ) -> UnmergeMembersResult | None:
        """Posts the undoing of a merge."""
        return await _merged(info, input.as_command(info.context))


async def _merged(info: Info, command: commands.Merge | commands.Unmerge) -> MergeReceipt | Refusal:
    info.context.forget()
    outcome = await info.context.services.queue.post(command)
    if isinstance(outcome, commands.Refusal):
        return refusal_of(outcome)
    assert isinstance(outcome, commands.Posted)
    return MergeReceipt(posted=outcome)

"""Points that move between members' accounts."""

from datetime import datetime
from typing import Annotated

import strawberry

from api.graphql.context import Context, Info
from api.graphql.fields import described_field, guarded_field
from api.graphql.inputs import KEY, OCCURRED_AT
from api.graphql.members import Balance, MemberRef
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
    occurred_at: datetime = strawberry.field(description=OCCURRED_AT)
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

"""Household pools: members who share one account."""

from datetime import datetime
from typing import Annotated

import strawberry

from api.graphql.context import Context, Info
from api.graphql.fields import described_enum, described_field, guarded_field
from api.graphql.inputs import KEY
from api.graphql.members import Balance, Member, MemberRef
from api.graphql.refusals import Refusal, refusal_of
from api.graphql.scalars import Points
from api.graphql.till import REPLAYED, balance_after
from api.graphql.transactions import Transaction
from domain import commands
from domain.accounts import PoolRole
from domain.pool_reading import PlaceRow

REASON = "Why, for your own records."

described_enum(
    PoolRole,
    "What a member is in a pool.",
    {
        "HEAD": "Burns without a limit. A pool always has one.",
        "MEMBER": "Burns up to its limit a day, if it has one.",
    },
)


@strawberry.type(description="A member in a pool.")
class PoolMember:
    """One place in a pool."""

    row: strawberry.Private[PlaceRow]

    @described_field("Who it is.")
    async def member(self, info: Info) -> Member:
        """The member, with the pool's balance."""
        row = await info.context.loaders.members.find(self.row.member_id)
        assert row is not None
        return Member(row=row)

    @described_field("Its role.")
    def role(self) -> PoolRole:
        """The role."""
        return PoolRole(self.row.role)

    @described_field("Most points that it may burn of the pool on one day of the programme; null: no limit.")
    def burn_limit(self) -> Points | None:
        """The limit per local day."""
        return None if self.row.burn_limit is None else Points(self.row.burn_limit)

    @described_field("Since when it has this role and limit.")
    def since(self) -> datetime:
        """When the place began."""
        return self.row.since


@strawberry.type(description="A household: members who share one account. Each one's balance is the pool's.")
class Pool:
    """A pool as the viewer may see it."""

    pool_id: strawberry.Private[int]

    @described_field("Opaque id of the pool; every partner sees another one.")
    def id(self, info: Info) -> strawberry.ID:
        """The viewer's id of the pool."""
        return strawberry.ID(info.context.services.ids.encode(info.context.viewer_id, "Pool", self.pool_id))

    @described_field("Who is in it, longest there first: those who have dealt with you (all of them for an operator).")
    async def members(self, info: Info) -> list[PoolMember]:
        """The members that the viewer knows."""
        return [PoolMember(row=row) for row in await info.context.loaders.pool_places.load(self.pool_id)]


@strawberry.input(description="A household that is to share one account, founded by its head.")
class CreatePoolInput:
    """A new pool."""

    idempotency_key: str = strawberry.field(description=KEY)
    head: MemberRef = strawberry.field(description="Who founds it; its points become the pool's.")
    reason: str | None = strawberry.field(description=REASON)

    def as_command(self, context: Context) -> commands.CreatePool:
        """The domain's command of it, from the viewer."""
        return commands.CreatePool(context.viewer_id, self.idempotency_key, self.head.as_ref(context), self.reason)


@strawberry.input(description="A member who comes into a pool, or whose role and limit there change.")
class JoinPoolInput:
    """A place in a pool."""

    idempotency_key: str = strawberry.field(description=KEY)
    pool_id: strawberry.ID = strawberry.field(description="The pool, by its id as your own queries gave it.")
    member: MemberRef = strawberry.field(description="Who joins; its points become the pool's.")
    role: PoolRole = strawberry.field(default=PoolRole.MEMBER, description="In which role.")
    burn_limit: Points | None = strawberry.field(
        description="Most points that it may burn of the pool on one day; for the role MEMBER only."
    )
    reason: str | None = strawberry.field(description=REASON)

    def as_command(self, context: Context) -> commands.JoinPool:
        """The domain's command of it, from the viewer."""
        numbers = context.services.ids.decode(context.viewer_id, "Pool", self.pool_id)
        return commands.JoinPool(
            partner_id=context.viewer_id,
            key=self.idempotency_key,
            pool_id=numbers[0] if numbers is not None and len(numbers) == 1 else commands.NO_POOL_ID,
            member=self.member.as_ref(context),
            role=PoolRole(self.role),
            burn_limit=self.burn_limit,
            reason=self.reason,
        )


@strawberry.input(
    description="A member who goes back to an account of its own. The points stay with the pool; the last member takes"
    " them along. The only head leaves last, or makes another head before (joinPool)."
)
class LeavePoolInput:
    """A place in a pool that ends."""

    idempotency_key: str = strawberry.field(description=KEY)
    member: MemberRef = strawberry.field(description="Who leaves.")
    reason: str | None = strawberry.field(description=REASON)

    def as_command(self, context: Context) -> commands.LeavePool:
        """The domain's command of it, from the viewer."""
        return commands.LeavePool(context.viewer_id, self.idempotency_key, self.member.as_ref(context), self.reason)


@strawberry.type(description="Who is in a pool was changed.")
class PoolReceipt:
    """Answer to every change of a pool."""

    posted: strawberry.Private[commands.Posted]

    @described_field("The pool, as of now.")
    async def pool(self, info: Info) -> Pool:
        """The pool that the command changed."""
        pool_id = await info.context.loaders.pools_of_commands.load(self.posted.command.id)
        assert pool_id is not None
        return Pool(pool_id=pool_id)

    @described_field("The transaction as booked, from the side of the account that points left.")
    def transaction(self) -> Transaction:
        """The stored command."""
        return Transaction(row=self.posted.command)

    @described_field("Points that the member brought or took along.")
    def points(self) -> Points:
        """Moved points."""
        return Points(self.posted.points)

    @described_field("The member's points after it: the pool's, or its own again.")
    def balance(self, info: Info) -> Balance:
        """The balance of the member's account."""
        return balance_after(self.posted, info.context)

    @described_field("The key of the command.")
    def idempotency_key(self) -> str:
        """The key."""
        return self.posted.command.key

    @described_field(REPLAYED)
    def replayed(self) -> bool:
        """Whether it was posted before."""
        return self.posted.replayed


CreatePoolResult = Annotated[
    PoolReceipt | Refusal, strawberry.union("CreatePoolResult", description="A receipt, or why there is none.")
]
JoinPoolResult = Annotated[
    PoolReceipt | Refusal, strawberry.union("JoinPoolResult", description="A receipt, or why there is none.")
]
LeavePoolResult = Annotated[
    PoolReceipt | Refusal, strawberry.union("LeavePoolResult", description="A receipt, or why there is none.")
]


@strawberry.type
class PoolMutations:
    """Mutation fields about pools."""

    @guarded_field("Mutation.createPool", "Founds a household's pool with its head.")
    async def create_pool(
        self, info: Info, input: Annotated[CreatePoolInput, strawberry.argument(description="The pool.")]
    ) -> CreatePoolResult | None:
        """Posts a founding."""
        return await _changed(info, input.as_command(info.context))

    @guarded_field("Mutation.joinPool", "Takes a member into a pool, or changes its role and limit there.")
    async def join_pool(
        self, info: Info, input: Annotated[JoinPoolInput, strawberry.argument(description="The place.")]
    ) -> JoinPoolResult | None:
        """Posts a joining."""
        return await _changed(info, input.as_command(info.context))

    @guarded_field("Mutation.leavePool", "Lets a member leave its pool.")
    async def leave_pool(
        self, info: Info, input: Annotated[LeavePoolInput, strawberry.argument(description="Who leaves.")]
    ) -> LeavePoolResult | None:
        """Posts a leaving."""
        return await _changed(info, input.as_command(info.context))


async def _changed(
    info: Info, command: commands.CreatePool | commands.JoinPool | commands.LeavePool
) -> PoolReceipt | Refusal:
    info.context.forget()
    outcome = await info.context.services.queue.post(command)
    if isinstance(outcome, commands.Refusal):
        return refusal_of(outcome)
    assert isinstance(outcome, commands.Posted)
    return PoolReceipt(posted=outcome)

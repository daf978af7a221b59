"""Two-phase burns: authorizing, capturing, voiding, and the holds that come of it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import strawberry

from api.graphql.context import Context, Info, bad_input, page_size
from api.graphql.fields import described_enum, described_field, guarded_field
from api.graphql.inputs import BurnInput, CaptureBurnInput, VoidBurnInput
from api.graphql.members import Balance, balance_of, worth_in
from api.graphql.money import After, Connection, First, Node, connection_of, cursor_key
from api.graphql.refusals import Refusal, refusal_of
from api.graphql.scalars import Points
from api.graphql.till import BurnResult, burn_result
from api.graphql.transactions import Transaction
from domain import commands, reading


class HoldState(StrEnum):
    """What became of a hold."""

    OPEN = "OPEN"
    CAPTURED = "CAPTURED"
    VOIDED = "VOIDED"
    EXPIRED = "EXPIRED"


described_enum(
    HoldState,
    "What became of a hold. It is resolved once and then stays so.",
    {
        "OPEN": "The points are set aside; capture or void it before expiresAt.",
        "CAPTURED": "Points were burned; what was held beyond them went back to the member.",
        "VOIDED": "Called off; all points went back to the member.",
        "EXPIRED": "Its time ran out; all points went back to the member.",
    },
)


@strawberry.type(
    description="Points of a member that an authorization set aside. They do not expire while they are held, and only"
    " the partner that holds them can burn them."
)
class BurnHold(Node):
    """An authorization and what became of it."""

    hold: strawberry.Private[commands.HoldView]
    member_id: strawberry.Private[int]
    key: strawberry.Private[str]
    is_replay: strawberry.Private[bool] = False
    after: strawberry.Private[commands.BalanceView | None] = None

    @described_field("Opaque id of the hold; holdId of a capture or a void.")
    def id(self, info: Info) -> strawberry.ID:
        """The viewer's id of the hold."""
        context = info.context
        numbers = (self.hold.account_id, self.hold.id)
        return strawberry.ID(context.services.ids.encode(context.viewer_id, "BurnHold", *numbers))

    @described_field("The authorization as booked.")
    async def transaction(self, info: Info) -> Transaction:
        """The stored command."""
        row = await info.context.loaders.transactions.load(self.hold.id)
        assert row is not None
        return Transaction(row=row)

    @described_field("How it was resolved: its capture or its void; null while it is open.")
    async def resolution(self, info: Info) -> Transaction | None:
        """The command that resolved it."""
        row = await info.context.loaders.resolutions.load(self.hold.id)
        return None if row is None else Transaction(row=row)

    @described_field("Points that were set aside.")
    def points(self) -> Points:
        """Authorized points."""
        return Points(self.hold.points)

    @described_field("Points of them that were burned.")
    def captured(self) -> Points:
        """Captured points."""
        return Points(self.hold.captured)

    @described_field("Points of them that went back to the member.")
    def released(self) -> Points:
        """Released points."""
        return Points(self.hold.released)

    @described_field("What became of it.")
    def state(self) -> HoldState:
        """The hold's state."""
        return HoldState(self.hold.state)

    @described_field("When an open hold's time runs out: it can no longer be captured, and its points go back.")
    def expires_at(self) -> datetime:
        """End of the hold's time."""
        return self.hold.expires_at

    @guarded_field("BurnHold.balance", "The member's points: after the command, or as of now.")
    async def balance(self, info: Info) -> Balance:
        """The balance."""
        context = info.context
        if self.after is not None:
            return balance_of(self.after, worth_in(context.programme))
        row = await context.loaders.members.find(self.member_id)
        assert row is not None
        return balance_of(row.balance, worth_in(context.programme))

    @described_field("The key of the command that this answers; of a hold that you read, its authorization's.")
    def idempotency_key(self) -> str:
        """The key."""
        return self.key

    @described_field("Whether this key was posted before; then nothing moved now, and balances are today's.")
    def replayed(self) -> bool:
        """Whether it was posted before."""
        return self.is_replay


AuthorizeBurnResult = Annotated[
    BurnHold | Refusal, strawberry.union("AuthorizeBurnResult", description="The hold, or why there is none.")
]
VoidBurnResult = Annotated[
    BurnHold | Refusal, strawberry.union("VoidBurnResult", description="The hold, or why it is not voided.")
]


def hold_result(outcome: commands.Outcome) -> BurnHold | Refusal:
    """The schema's value of an authorization's or a void's outcome."""
    if isinstance(outcome, commands.Refusal):
        return refusal_of(outcome)
    assert isinstance(outcome, commands.Posted)
    assert outcome.hold is not None
    command = outcome.command
    return BurnHold(
        hold=outcome.hold,
        member_id=command.member_id,
        key=command.key,
        is_replay=outcome.replayed,
        after=outcome.balance,
    )


async def hold_by_numbers(context: Context, numbers: tuple[int, ...]) -> BurnHold | None:
    """The hold that an id names, as far as the viewer may see it."""
    async with context.services.database.reading(context.viewer_id) as connection:
        row = await reading.hold_by_id(connection, numbers[0], numbers[-1])
    return None if row is None else BurnHold(hold=row.hold, member_id=row.member_id, key=row.key)


@strawberry.input(description="Which holds to list; conditions that you leave out do not limit.")
class HoldFilter:
    """Conditions on holds."""

    state: HoldState | None = strawberry.field(description="Only those in this state.")
    member: strawberry.ID | None = strawberry.field(description="Only of this member, by your id of it.")
    reference: str | None = strawberry.field(description="Only those whose authorization has this reference.")
    expires_before: datetime | None = strawberry.field(description="Only those whose time ends before this instant.")


def hold_conditions(context: Context, given: HoldFilter | None) -> dict[str, Any]:
    """Conditions of reading.HOLD_CONDITIONS for a filter. Raises BAD_USER_INPUT naming the field at fault."""
    conditions: dict[str, Any] = {} if context.is_operator else {"partner": context.viewer_id}
    if given is None:
        return conditions
    for name in ("state", "reference", "expires_before"):
        if getattr(given, name) is not None:
            conditions[name] = getattr(given, name)
    if given.member is not None:
        numbers = context.services.ids.decode(context.viewer_id, "Member", given.member)
        if numbers is None or len(numbers) != 1:
            raise bad_input("member must be a member's id as your own queries gave it", "member")
        conditions["member"] = numbers[0]
    return conditions


@strawberry.type
class HoldQueries:
    """Query fields about holds."""

    @guarded_field("Query.holds", "Your own holds (everybody's for an operator), latest authorization first.")
    async def holds(
        self,
        info: Info,
        filter: Annotated[
            HoldFilter | None, strawberry.argument(description="Which ones; all of them when left out.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[BurnHold]:
        """A page of holds."""
        context, size = info.context, page_size(first)
        conditions = hold_conditions(context, filter)
        before = cursor_key(context, "BurnHold", after)
        if before is not None:
            conditions["before"] = before
        async with context.services.database.reading(context.viewer_id) as connection:
            rows = await reading.holds_page(connection, conditions, size + 1)
        found = [(row.hold.id, BurnHold(hold=row.hold, member_id=row.member_id, key=row.key)) for row in rows]
        return connection_of("BurnHold", size, after, found)


@strawberry.type
class HoldMutations:
    """Mutation fields of two-phase burns."""

    @guarded_field(
        "Mutation.authorizeBurn",
        "Sets points of a member aside for a burn at your partner that is not certain yet: capture or void it.",
    )
    async def authorize_burn(
        self, info: Info, input: Annotated[BurnInput, strawberry.argument(description="The burn to come.")]
    ) -> AuthorizeBurnResult | None:
        """Posts an authorization."""
        info.context.forget()
        return hold_result(await info.context.services.queue.post(input.as_authorization(info.context)))

    @guarded_field(
        "Mutation.captureBurn",
        "Burns points of an authorization, in full or in part, at its terms; the rest goes back to the member.",
    )
    async def capture_burn(
        self, info: Info, input: Annotated[CaptureBurnInput, strawberry.argument(description="The capture.")]
    ) -> BurnResult | None:
        """Posts a capture."""
        info.context.forget()
        return burn_result(await info.context.services.queue.post(input.as_command(info.context)))

    @guarded_field("Mutation.voidBurn", "Calls an authorization off; its points go back to the member.")
    async def void_burn(
        self, info: Info, input: Annotated[VoidBurnInput, strawberry.argument(description="The void.")]
    ) -> VoidBurnResult | None:
        """Posts a void."""
        info.context.forget()
        return hold_result(await info.context.services.queue.post(input.as_command(info.context)))

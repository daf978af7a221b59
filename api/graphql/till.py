"""The till: enrolling, earning, burning, reversing, and quotes. Everything goes through the posting queue."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, TypeVar

import strawberry

from api.graphql.context import Context, Info, bad_input
from api.graphql.fields import described_field, guarded_field
from api.graphql.inputs import BurnInput, EarnInput, EnrollMemberInput, ReverseInput
from api.graphql.limits import MANY_MAX
from api.graphql.members import Balance, Member, balance_of, worth_in
from api.graphql.money import Money
from api.graphql.parked import ParkedReversal
from api.graphql.partners import BudgetStatus, Partner, budget_status, known_partner
from api.graphql.refusals import Refusal, refusal_of
from api.graphql.scalars import Points
from api.graphql.transactions import Transaction
from domain import commands

OWN_BUDGET = "Your budget window after it; null without one."
REPLAYED = "Whether this key was posted before; then nothing moved now, and balances are today's."
KEY = "The key of the command."


@strawberry.type(description="Points of one rule or campaign in a purchase, granted by one funder.")
class Award:
    """One award."""

    result: strawberry.Private[commands.AwardResult]

    @described_field("Code of the earn rule; null when no rule applied, and for a campaign's bonus.")
    def rule(self) -> str | None:
        """The rule."""
        return self.result.rule_code

    @described_field("Code of the campaign whose bonus it is; null for the partner's own rules.")
    def campaign(self) -> str | None:
        """The campaign."""
        return self.result.campaign_code

    @described_field(
        "Who pays for the points: another partner or the operator in a campaign, the operator also where it took an"
        " award over."
    )
    async def funder(self, info: Info) -> Partner:
        """The funder."""
        return await known_partner(info.context, self.result.funder_id)

    @described_field("Points that the rule gives for the purchase, or that the campaign asks of this funder.")
    def requested(self) -> Points:
        """Points before the budget."""
        return Points(self.result.requested_points)

    @described_field("Points that the budget covered.")
    def granted(self) -> Points:
        """Points after the budget."""
        return Points(self.result.granted_points)

    @described_field(
        "While points of the award are pending: when the return window of the purchase ends, before which they are not"
        " usable. Null where they are usable, or were returned."
    )
    def pending_until(self) -> datetime | None:
        """End of the return window."""
        return self.result.pending_until

    @described_field("Whether its points are pending until the operator says that it has the money (confirmPayment).")
    def waits_for_payment(self) -> bool:
        """Whether a payment is missing."""
        return self.result.waits_for_payment


def awards_of(posted: commands.Posted) -> list[Award]:
    """The awards of a purchase, base rule first."""
    return [Award(result=award) for award in posted.awards]


def balance_after(posted: commands.Posted, context: Context) -> Balance:
    """The member's points after a command."""
    return balance_of(posted.balance, worth_in(context.programme))


def budget_after(posted: commands.Posted, context: Context) -> BudgetStatus | None:
    """The caller's own budget window after a command."""
    view = posted.budget
    return budget_status(context, view) if view is not None and context.may_see(view.partner_id) else None


@strawberry.type(
    description="A purchase was accepted. It may have earned no points (see declinedPoints) or pending ones (awards)."
)
class EarnReceipt:
    """Answer to a purchase."""

    posted: strawberry.Private[commands.Posted]

    @described_field("The transaction as booked.")
    def transaction(self) -> Transaction:
        """The stored command."""
        return Transaction(row=self.posted.command)

    @described_field("What each rule asked for and got, base rule first.")
    def awards(self) -> list[Award]:
        """The awards."""
        return awards_of(self.posted)

    @described_field("Points granted in all, pending ones included.")
    def points(self) -> Points:
        """Granted points."""
        return Points(self.posted.points)

    @described_field("Points earned but declined because the budget did not cover them.")
    def declined_points(self) -> Points:
        """Declined points."""
        return Points(self.posted.declined_points)

    @described_field("The member's points after it.")
    def balance(self, info: Info) -> Balance:
        """The balance."""
        return balance_after(self.posted, info.context)

    @described_field(OWN_BUDGET)
    def budget(self, info: Info) -> BudgetStatus | None:
        """The caller's window."""
        return budget_after(self.posted, info.context)

    @described_field(KEY)
    def idempotency_key(self) -> str:
        """The key."""
        return self.posted.command.key

    @described_field(REPLAYED)
    def replayed(self) -> bool:
        """Whether it was posted before."""
        return self.posted.replayed


@strawberry.type(description="Points were burned: at once, or captured of an authorization.")
class BurnReceipt:
    """Answer to a burn."""

    posted: strawberry.Private[commands.Posted]

    @described_field("The transaction as booked.")
    def transaction(self) -> Transaction:
        """The stored command."""
        return Transaction(row=self.posted.command)

    @described_field("Points burned, positive; 0 where a capture of none released an authorization.")
    def points(self) -> Points:
        """Burned points."""
        return Points(self.posted.points)

    @described_field("What the points are worth to the member: take this off the bill. Rounded down.")
    def value(self, info: Info) -> Money:
        """Points x point value."""
        return worth_in(info.context.programme).of(self.posted.points)

    @described_field("The member's points after it.")
    def balance(self, info: Info) -> Balance:
        """The balance."""
        return balance_after(self.posted, info.context)

    @described_field(KEY)
    def idempotency_key(self) -> str:
        """The key."""
        return self.posted.command.key

    @described_field(REPLAYED)
    def replayed(self) -> bool:
        """Whether it was posted before."""
        return self.posted.replayed


@strawberry.type(description="Goods were returned, or a burn was refunded.")
class ReversalReceipt:
    """Answer to a reversal."""

    posted: strawberry.Private[commands.Posted]

    @described_field("The reversal as booked; reverses names the original.")
    def transaction(self) -> Transaction:
        """The stored command."""
        return Transaction(row=self.posted.command)

    @described_field("Points taken back (of a purchase) or given back (of a burn), positive.")
    def points(self) -> Points:
        """Reversed points."""
        return Points(self.posted.points)

    @described_field(
        "Points of a return that were spent already and could not be taken back; they stay charged to you. What an"
        " authorization holds of them is taken, and credited to you, if the authorization lets it go."
    )
    def shortfall(self) -> Points:
        """Points that could not be taken back."""
        return Points(self.posted.shortfall_points)

    @described_field("The member's points after it.")
    def balance(self, info: Info) -> Balance:
        """The balance."""
        return balance_after(self.posted, info.context)

    @described_field(OWN_BUDGET)
    def budget(self, info: Info) -> BudgetStatus | None:
        """The caller's window."""
        return budget_after(self.posted, info.context)

    @described_field(KEY)
    def idempotency_key(self) -> str:
        """The key."""
        return self.posted.command.key

    @described_field(REPLAYED)
    def replayed(self) -> bool:
        """Whether it was posted before."""
        return self.posted.replayed


@strawberry.type(description="What a purchase would earn now. Nothing was posted, and the key was not used.")
class EarnQuote:
    """Answer to quoteEarn."""

    posted: strawberry.Private[commands.Posted]

    @described_field("What each rule would ask for and get, base rule first.")
    def awards(self) -> list[Award]:
        """The awards."""
        return awards_of(self.posted)

    @described_field("Points that would be granted in all.")
    def points(self) -> Points:
        """Granted points."""
        return Points(self.posted.points)

    @described_field("Points that the budget would not cover.")
    def declined_points(self) -> Points:
        """Declined points."""
        return Points(self.posted.declined_points)

    @described_field("The member's points after it.")
    def balance(self, info: Info) -> Balance:
        """The balance."""
        return balance_after(self.posted, info.context)


@strawberry.type(description="What a burn would take now. Nothing was posted, and the key was not used.")
class BurnQuote:
    """Answer to quoteBurn."""

    posted: strawberry.Private[commands.Posted]

    @described_field("Points that would be burned, positive.")
    def points(self) -> Points:
        """Burned points."""
        return Points(self.posted.points)

    @described_field("What the points are worth to the member, rounded down.")
    def value(self, info: Info) -> Money:
        """Points x point value."""
        return worth_in(info.context.programme).of(self.posted.points)

    @described_field("The member's points after it.")
    def balance(self, info: Info) -> Balance:
        """The balance."""
        return balance_after(self.posted, info.context)


@strawberry.type(description="The member, new or found.")
class EnrolledMember:
    """Answer to an enrolment."""

    enrolled: strawberry.Private[commands.Enrolled]

    @described_field("The member who has these identifiers.")
    async def member(self, info: Info) -> Member:
        """The member as of now."""
        row = await info.context.loaders.members.find(self.enrolled.member_id)
        assert row is not None
        return Member(row=row)

    @described_field("Whether this key made the member; false when it existed.")
    def created(self) -> bool:
        """Whether the member is new."""
        return self.enrolled.created

    @described_field(KEY)
    def idempotency_key(self) -> str:
        """The key."""
        return self.enrolled.key

    @described_field("Whether this key was posted before; then nothing changed now.")
    def replayed(self) -> bool:
        """Whether it was posted before."""
        return self.enrolled.replayed


EarnResult = Annotated[
    EarnReceipt | Refusal, strawberry.union("EarnResult", description="A receipt, or why there is none.")
]
BurnResult = Annotated[
    BurnReceipt | Refusal, strawberry.union("BurnResult", description="A receipt, or why there is none.")
]
ReverseResult = Annotated[
    ReversalReceipt | ParkedReversal | Refusal,
    strawberry.union(
        "ReverseResult",
        description="A receipt, or why there is none; with awaitOriginal perhaps that it waits for its original.",
    ),
]
EnrollMemberResult = Annotated[
    EnrolledMember | Refusal, strawberry.union("EnrollMemberResult", description="The member, or why there is none.")
]
EarnQuoteResult = Annotated[
    EarnQuote | Refusal, strawberry.union("EarnQuoteResult", description="A quote, or why it would be refused.")
]
BurnQuoteResult = Annotated[
    BurnQuote | Refusal, strawberry.union("BurnQuoteResult", description="A quote, or why it would be refused.")
]


def earn_result(outcome: commands.Outcome) -> EarnReceipt | Refusal:
    """The schema's value of a purchase's outcome."""
    if isinstance(outcome, commands.Refusal):
        return refusal_of(outcome)
    assert isinstance(outcome, commands.Posted)
    return EarnReceipt(posted=outcome)


def burn_result(outcome: commands.Outcome) -> BurnReceipt | Refusal:
    """The schema's value of a burn's or a capture's outcome."""
    if isinstance(outcome, commands.Refusal):
        return refusal_of(outcome)
    assert isinstance(outcome, commands.Posted)
    return BurnReceipt(posted=outcome)


def reverse_result(outcome: commands.Outcome) -> ReversalReceipt | ParkedReversal | Refusal:
    """The schema's value of a reversal's outcome."""
    if isinstance(outcome, commands.ParkedReversal):
        return ParkedReversal(row=outcome)
    if isinstance(outcome, commands.Refusal):
        return refusal_of(outcome)
    assert isinstance(outcome, commands.Posted)
    return ReversalReceipt(posted=outcome)


Sent = TypeVar("Sent", EarnInput, BurnInput, ReverseInput)


async def post_many(context: Context, inputs: Sequence[Sent], what: str) -> list[commands.Outcome]:
    """Posts commands in order, each on its own. Raises BAD_USER_INPUT for more than MANY_MAX."""
    if len(inputs) > MANY_MAX:
        raise bad_input(f"send at most {MANY_MAX} {what} at once", "inputs")
    context.forget()
    return await context.services.queue.post_many([each.as_command(context) for each in inputs])


@strawberry.type
class TillQueries:
    """Query fields of the till."""

    @guarded_field("Query.quoteEarn", "What a purchase would earn now; posts nothing.")
    async def quote_earn(
        self, info: Info, input: Annotated[EarnInput, strawberry.argument(description="The purchase.")]
    ) -> EarnQuoteResult | None:
        """Loads and decides without writing."""
        outcome = await info.context.services.queue.quote(input.as_command(info.context))
        if isinstance(outcome, commands.Refusal):
            return refusal_of(outcome)
        assert isinstance(outcome, commands.Posted)
        return EarnQuote(posted=outcome)

    @guarded_field("Query.quoteBurn", "What a burn would take now; posts nothing.")
    async def quote_burn(
        self, info: Info, input: Annotated[BurnInput, strawberry.argument(description="The burn.")]
    ) -> BurnQuoteResult | None:
        """Loads and decides without writing."""
        outcome = await info.context.services.queue.quote(input.as_command(info.context))
        if isinstance(outcome, commands.Refusal):
            return refusal_of(outcome)
        assert isinstance(outcome, commands.Posted)
        return BurnQuote(posted=outcome)


@strawberry.type
class TillMutations:
    """Mutation fields of the till."""

    @guarded_field("Mutation.enrollMember", "Makes a member of the person with these identifiers, or finds the member.")
    async def enroll_member(
        self, info: Info, input: Annotated[EnrollMemberInput, strawberry.argument(description="The person.")]
    ) -> EnrollMemberResult | None:
        """Posts an enrolment."""
        info.context.forget()
        outcome = await info.context.services.queue.post(input.as_command(info.context))
        if isinstance(outcome, commands.Refusal):
            return refusal_of(outcome)
        assert isinstance(outcome, commands.Enrolled)
        return EnrolledMember(enrolled=outcome)

    @guarded_field("Mutation.earn", "Awards points for a purchase.")
    async def earn(
        self, info: Info, input: Annotated[EarnInput, strawberry.argument(description="The purchase.")]
    ) -> EarnResult | None:
        """Posts a purchase."""
        info.context.forget()
        return earn_result(await info.context.services.queue.post(input.as_command(info.context)))

    @guarded_field(
        "Mutation.earnMany",
        "Awards points for up to 500 purchases, each on its own; results come in the order of the inputs.",
    )
    async def earn_many(
        self,
        info: Info,
        inputs: Annotated[
            list[EarnInput], strawberry.argument(description="The purchases, at most 500; more is an error.")
        ],
    ) -> list[EarnResult] | None:
        """Posts purchases in order."""
        return [earn_result(outcome) for outcome in await post_many(info.context, inputs, "purchases")]

    @guarded_field("Mutation.burn", "Burns points of a member at your partner.")
    async def burn(
        self, info: Info, input: Annotated[BurnInput, strawberry.argument(description="The burn.")]
    ) -> BurnResult | None:
        """Posts a burn."""
        info.context.forget()
        return burn_result(await info.context.services.queue.post(input.as_command(info.context)))

    @guarded_field(
        "Mutation.burnMany",
        "Burns points for up to 500 sales, each on its own; results come in the order of the inputs. For a till that"
        " was offline: terms are those of occurredAt, points are taken of what the member has now.",
    )
    async def burn_many(
        self,
        info: Info,
        inputs: Annotated[
            list[BurnInput], strawberry.argument(description="The burns, at most 500; more is an error.")
        ],
    ) -> list[BurnResult] | None:
        """Posts burns in order."""
        return [burn_result(outcome) for outcome in await post_many(info.context, inputs, "burns")]

    @guarded_field("Mutation.reverse", "Takes back points of returned goods, or gives back points of a refunded burn.")
    async def reverse(
        self, info: Info, input: Annotated[ReverseInput, strawberry.argument(description="The reversal.")]
    ) -> ReverseResult | None:
        """Posts a reversal."""
        info.context.forget()
        return reverse_result(await info.context.services.queue.post(input.as_command(info.context)))

    @guarded_field(
        "Mutation.reverseMany",
        "Reverses up to 500 purchases and burns, each on its own; results come in the order of the inputs.",
    )
    async def reverse_many(
        self,
        info: Info,
        inputs: Annotated[
            list[ReverseInput], strawberry.argument(description="The reversals, at most 500; more is an error.")
        ],
    ) -> list[ReverseResult] | None:
        """Posts reversals in order."""
        return [reverse_result(outcome) for outcome in await post_many(info.context, inputs, "reversals")]

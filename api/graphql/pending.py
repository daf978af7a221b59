"""Pending points: the partner says that the money of a purchase came in."""

from datetime import datetime
from typing import Annotated

import strawberry

from api.graphql.context import Context, Info
from api.graphql.fields import described_field, guarded_field
from api.graphql.inputs import KEY, original_ref, store_ref
from api.graphql.members import Balance
from api.graphql.refusals import Refusal, refusal_of
from api.graphql.scalars import Points
from api.graphql.till import REPLAYED, Award, awards_of, balance_after
from api.graphql.transactions import Transaction
from domain import commands


@strawberry.input(
    description="The money of a purchase came in, where points wait for that (Award.waitsForPayment). Name the purchase"
    " in exactly one way: transactionId, originalKey, or reference (and store)."
)
class ConfirmPaymentInput:
    """A payment."""

    idempotency_key: str = strawberry.field(description=KEY)
    transaction_id: strawberry.ID | None = strawberry.field(description="The purchase, by its id.")
    original_key: str | None = strawberry.field(description="The purchase, by the key under which it was sent.")
    reference: str | None = strawberry.field(description="The purchase, by your reference.")
    store_id: strawberry.ID | None = strawberry.field(description="With reference: the purchase's store, by id.")
    store_code: str | None = strawberry.field(description="With reference: the purchase's store, by code.")
    occurred_at: datetime = strawberry.field(
        description="When the money came in. At most five minutes ahead, and no further back than the programme allows."
    )

    def as_command(self, context: Context) -> commands.ConfirmPayment:
        """The domain's command of it, from the viewer's partner."""
        return commands.ConfirmPayment(
            partner_id=context.viewer_id,
            key=self.idempotency_key,
            original=original_ref(
                context,
                self.transaction_id,
                self.original_key,
                self.reference,
                kind=commands.CommandKind.EARN,
                store=store_ref(self.store_id, self.store_code),
            ),
            occurred_at=self.occurred_at,
        )


@strawberry.type(
    description="A payment was booked. Points whose return window is over are usable now, others when it ends."
)
class PaymentReceipt:
    """Answer to a payment."""

    posted: strawberry.Private[commands.Posted]

    @described_field("The confirmation as booked; reverses names the purchase.")
    def transaction(self) -> Transaction:
        """The stored command."""
        return Transaction(row=self.posted.command)

    @described_field("Points that it made usable; 0 while the return window lasts.")
    def points(self) -> Points:
        """Confirmed points."""
        return Points(self.posted.points)

    @described_field("The awards of the purchase, with what they still wait for.")
    def awards(self) -> list[Award]:
        """The purchase's awards."""
        return awards_of(self.posted)

    @described_field("The member's points after it.")
    def balance(self, info: Info) -> Balance:
        """The balance."""
        return balance_after(self.posted, info.context)

    @described_field("The key of the command.")
    def idempotency_key(self) -> str:
        """The key."""
        return self.posted.command.key

    @described_field(REPLAYED)
    def replayed(self) -> bool:
        """Whether it was posted before."""
        return self.posted.replayed


ConfirmPaymentResult = Annotated[
    PaymentReceipt | Refusal,
    strawberry.union("ConfirmPaymentResult", description="A receipt, or why there is none."),
]


@strawberry.type
class PendingMutations:
    """Mutation fields about pending points."""

    @guarded_field("Mutation.confirmPayment", "Says that the money of a purchase came in, where points wait for that.")
    async def confirm_payment(
        self, info: Info, input: Annotated[ConfirmPaymentInput, strawberry.argument(description="The payment.")]
    ) -> ConfirmPaymentResult | None:
        """Posts a payment."""
        info.context.forget()
        return _result(await info.context.services.queue.post(input.as_command(info.context)))

    @guarded_field(
        "Mutation.confirmPaymentMany",
        "Says that the money of up to 500 purchases came in, each on its own; results come in the order of the inputs.",
    )
    async def confirm_payment_many(
        self,
        info: Info,
        inputs: Annotated[
            list[ConfirmPaymentInput], strawberry.argument(description="The payments, at most 500; more is an error.")
        ],
    ) -> list[ConfirmPaymentResult] | None:
        """Posts payments in order."""
        context = info.context
        context.forget()
        posted = await context.services.queue.post_many([each.as_command(context) for each in inputs])
        return [_result(outcome) for outcome in posted]


def _result(outcome: commands.Outcome) -> PaymentReceipt | Refusal:
    if isinstance(outcome, commands.Refusal):
        return refusal_of(outcome)
    assert isinstance(outcome, commands.Posted)
    return PaymentReceipt(posted=outcome)

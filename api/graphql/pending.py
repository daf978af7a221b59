"""Pending points: the operator says that it has the money of a purchase."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import strawberry

from api.graphql.context import Context, Info
from api.graphql.fields import described_field, guarded_field
from api.graphql.ids import plain_number
from api.graphql.inputs import original_ref, store_ref
from api.graphql.members import Balance
from api.graphql.refusals import Refusal, refusal_of
from api.graphql.scalars import Points
from api.graphql.till import REPLAYED, Award, awards_of, balance_after
from api.graphql.transactions import Transaction
from domain import commands
from domain.errors import RefusalCode, Refused
from domain.terms import Configuration
from domain.values import OPERATOR_ID


@strawberry.input(
    description="The operator has the money of a purchase, where points wait for that (Award.waitsForPayment). Name the"
    " purchase in exactly one way: by transactionId, or by its partner with originalKey or reference (and store)."
)
class ConfirmPaymentInput:
    """A payment."""

    idempotency_key: str = strawberry.field(
        description="Your key for this payment, 1 to 200 printable characters. It is booked among the keys of the"
        " purchase's partner, so begin it with something that the partner's tills do not use. The same key with the"
        " same input finds the first posting again; with other input it is refused (IDEMPOTENCY_CONFLICT)."
    )
    partner_id: strawberry.ID | None = strawberry.field(
        description="With originalKey or reference: the purchase's partner, by id; this or partnerCode."
    )
    partner_code: str | None = strawberry.field(
        description="With originalKey or reference: the purchase's partner, by code; this or partnerId."
    )
    transaction_id: strawberry.ID | None = strawberry.field(description="The purchase, by its id; it says whose it is.")
    original_key: str | None = strawberry.field(description="The purchase, by the key under which its partner sent it.")
    reference: str | None = strawberry.field(description="The purchase, by its partner's reference.")
    store_id: strawberry.ID | None = strawberry.field(description="With reference: the purchase's store, by id.")
    store_code: str | None = strawberry.field(description="With reference: the purchase's store, by code.")
    occurred_at: datetime = strawberry.field(
        description="When the operator had the money. At most five minutes ahead, and no further back than the"
        " programme allows."
    )

    async def as_command(
        self, context: Context, configuration: Configuration | None
    ) -> commands.ConfirmPayment | commands.Refusal:
        """The domain's command of it, in the name of the purchase's partner; or why nobody knows which that is."""
        try:
            partner_id = await self._partner_id(context, configuration)
        except Refused as refused:
            return commands.Refusal(refused.code, refused.message, refused.field, self.idempotency_key)
        return commands.ConfirmPayment(
            partner_id=partner_id,
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

    async def _partner_id(self, context: Context, configuration: Configuration | None) -> int:
        """Whose purchase it is. Raises Refused(INPUT_INVALID, TRANSACTION_NOT_FOUND)."""
        given = (self.partner_id is not None) + (self.partner_code is not None)
        if self.transaction_id is not None:
            if given:
                message = "a transactionId says whose purchase it is: leave partnerId and partnerCode out"
                raise Refused(RefusalCode.INPUT_INVALID, message, "transactionId")
            numbers = context.services.ids.decode(context.viewer_id, "Transaction", self.transaction_id)
            row = None if numbers is None else await context.loaders.transactions.load(numbers[-1])
            if row is None:
                raise Refused(RefusalCode.TRANSACTION_NOT_FOUND, "no transaction of the coalition has this id")
            return row.partner_id
        if given != 1:
            message = "with originalKey or reference, name the partner by exactly one of partnerId and partnerCode"
            raise Refused(RefusalCode.INPUT_INVALID, message, "partnerCode")
        partner = None
        if configuration is not None and self.partner_id is not None:
            partner = configuration.partners.get(plain_number("Partner", self.partner_id) or OPERATOR_ID)
        elif configuration is not None and self.partner_code is not None:
            partner = configuration.partners_by_code.get(self.partner_code)
        if partner is None:
            raise Refused(RefusalCode.INPUT_INVALID, "no partner has this id or code", "partnerCode")
        return partner.id


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

    @guarded_field(
        "Mutation.confirmPayment", "Says that the operator has the money of a purchase, where points wait for that."
    )
    async def confirm_payment(
        self, info: Info, input: Annotated[ConfirmPaymentInput, strawberry.argument(description="The payment.")]
    ) -> ConfirmPaymentResult | None:
        """Posts a payment."""
        (result,) = await _posted(info.context, [input])
        return result

    @guarded_field(
        "Mutation.confirmPaymentMany",
        "Says that the operator has the money of up to 500 purchases, each on its own; results come in the order of the"
        " inputs.",
    )
    async def confirm_payment_many(
        self,
        info: Info,
        inputs: Annotated[
            list[ConfirmPaymentInput], strawberry.argument(description="The payments, at most 500; more is an error.")
        ],
    ) -> list[ConfirmPaymentResult] | None:
        """Posts payments in order."""
        return await _posted(info.context, inputs)


async def _posted(context: Context, inputs: Sequence[ConfirmPaymentInput]) -> list[PaymentReceipt | Refusal]:
    context.forget()
    configuration = await context.services.configuration.current()
    # All at once, so that purchases named by id are looked up together.
    asked = await asyncio.gather(*(each.as_command(context, configuration) for each in inputs))
    outcomes = iter(
        await context.services.queue.post_many([one for one in asked if not isinstance(one, commands.Refusal)])
    )
    return [_result(one if isinstance(one, commands.Refusal) else next(outcomes)) for one in asked]


def _result(outcome: commands.Outcome) -> PaymentReceipt | Refusal:
    if isinstance(outcome, commands.Refusal):
        return refusal_of(outcome)
    assert isinstance(outcome, commands.Posted)
    return PaymentReceipt(posted=outcome)

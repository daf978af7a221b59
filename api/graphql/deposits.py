"""Deposits: recording what was paid in, proposing what is paid out, the list of them; proposing a default."""

from datetime import date
from typing import Annotated

import strawberry

from api.graphql.context import Info, page_size
from api.graphql.deposited import Deposit
from api.graphql.fields import guarded_field
from api.graphql.four_eyes import NOTE, PARTNER, receipt
from api.graphql.ids import plain_number
from api.graphql.inputs import KEY
from api.graphql.money import After, Connection, First, Money, MoneyInput, connection_of, cursor_key, money_from_micro
from api.graphql.partners import Partner, known_partner
from api.graphql.proposals import REASON, ProposalResult
from api.graphql.refusals import Refusal, refusable_field
from domain.proposals import ProposalReason
from settlement import deposits
from settlement.defaults import DefaultAsk, propose_default
from settlement.deposit_reading import deposits_page


@strawberry.input(description="Money that a partner paid into its deposit, as the bank booked it.")
class RecordDepositInput:
    """A payment to record."""

    idempotency_key: str = strawberry.field(description=KEY)
    partner_id: strawberry.ID = strawberry.field(description=PARTNER)
    amount: MoneyInput = strawberry.field(description="What was paid in, more than 0.")
    value_date: date = strawberry.field(description="The bank's value date; not in the future.")
    bank_reference: str = strawberry.field(
        description="What the bank calls it, 1 to 140 printable characters; each is recorded once per partner."
    )


@strawberry.type(description="Money paid into a deposit was recorded.")
class RecordedDeposit:
    """Answer to a recording."""

    partner: Partner = strawberry.field(description="Whose deposit.")
    deposit: Deposit = strawberry.field(description="The deposit as it stands now.")
    amount: Money = strawberry.field(description="What was paid in, with six decimals.")
    replayed: bool = strawberry.field(description="Whether this key had recorded it before.")
    idempotency_key: str = strawberry.field(description="The key of the command.")


RecordDepositResult = Annotated[
    RecordedDeposit | Refusal,
    strawberry.union("RecordDepositResult", description="The recorded payment, or why it is not."),
]


@strawberry.input(description="What would be paid out of a partner's deposit.")
class ProposeDepositPayoutInput:
    """A payout to propose."""

    idempotency_key: str = strawberry.field(description=KEY)
    partner_id: strawberry.ID = strawberry.field(description=PARTNER)
    amount: MoneyInput = strawberry.field(
        description="How much: at most what is free; with reason CORRECTION, for money that the bank took back, at"
        " most the balance."
    )
    reason: ProposalReason = strawberry.field(description=REASON)
    note: str = strawberry.field(description=NOTE)


@strawberry.input(description="A due statement that its partner does not pay, or all of them.")
class ProposeDefaultInput:
    """A default to propose."""

    idempotency_key: str = strawberry.field(description=KEY)
    partner_id: strawberry.ID = strawberry.field(description=PARTNER)
    reason: ProposalReason = strawberry.field(description=REASON)
    note: str = strawberry.field(description=NOTE)
    label: str | None = strawberry.field(
        default=None,
        description='The closed statement, by its period\'s label, such as "2017-03"; none: every one that is DUE by'
        " then, the oldest first.",
    )


@strawberry.type
class DepositQueries:
    """Query fields of deposits."""

    @guarded_field(
        "Query.deposits", "Partners whose deposit is required or was paid into, in the order in which they joined."
    )
    async def deposits(self, info: Info, first: First = None, after: After = None) -> Connection[Partner]:
        """A page of partners with deposits."""
        context, size = info.context, page_size(first)
        key = cursor_key(context, "Partner", after)
        async with context.services.database.reading(context.viewer_id) as connection:
            accounts = await deposits_page(connection, 0 if key is None else key, size + 1)
        ids = [account.partner_id for account in accounts]
        return connection_of("Partner", size, after, [(one, await known_partner(context, one)) for one in ids])


@strawberry.type
class DepositMutations:
    """Mutation fields of deposits."""

    @refusable_field(
        "Mutation.recordDeposit",
        "Records money that a partner paid into its deposit, and books it in the open period. It stands on no"
        " statement and pays none.",
    )
    async def record_deposit(
        self, info: Info, input: Annotated[RecordDepositInput, strawberry.argument(description="The payment.")]
    ) -> RecordDepositResult | None:
        """Records a payment into a deposit."""
        context, key = info.context, input.idempotency_key
        context.forget()
        services = context.services
        given = deposits.NewDeposit(
            key,
            plain_number("Partner", input.partner_id),
            input.amount.as_amount(),
            input.value_date,
            input.bank_reference,
            context.principal.client_id,
        )
        recorded = await deposits.record_deposit(services.database, services.clock, given)
        return RecordedDeposit(
            partner=await known_partner(context, recorded.account.partner_id),
            deposit=Deposit(account=recorded.account),
            amount=money_from_micro(recorded.payment.amount_micro, context.programme),
            replayed=recorded.replayed,
            idempotency_key=key,
        )

    @refusable_field(
        "Mutation.proposeDepositPayout",
        "Proposes to pay a part of a partner's deposit out; the approval of another client books it.",
    )
    async def propose_deposit_payout(
        self, info: Info, input: Annotated[ProposeDepositPayoutInput, strawberry.argument(description="The payout.")]
    ) -> ProposalResult | None:
        """Proposes a payout."""
        context, key = info.context, input.idempotency_key
        context.forget()
        services = context.services
        ask = deposits.PayoutAsk(
            plain_number("Partner", input.partner_id), input.amount.as_amount(), input.reason, input.note
        )
        step = await deposits.propose_payout(services.database, services.clock, context.principal.client_id, key, ask)
        return receipt(step, key)

    @refusable_field(
        "Mutation.proposeDefault",
        "Proposes to declare a statement in default that is DUE, or every one that is. The approval of another client"
        " covers what is open by then: first out of what the operator owes the partner of other statements, then out of"
        " its deposit; the rest is written off. What is paid later of that is recovered.",
    )
    async def propose_default(
        self, info: Info, input: Annotated[ProposeDefaultInput, strawberry.argument(description="The default.")]
    ) -> ProposalResult | None:
        """Proposes a default."""
        context, key = info.context, input.idempotency_key
        context.forget()
        services = context.services
        ask = DefaultAsk(plain_number("Partner", input.partner_id), input.label, input.reason, input.note)
        step = await propose_default(services.database, services.clock, context.principal.client_id, key, ask)
        return receipt(step, key)

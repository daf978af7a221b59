"""Payments between operator and partners: recording them, and the list of what is to be paid."""

from datetime import date
from typing import Annotated

import strawberry

from api.graphql.context import Context, Info, page_size
from api.graphql.fields import guarded_field
from api.graphql.ids import plain_number
from api.graphql.inputs import KEY
from api.graphql.money import (
    After,
    Connection,
    First,
    Money,
    MoneyInput,
    connection_of,
    cursor_key,
    money_from_minor,
)
from api.graphql.refusals import Refusal, refusable_field
from api.graphql.settlement import SettlementStatement
from domain.values import OPERATOR_ID
from settlement import payments, reading

PARTNER_BITS = 32
"""A statement's place in lists: its period's ordinal above its partner's id, which has at most so many bits."""


@strawberry.input(description="A payment between operator and partner, as the bank booked it.")
class RecordPaymentInput:
    """A payment to record."""

    idempotency_key: str = strawberry.field(description=KEY)
    partner_id: strawberry.ID = strawberry.field(description="Whose statement it pays.")
    label: str = strawberry.field(description="Label of the statement's period, which is closed.")
    amount: MoneyInput = strawberry.field(
        description="Signed as the statement's due: negative when the partner paid, positive when the operator did."
    )
    value_date: date = strawberry.field(description="The bank's value date; not in the future.")
    bank_reference: str = strawberry.field(description="What the bank calls it, 1 to 140 printable characters.")


@strawberry.type(description="A payment was recorded.")
class RecordedPayment:
    """Answer to a recording."""

    statement: SettlementStatement = strawberry.field(description="The statement that it pays, as it stands now.")
    amount: Money = strawberry.field(description="What was paid, signed as the statement's due.")
    replayed: bool = strawberry.field(description="Whether this key had recorded it before.")
    idempotency_key: str = strawberry.field(description="The key of the command.")


RecordPaymentResult = Annotated[
    RecordedPayment | Refusal,
    strawberry.union("RecordPaymentResult", description="The recorded payment, or why it is not."),
]


async def statements_by_key(context: Context, keys: list[reading.StatementKey]) -> list[SettlementStatement]:
    """These statements of closed periods, in this order, as far as the viewer may see them."""
    found = {}
    for period_id in dict.fromkeys(period_id for period_id, _ in keys):
        period = await reading.period_by_id(context.services.database, context.viewer_id, period_id)
        if period is None:
            continue
        for row in await context.loaders.statements.load(period_id):
            found[(row.period_id, row.partner_id)] = SettlementStatement(row=row, of_period=period)
    return [found[key] for key in keys if key in found]


@strawberry.type
class PaymentQueries:
    """Query fields of payments."""

    @guarded_field(
        "Query.paymentList",
        "Statements of closed periods of which something is open, earliest first: who owes, who is owed, and when"
        " (dueAt). Your own only, or everybody's for the operator.",
    )
    async def payment_list(
        self, info: Info, first: First = None, after: After = None
    ) -> Connection[SettlementStatement]:
        """A page of the payment list."""
        context, size = info.context, page_size(first)
        before = cursor_key(context, "SettlementStatement", after)
        start = (0, 0) if before is None else divmod(before, 1 << PARTNER_BITS)
        keys = await payments.unpaid_statements(context.services.database, context.viewer_id, size + 1, start)
        statements = await statements_by_key(context, keys)
        places = [((one.key[0] << PARTNER_BITS) + one.key[1], one) for one in statements]
        return connection_of("SettlementStatement", size, after, places)


@strawberry.type
class PaymentMutations:
    """Mutation fields of payments."""

    @refusable_field(
        "Mutation.recordPayment",
        "Records a payment on the statement that it pays, and books it in the open period. Too much and too little"
        " stay visible as what is open; a payment sent back is recorded with the other sign.",
    )
    async def record_payment(
        self, info: Info, input: Annotated[RecordPaymentInput, strawberry.argument(description="The payment.")]
    ) -> RecordPaymentResult | None:
        """Records a payment."""
        context, key = info.context, input.idempotency_key
        context.forget()
        # An id that names nobody is that of a partner without statements.
        partner_id = plain_number("Partner", input.partner_id) or OPERATOR_ID
        recorded = await payments.record_payment(
            context.services.database,
            context.services.clock,
            payments.NewPayment(
                key,
                partner_id,
                input.label,
                input.amount.as_amount(),
                input.value_date,
                input.bank_reference,
                context.principal.client_id,
            ),
        )
        paid = recorded.payment
        (statement,) = await statements_by_key(context, [(paid.period_id, paid.partner_id)])
        return RecordedPayment(
            statement=statement,
            amount=money_from_minor(paid.amount_minor, context.programme),
            replayed=recorded.replayed,
            idempotency_key=key,
        )

"""Budgets: money paid in, and alerts."""

from datetime import datetime
from typing import Annotated

import strawberry

from api.graphql.context import Info, bad_input, page_size
from api.graphql.fields import described_field, guarded_field
from api.graphql.floats import FloatBlock
from api.graphql.ids import plain_number
from api.graphql.money import (
    After,
    Connection,
    First,
    Money,
    MoneyInput,
    connection_of,
    cursor_key,
    money_from_micro,
)
from api.graphql.partners import BudgetStatus, Partner, budget_status, known_partner
from api.graphql.refusals import Refusal, refusable_field
from domain import budget_reading
from domain.errors import RefusalCode, Refused
from settlement.top_ups import TopUp, top_up_budget

NO_ALERT_BEFORE = 2**63 - 1


@strawberry.type(description="A time at which a budget window came to its alert threshold (alert_at), from below.")
class BudgetAlert:
    """An alert; amounts are exact, with six decimals."""

    row: strawberry.Private[budget_reading.BudgetAlert]

    @described_field('Whose budget it is; the partner with code "operator" for a campaign\'s own.')
    async def partner(self, info: Info) -> Partner:
        """The partner."""
        return await known_partner(info.context, self.row.partner_id)

    @described_field("Code of the campaign whose own budget it is; null for a partner's.")
    def campaign(self) -> str | None:
        """The campaign."""
        return self.row.campaign_code

    @described_field("Label of the window's period; null for a single budget over several periods.")
    def period_label(self) -> str | None:
        """The window."""
        return self.row.window

    @described_field("When it came to the threshold.")
    def crossed_at(self) -> datetime:
        """The time."""
        return self.row.crossed_at

    @described_field("Whether it has stayed at or above the threshold since.")
    def still_above(self) -> bool:
        """Whether the alert stands."""
        return self.row.is_above

    @described_field("Consumed and reserved just after.")
    def used(self, info: Info) -> Money:
        """The use then."""
        return money_from_micro(self.row.used_micro, info.context.programme)

    @described_field("The window's limit then, without approved overdraft.")
    def limit(self, info: Info) -> Money:
        """The limit then."""
        return money_from_micro(self.row.limit_micro, info.context.programme)


@strawberry.type
class BudgetQueries:
    """Query fields about budgets."""

    @guarded_field(
        "Query.budgetAlerts",
        "When budgets came to their alert thresholds, the latest first: your own, or everybody's for the operator.",
    )
    async def budget_alerts(
        self,
        info: Info,
        partner_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only this partner's; all you may see when left out.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[BudgetAlert]:
        """A page of alerts."""
        context, size = info.context, page_size(first)
        number = None if partner_id is None else plain_number("Partner", partner_id)
        if partner_id is not None and number is None:
            raise bad_input("partnerId must be a partner's id", "partnerId")
        key = cursor_key(context, "BudgetAlert", after)
        async with context.services.database.reading(context.viewer_id) as connection:
            before = NO_ALERT_BEFORE if key is None else key
            rows = await budget_reading.alerts_page(connection, number, before, size + 1)
        return connection_of("BudgetAlert", size, after, [(row.id, BudgetAlert(row=row)) for row in rows])


@strawberry.input(description="Money that a partner paid in for its PREPAID budget.")
class TopUpBudgetInput:
    """A top-up."""

    idempotency_key: str = strawberry.field(
        description="Your key for this payment, 1 to 200 printable characters; the same key pays in once."
    )
    partner_id: strawberry.ID | None = strawberry.field(
        default=None, description="The partner's id; this or partnerCode."
    )
    partner_code: str | None = strawberry.field(default=None, description="The partner's code; this or partnerId.")
    amount: MoneyInput = strawberry.field(description="What was paid in, more than 0.")
    occurred_at: datetime = strawberry.field(description="When the money came in; the oldest block is drawn on first.")
    bank_reference: str | None = strawberry.field(
        default=None, description="The bank's reference of the payment, 1 to 200 printable characters."
    )
    note: str | None = strawberry.field(
        default=None, description="For people, the partner's too; 1 to 200 printable characters."
    )


@strawberry.type(description="Money was added to a prepaid budget.")
class ToppedUpBudget:
    """Answer to a top-up."""

    partner: Partner = strawberry.field(description="Whose budget it is.")
    block: FloatBlock = strawberry.field(description="What was paid in.")
    budget: BudgetStatus = strawberry.field(description="The budget now.")
    replayed: bool = strawberry.field(description="Whether this key had paid it in before.")
    idempotency_key: str = strawberry.field(description="The key of the command.")


TopUpBudgetResult = Annotated[
    ToppedUpBudget | Refusal,
    strawberry.union("TopUpBudgetResult", description="The budget with its new block, or why there is none."),
]


@strawberry.type
class BudgetMutations:
    """Mutation fields about budgets."""

    @refusable_field(
        "Mutation.topUpBudget",
        "Adds money that a partner paid in to its PREPAID budget: a new block, which raises the limit. It is booked as"
        " the partner's deposit and charges nothing; a statement credits what its awards drew of it. The budget of"
        " today, or else the next one to begin.",
    )
    async def top_up_budget(
        self,
        info: Info,
        input: Annotated[TopUpBudgetInput, strawberry.argument(description="The payment.")],
    ) -> TopUpBudgetResult | None:
        """Tops a float up."""
        context, services, key = info.context, info.context.services, input.idempotency_key
        if (input.partner_id is None) == (input.partner_code is None):
            message = "name the partner by exactly one of partnerId and partnerCode"
            raise Refused(RefusalCode.INPUT_INVALID, message, "partnerCode")
        partner_id = None if input.partner_id is None else plain_number("Partner", input.partner_id)
        configuration = await services.configuration.current()
        if input.partner_code is not None and configuration is not None:
            found = configuration.partners_by_code.get(input.partner_code)
            partner_id = None if found is None else found.id
        made = await top_up_budget(
            services.database,
            services.clock,
            TopUp(key, partner_id, input.amount.as_amount(), input.occurred_at, input.bank_reference, input.note),
        )
        return ToppedUpBudget(
            partner=await known_partner(context, made.block.partner_id),
            block=FloatBlock(row=made.block),
            budget=budget_status(context, made.budget),
            replayed=made.replayed,
            idempotency_key=key,
        )

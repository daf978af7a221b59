"""Partners, their stores and the budget window of the moment."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated

import strawberry

from api.graphql.context import Context, Info, bad_input, page_size
from api.graphql.deposited import Deposit, deposit_of
from api.graphql.fields import described_enum, described_field, guarded_field
from api.graphql.floats import BLOCKS, BudgetFunding, FloatBlock
from api.graphql.ids import plain_id, plain_number
from api.graphql.money import (
    After,
    Connection,
    First,
    Money,
    Node,
    connection_of,
    cursor_key,
    money_from_micro,
)
from domain import reading, terms
from domain.commands import BudgetView
from domain.periods import local_date
from domain.values import OPERATOR_CODE, OPERATOR_ID


class PartnerState(StrEnum):
    """Whether a partner takes part."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    RUN_OFF = "RUN_OFF"
    LEFT = "LEFT"


described_enum(
    PartnerState,
    "Whether a partner takes part in the coalition.",
    {
        "ACTIVE": "The partner issues and takes points.",
        "SUSPENDED": "The partner issues no points, and takes them as its contract says (PARTNER_SUSPENDED); returns"
        " and refunds go on, and it is still settled.",
        "RUN_OFF": "The partner left: what it sold before may be returned until runOffUntil, and its points are"
        " burned elsewhere.",
        "LEFT": "The partner left, and its run-off is over (PARTNER_LEFT).",
    },
)


@strawberry.type(description="A place of a partner, or its web shop.")
class Store:
    """A store of the configuration."""

    store_id: strawberry.Private[int]
    code: str = strawberry.field(description="The store's code, unique within its partner.")
    name: str = strawberry.field(description="The store's name.")

    @described_field("Opaque id, for storeId of inputs.")
    def id(self) -> strawberry.ID:
        """The store's id."""
        return strawberry.ID(plain_id("Store", self.store_id))


@strawberry.type(
    description="Use of a budget window: available = limit (and approved overdraft) - consumed - reserved."
)
class BudgetStatus:
    """One window of a partner's marketing budget; amounts are exact, with six decimals."""

    budget_id: strawberry.Private[int | None]
    funding: BudgetFunding = strawberry.field(description="Whether the limit is credit, or was paid in before.")
    limit: Money = strawberry.field(description="What the window may spend, without approved overdraft.")
    reserved: Money = strawberry.field(description="Set aside for awards that are not confirmed yet.")
    consumed: Money = strawberry.field(
        description="Charged for awards so far, credits of returned goods taken off: issue price and service fee."
    )
    available: Money = strawberry.field(description="What may still be spent; approved overdraft included.")
    overdraft: Money = strawberry.field(description="What may be spent beyond the limit: the approved overdraft.")
    alerted_at: datetime | None = strawberry.field(
        description="Since when consumed and reserved stand at or above the alert threshold; null below it."
    )

    @described_field(BLOCKS)
    async def blocks(self, info: Info) -> list[FloatBlock]:
        """The blocks of a float."""
        if self.budget_id is None or self.funding != BudgetFunding.PREPAID:
            return []
        return [FloatBlock(row=row) for row in await info.context.loaders.float_blocks.load(self.budget_id)]


def budget_status(context: Context, view: BudgetView) -> BudgetStatus:
    """The schema's value of a budget window."""
    programme = context.programme
    return BudgetStatus(
        budget_id=view.budget_id,
        funding=BudgetFunding(view.funding),
        overdraft=money_from_micro(view.overdraft_micro, programme),
        alerted_at=view.alerted_at,
        limit=money_from_micro(view.limit_micro, programme),
        reserved=money_from_micro(view.reserved_micro, programme),
        consumed=money_from_micro(view.consumed_micro, programme),
        available=money_from_micro(view.available_micro, programme),
    )


@strawberry.type(description='A merchant of the coalition. The operator appears as the partner with code "operator".')
class Partner(Node):
    """A partner of the configuration."""

    partner_id: strawberry.Private[int]
    code: str = strawberry.field(description="The partner's code, unique in the coalition.")
    name: str = strawberry.field(description="The partner's name.")
    category: str = strawberry.field(description="The kind of business.")
    stored_state: strawberry.Private[str]
    leaves_on: date | None = strawberry.field(
        default=None, description="Last day on which points are issued and burned there; null while it stays."
    )
    run_off_until: date | None = strawberry.field(
        default=None,
        description="Last day on which returns of what it sold are settled with it: the statement of its period is the"
        " partner's final one. Null while it stays.",
    )

    @described_field("Opaque id of the partner, the same for every viewer.")
    def id(self, info: Info) -> strawberry.ID:  # noqa: ARG002 (ids of other types need it)
        """The partner's id."""
        return strawberry.ID(plain_id("Partner", self.partner_id))

    @described_field("Whether the partner takes part.")
    def state(self, info: Info) -> PartnerState:
        """The state at this moment."""
        if self.leaves_on is not None and self.run_off_until is not None:
            today = local_date(info.context.services.clock(), info.context.programme.zone)
            if today > self.leaves_on:
                return PartnerState.RUN_OFF if today <= self.run_off_until else PartnerState.LEFT
        return PartnerState(self.stored_state)

    @described_field("The partner's stores, by code.")
    async def stores(self, info: Info) -> list[Store]:
        """Every store of the partner."""
        found = await info.context.loaders.stores_of_partner.load(self.partner_id)
        return [Store(store_id=store.id, code=store.code, name=store.name) for store in found]

    @guarded_field(
        "Partner.budget",
        "The budget window of this moment; null without one, and for any partner but your own.",
    )
    async def budget(self, info: Info) -> BudgetStatus | None:
        """The window that an award of now would draw on."""
        context = info.context
        if not context.may_see(self.partner_id) or context.services.configuration.held is None:
            return None
        now, programme = context.services.clock(), context.programme
        key = (self.partner_id, local_date(now, programme.zone), programme.calendar.containing(now))
        view = await context.loaders.budgets.load(key)
        return None if view is None else budget_status(context, view)

    @guarded_field("Partner.deposit", "Its deposit as it stands now; null for any partner but your own.")
    async def deposit(self, info: Info) -> Deposit | None:
        """What the partner left with the operator."""
        return await deposit_of(info.context, self.partner_id)


OPERATOR = Partner(
    partner_id=OPERATOR_ID, code=OPERATOR_CODE, name="Operator", category="operator", stored_state="ACTIVE"
)
"""The operator where a funder or party is shown."""


def partner_node(row: terms.Partner) -> Partner:
    """The schema's value of a partner."""
    return Partner(
        partner_id=row.id,
        code=row.code,
        name=row.name,
        category=row.category,
        stored_state=row.state,
        leaves_on=row.leaves_on,
        run_off_until=row.run_off_until,
    )


async def partner_by_id(context: Context, partner_id: int) -> Partner | None:
    """A partner, or the operator for 0."""
    if partner_id == OPERATOR_ID:
        return OPERATOR
    row = await context.loaders.partners.load(partner_id)
    return None if row is None else partner_node(row)


async def known_partner(context: Context, partner_id: int) -> Partner:
    """The partner of a stored row, which always exists."""
    found = await partner_by_id(context, partner_id)
    assert found is not None
    return found


@strawberry.type
class PartnerQueries:
    """Query fields about partners."""

    @guarded_field("Query.partner", "A partner by id or by code; your own when you name neither. Null when unknown.")
    async def partner(
        self,
        info: Info,
        id: Annotated[strawberry.ID | None, strawberry.argument(description="The partner's id.")] = None,
        code: Annotated[str | None, strawberry.argument(description="The partner's code.")] = None,
    ) -> Partner | None:
        """One partner."""
        context = info.context
        if id is not None and code is not None:
            raise bad_input("name the partner by id or by code, not both", "code")
        if code is not None:
            async with context.services.database.reading(context.viewer_id) as connection:
                row = await reading.partner_by_code(connection, code)
            return None if row is None else partner_node(row)
        partner_id = context.viewer_id if id is None else plain_number("Partner", id)
        return None if partner_id is None else await partner_by_id(context, partner_id)

    @guarded_field("Query.partners", "All partners of the coalition, in the order in which they joined.")
    async def partners(self, info: Info, first: First = None, after: After = None) -> Connection[Partner]:
        """A page of partners."""
        context, size = info.context, page_size(first)
        key = cursor_key(context, "Partner", after)
        async with context.services.database.reading(context.viewer_id) as connection:
            rows = await reading.partners_page(connection, 0 if key is None else key, size + 1)
        return connection_of("Partner", size, after, [(row.id, partner_node(row)) for row in rows])

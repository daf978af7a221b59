"""Settlement: periods, each partner's statement with its lines, and what explains them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import strawberry

from api.graphql.adjustments import Adjustment
from api.graphql.certificates import Certificate
from api.graphql.context import Context, Info, bad_input, page_size
from api.graphql.deposited import Coverage, Deposit, deposit_of
from api.graphql.disputed import Dispute
from api.graphql.fields import described_enum, described_field, guarded_field
from api.graphql.ids import plain_id, plain_key, plain_number
from api.graphql.money import (
    After,
    Connection,
    First,
    Money,
    connection_of,
    cursor_key,
    money_from_micro,
    money_from_minor,
)
from api.graphql.outstanding import OutstandingPoints, outstanding_points
from api.graphql.partners import Partner, known_partner
from api.graphql.refusals import Refusal, refusable_field
from api.graphql.scalars import Points
from api.graphql.statements import BudgetStatement, Payment, StatementLine, StatementTax, budget_statement
from settlement import closing, reading
from settlement.clearing import StatementState, clearing_dates, statement_state

PERIOD_LABEL = 'The period\'s label: "2017-03", "2017-03-H1" for a half month, "2017-W10" for a week.'


class PeriodState(StrEnum):
    """Where a period is in its life."""

    OPEN = "OPEN"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"


described_enum(
    PeriodState,
    "Where a settlement period is in its life.",
    {
        "OPEN": "Commands are booked into it; its figures are drafts.",
        "CLOSING": "It takes no more commands and is being audited; its figures are drafts.",
        "CLOSED": "It never changes again.",
    },
)


@strawberry.type(description="What a partner owes or is owed for one period. A draft until the period is closed.")
class SettlementStatement:
    """A statement."""

    row: strawberry.Private[reading.SettlementStatement]
    of_period: strawberry.Private[reading.SettlementPeriod]

    @property
    def key(self) -> reading.StatementKey:
        """Period id and partner id."""
        return (self.row.period_id, self.row.partner_id)

    @described_field("Opaque id of the statement.")
    def id(self, info: Info) -> strawberry.ID:  # noqa: ARG002 (ids of other types need it)
        """The statement's id."""
        return strawberry.ID(plain_id("SettlementStatement", f"{self.of_period.label}/{self.row.partner_id}"))

    @described_field("Whose statement it is.")
    async def partner(self, info: Info) -> Partner:
        """The partner."""
        return await known_partner(info.context, self.row.partner_id)

    @described_field("The period it settles.")
    def period(self) -> "SettlementPeriod":
        """The period."""
        return SettlementPeriod(row=self.of_period)

    @described_field("Whether it may still change: until the close, which adds the fixed fee and PREPAID.")
    def draft(self) -> bool:
        """Whether it is a draft."""
        return self.row.is_draft

    @described_field("Its lines; one without entries does not exist.")
    async def lines(self, info: Info) -> list[StatementLine]:
        """The lines in the order of their kinds."""
        return [StatementLine(row=row) for row in await info.context.loaders.statement_lines.load(self.key)]

    @described_field("Sum of the billed lines: positive when the operator pays you, negative when you pay.")
    def net(self, info: Info) -> Money:
        """The net."""
        return money_from_minor(self.row.net_minor, info.context.programme)

    @described_field("The parts of its TAX line, which is part of net: what is taxed at which rate; empty without tax.")
    async def taxes(self, info: Info) -> list[StatementTax]:
        """Its taxes in the order of their kinds."""
        return [StatementTax(part=part) for part in await info.context.loaders.statement_taxes.load(self.key)]

    @described_field("What is to be paid: net, with what was carried forward and without what disputes withhold.")
    def due(self, info: Info) -> Money:
        """The amount due."""
        return money_from_minor(self.row.to_pay_minor, info.context.programme)

    @described_field("What disputes it, in the order in which they were opened.")
    async def disputes(self, info: Info) -> list[Dispute]:
        """Its disputes."""
        return [Dispute(row=row) for row in await info.context.loaders.statement_disputes.load(self.key)]

    @described_field("What stands on its line ADJUSTMENT, in the order of booking.")
    async def adjustments(self, info: Info) -> list[Adjustment]:
        """Its adjustments."""
        return [Adjustment(row=row) for row in await info.context.loaders.statement_adjustments.load(self.key)]

    @described_field("What is not to be paid for now because it is disputed: net + carriedForward - withheld = due.")
    def withheld(self, info: Info) -> Money:
        """What disputes withhold."""
        return money_from_minor(self.row.withheld_minor, info.context.programme)

    @described_field(
        "What earlier statements left because it was too little to be paid, less what this one leaves to the next:"
        " part of due, not of net."
    )
    def carried_forward(self, info: Info) -> Money:
        """The balance brought in, less the one carried on."""
        return money_from_minor(self.row.carried_forward_minor, info.context.programme)

    @described_field("Where it is in its life.")
    def state(self, info: Info) -> StatementState:
        """The state at this moment."""
        now = info.context.services.clock()
        row = self.row
        return statement_state(
            self.of_period.dates, now, is_draft=row.is_draft, due_minor=row.to_pay_minor, open_minor=row.open_minor
        )

    @described_field("When the partner is told what it owes or is owed; planned until the period is closed.")
    def advice_at(self) -> datetime:
        """The advice."""
        return self.of_period.dates.advice_at

    @described_field("Until when its lines may be disputed; planned until the period is closed.")
    def dispute_until(self) -> datetime:
        """The end of the dispute window."""
        return self.of_period.dates.dispute_until

    @described_field("When what is due is to be paid; planned until the period is closed.")
    def due_at(self) -> datetime:
        """The call day."""
        return self.of_period.dates.due_at

    @described_field("What was paid of it, signed as due.")
    def paid(self, info: Info) -> Money:
        """The sum of its payments."""
        return money_from_minor(self.row.paid_minor, info.context.programme)

    @described_field("What covers it otherwise than by payments: a default, a write-off.")
    def covered(self) -> Coverage:
        """What covers it."""
        return Coverage(row=self.row)

    @described_field("What is left to pay of due: less paid and covered; of the other sign where too much was paid.")
    def open(self, info: Info) -> Money:
        """What is open."""
        return money_from_minor(self.row.open_minor, info.context.programme)

    @described_field("The payments recorded on it.")
    async def payments(self, info: Info) -> list[Payment]:
        """Its payments, as recorded."""
        return [Payment(row=row) for row in await info.context.loaders.statement_payments.load(self.key)]

    @described_field("The partner's deposit as it stands now: it secures what is open here.")
    async def deposit(self, info: Info) -> Deposit | None:
        """The deposit."""
        return await deposit_of(info.context, self.row.partner_id)

    @described_field(
        "Whether it is the last one of a partner that leaves: nothing of it is carried on, however little is due."
        " The state FINAL is another matter: every statement reaches it."
    )
    def is_final(self) -> bool:
        """Whether it is the partner's final statement."""
        return self.row.outstanding is not None

    @described_field("Of a final statement, the points that it leaves behind; null on any other.")
    def outstanding(self) -> OutstandingPoints | None:
        """What is outstanding."""
        return None if self.row.outstanding is None else outstanding_points(self.row.outstanding)

    @described_field(
        "Points of returned goods that could not be taken back and stay charged to you, less what came back later."
    )
    def shortfall(self) -> Points:
        """Points of shortfalls."""
        return Points(self.row.shortfall_points)

    @described_field("What these points are worth in the reward pool, at their issue price; six decimals.")
    def shortfall_value(self, info: Info) -> Money:
        """Value of shortfalls."""
        return money_from_micro(self.row.shortfall_value_micro, info.context.programme)

    @described_field("The canonical text of the statement, which the certificate hashes; null for a draft.")
    def document(self) -> str | None:
        """The statement's canonical bytes as text."""
        return None if self.row.document is None else self.row.document.decode()

    @described_field("Use of your budgets.")
    async def budget(self, info: Info) -> BudgetStatement:
        """Use of the windows that the statement's entries drew on."""
        context = info.context
        return budget_statement(context, await context.loaders.statement_budgets.load(self.key))


@strawberry.type(
    description="A settlement period, from local midnight to local midnight. What is not closed yet shows drafts."
)
class SettlementPeriod:
    """A period."""

    row: strawberry.Private[reading.SettlementPeriod]

    @described_field("Opaque id of the period.")
    def id(self, info: Info) -> strawberry.ID:  # noqa: ARG002 (ids of other types need it)
        """The period's id."""
        return strawberry.ID(plain_id("SettlementPeriod", self.row.label))

    @described_field(PERIOD_LABEL)
    def label(self) -> str:
        """The label."""
        return self.row.label

    @described_field("Where it is in its life.")
    def state(self) -> PeriodState:
        """The state."""
        return PeriodState(self.row.state)

    @described_field("When it begins; this instant belongs to it.")
    def opens_at(self) -> datetime:
        """The first instant."""
        return self.row.opens_at

    @described_field("When it ends; this instant belongs to the next period.")
    def closes_at(self) -> datetime:
        """The end."""
        return self.row.closes_at

    @described_field("When it was closed; null until then.")
    def closed_at(self) -> datetime | None:
        """The close."""
        return self.row.closed_at

    @described_field("When its statements are advised: told to partners; planned until it is closed.")
    def advice_at(self) -> datetime:
        """The advice day."""
        return self.row.dates.advice_at

    @described_field("Until when its statements may be disputed; planned until it is closed.")
    def dispute_until(self) -> datetime:
        """The end of the dispute window."""
        return self.row.dates.dispute_until

    @described_field("The call day: when what is due is to be paid; planned until it is closed.")
    def due_at(self) -> datetime:
        """The call day."""
        return self.row.dates.due_at

    @described_field("Statements, by partner: your own only, or every partner's for the operator.")
    async def statements(self, info: Info) -> list[SettlementStatement]:
        """The statements that the viewer may see."""
        rows = await info.context.loaders.statements.load(self.row.id)
        return [SettlementStatement(row=row, of_period=self.row) for row in rows]

    @guarded_field("SettlementPeriod.operatorNet", "What the operator receives in all: minus the sum of the nets.")
    async def operator_net(self, info: Info) -> Money:
        """The operator's net, in billed money."""
        figures = await info.context.loaders.period_figures.load(self.row.id)
        return money_from_minor(figures.operator_net_minor, info.context.programme)

    @guarded_field(
        "SettlementPeriod.poolChange", "What the reward pool gained; exact to the micro-unit, with six decimals."
    )
    async def pool_change(self, info: Info) -> Money:
        """The change of the pool."""
        figures = await info.context.loaders.period_figures.load(self.row.id)
        return money_from_micro(figures.pool_change_micro, info.context.programme)

    @guarded_field(
        "SettlementPeriod.margin",
        "What the operator keeps: operatorNet less poolChange, tax and depositChange, and what members owe more.",
    )
    async def margin(self, info: Info) -> Money:
        """The margin."""
        figures = await info.context.loaders.period_figures.load(self.row.id)
        return money_from_micro(figures.margin_micro, info.context.programme)

    @guarded_field(
        "SettlementPeriod.tax",
        "What the operator takes in tax, less what it pays:"
        " operatorNet = poolChange + margin + tax + depositChange - memberReceivableChange.",
    )
    async def tax(self, info: Info) -> Money:
        """The tax."""
        figures = await info.context.loaders.period_figures.load(self.row.id)
        return money_from_micro(figures.tax_micro, info.context.programme)

    @guarded_field(
        "SettlementPeriod.memberReceivableChange",
        "What members owe the operator more than before, for points of returned goods that they had spent and issuers"
        " were credited; negative when more was earned back. 0 unless the programme lets balances fall below zero.",
    )
    async def member_receivable_change(self, info: Info) -> Money:
        """The change of what members owe."""
        figures = await info.context.loaders.period_figures.load(self.row.id)
        return money_from_micro(figures.receivable_change_micro, info.context.programme)

    @guarded_field(
        "SettlementPeriod.depositChange",
        "By how much the lines PREPAID change the money that partners paid in before: negative when their awards used"
        " more than returns gave back. Booked when the close begins.",
    )
    async def deposit_change(self, info: Info) -> Money:
        """The change of what was paid in for floats."""
        figures = await info.context.loaders.period_figures.load(self.row.id)
        return money_from_micro(figures.deposit_change_micro, info.context.programme)

    @described_field("What proves the close; null until the period is closed.")
    def certificate(self) -> Certificate | None:
        """The certificate."""
        found = self.row.certificate
        if found is None:
            return None
        return Certificate(sha256=found.sha256, previous=found.previous, checked=found.checks)


@strawberry.input(description="Which period to close.")
class ClosePeriodInput:
    """A close."""

    idempotency_key: str = strawberry.field(
        description="Your key for this close, 1 to 200 printable characters. Closing a closed period again finds it."
    )
    label: str = strawberry.field(description=PERIOD_LABEL)


@strawberry.type(description="A period was closed.")
class ClosedPeriod:
    """Answer to a close."""

    period: SettlementPeriod = strawberry.field(description="The period with its certificate.")
    replayed: bool = strawberry.field(description="Whether it had been closed before.")
    idempotency_key: str = strawberry.field(description="The key of the command.")


ClosePeriodResult = Annotated[
    ClosedPeriod | Refusal, strawberry.union("ClosePeriodResult", description="The closed period, or why it is not.")
]


async def current_period(context: Context) -> reading.SettlementPeriod | None:
    """The period containing now, also before anything was booked in it; None without a programme."""
    services = context.services
    found = await reading.current_period(services.database, context.viewer_id, services.clock)
    if found is not None or services.configuration.held is None:
        return found
    calendar = context.programme.calendar
    span = calendar.span(calendar.containing(services.clock()))
    return reading.SettlementPeriod(
        span.id,
        span.label,
        PeriodState.OPEN.value,
        span.opens_at,
        span.closes_at,
        closed_at=None,
        certificate=None,
        dates=clearing_dates(context.programme, span.closes_at, None),
    )


def statement_partner(context: Context, given: strawberry.ID | None) -> int | None:
    """Whose statement is asked for; None for one that the viewer may not see. Raises BAD_USER_INPUT."""
    if given is None:
        if context.is_operator:
            raise bad_input("name the partner whose statement you want in partnerId", "partnerId")
        return context.viewer_id
    partner_id = plain_number("Partner", given)
    return partner_id if partner_id is not None and context.may_see(partner_id) else None


@strawberry.type
class SettlementQueries:
    """Query fields of the settlement."""

    @guarded_field(
        "Query.settlementPeriod",
        "A period by id or label; the one containing now when you name neither. Null when nothing was booked in it.",
    )
    async def settlement_period(
        self,
        info: Info,
        id: Annotated[strawberry.ID | None, strawberry.argument(description="The period's id.")] = None,
        label: Annotated[str | None, strawberry.argument(description=PERIOD_LABEL)] = None,
    ) -> SettlementPeriod | None:
        """One period."""
        context = info.context
        if id is not None and label is not None:
            raise bad_input("name the period by id or by label, not both", "label")
        if id is None and label is None:
            found = await current_period(context)
        else:
            wanted = label if id is None else plain_key("SettlementPeriod", id)
            if wanted is None:
                return None
            found = await reading.period_by_label(context.services.database, context.viewer_id, wanted)
        return None if found is None else SettlementPeriod(row=found)

    @guarded_field("Query.settlementPeriods", "Periods in which something was booked, latest first.")
    async def settlement_periods(
        self, info: Info, first: First = None, after: After = None
    ) -> Connection[SettlementPeriod]:
        """A page of periods."""
        context, size = info.context, page_size(first)
        before = cursor_key(context, "SettlementPeriod", after)
        rows = await reading.periods_page(context.services.database, context.viewer_id, size + 1, before)
        return connection_of("SettlementPeriod", size, after, [(row.id, SettlementPeriod(row=row)) for row in rows])

    @guarded_field(
        "Query.settlementStatement",
        "A partner's statement of a period; your own when you name no partner. Null when there is none, or it is not"
        " yours.",
    )
    async def settlement_statement(
        self,
        info: Info,
        label: Annotated[str, strawberry.argument(description=PERIOD_LABEL)],
        partner_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Whose; an operator must name one.")
        ] = None,
    ) -> SettlementStatement | None:
        """One statement."""
        context = info.context
        wanted = statement_partner(context, partner_id)
        if wanted is None:
            return None
        period = await reading.period_by_label(context.services.database, context.viewer_id, label)
        if period is None:
            return None
        for row in await context.loaders.statements.load(period.id):
            if row.partner_id == wanted:
                return SettlementStatement(row=row, of_period=period)
        return None


@strawberry.type
class SettlementMutations:
    """Mutation fields of the settlement."""

    @refusable_field(
        "Mutation.closePeriod",
        "Closes the next period once it has ended: audits it, settles every partner, and seals it for good.",
    )
    async def close_period(
        self, info: Info, input: Annotated[ClosePeriodInput, strawberry.argument(description="Which period.")]
    ) -> ClosePeriodResult | None:
        """Closes a period."""
        context = info.context
        context.forget()
        key = input.idempotency_key
        closed = await closing.close_period(context.services.database, context.services.clock, input.label, key)
        return ClosedPeriod(period=SettlementPeriod(row=closed.period), replayed=closed.replayed, idempotency_key=key)

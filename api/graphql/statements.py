"""What stands on a statement: its lines and what explains them, its state, its payments, its use of budgets."""

from datetime import date, datetime
from decimal import Decimal

import strawberry

from api.graphql.context import Context, Info, page_size
from api.graphql.fields import described_enum, described_field
from api.graphql.ids import plain_id
from api.graphql.line_kinds import StatementLineKind
from api.graphql.loaders import LinePage
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
from api.graphql.scalars import Points
from api.graphql.transactions import Transaction
from domain.values import decimal_from_micro
from settlement import payments, reading
from settlement.budget_uses import BudgetUse
from settlement.clearing import StatementState
from settlement.lines import TaxPart

NO_COMMAND_BEFORE = 2**63 - 1


described_enum(
    StatementState,
    "Where a statement is in its life; derived from the calendar of its period and from payments.",
    {
        "DRAFT": "Its period is not closed yet; it may still change.",
        "ISSUED": "Its period is closed: the lines never change again, and may be disputed until disputeUntil.",
        "FINAL": "The dispute window is over; what is due is to be paid at dueAt.",
        "DUE": "dueAt has come, and something of it is open.",
        "SETTLED": "The dispute window is over, and what is due is paid, or covered by a default or write-off.",
    },
)


@strawberry.type(description="A statement's use of one budget window.")
class BudgetWindow:
    """A window that entries of a statement drew on, or reserve in; amounts are exact, with six decimals."""

    period_label: str | None = strawberry.field(
        description="Label of the window's period; null for a single budget over several periods."
    )
    drawn: Money = strawberry.field(description="What this statement's entries drew on it, credits taken off.")
    limit: Money = strawberry.field(description="What the window may spend.")
    consumed: Money = strawberry.field(description="What all entries drew on it so far.")
    reserved: Money = strawberry.field(description="Set aside in it as it stands now, for points that are pending.")


@strawberry.type(
    description="A statement's use of budgets: the sum over the windows on which its entries drew, or in which awards"
    " of its period that are still pending reserve; zeros if none."
)
class BudgetStatement:
    """Budgets of a statement; amounts are exact, with six decimals."""

    limit: Money = strawberry.field(description="What the windows may spend, without approved overdraft.")
    drawn: Money = strawberry.field(description="What this statement's entries drew on them, credits taken off.")
    reserved: Money = strawberry.field(description="Set aside in these windows as they stand now.")
    consumed: Money = strawberry.field(description="What all entries drew on these windows so far.")
    available: Money = strawberry.field(description="What these windows may still spend; approved overdraft included.")
    lapsed: Money = strawberry.field(
        description="What was left of this period's windows when it closed: it is not carried over. 0 while the period"
        " is open, and for single and prepaid budgets, which go on."
    )
    windows: list[BudgetWindow] = strawberry.field(description="The windows one by one.")


def budget_statement(context: Context, uses: list[BudgetUse]) -> BudgetStatement:
    """The sum over the windows that a statement's entries drew on."""
    programme = context.programme
    overdraft = sum(use.overdraft_micro for use in uses)
    limit, reserved, consumed = (
        sum(getattr(use, name) for use in uses) for name in ("limit_micro", "reserved_micro", "consumed_micro")
    )
    return BudgetStatement(
        limit=money_from_micro(limit, programme),
        drawn=money_from_micro(sum(use.drawn_micro for use in uses), programme),
        reserved=money_from_micro(reserved, programme),
        consumed=money_from_micro(consumed, programme),
        available=money_from_micro(limit + overdraft - reserved - consumed, programme),
        lapsed=money_from_micro(sum(use.lapsed_micro for use in uses), programme),
        windows=[
            BudgetWindow(
                period_label=use.window,
                drawn=money_from_micro(use.drawn_micro, programme),
                limit=money_from_micro(use.limit_micro, programme),
                consumed=money_from_micro(use.consumed_micro, programme),
                reserved=money_from_micro(use.reserved_micro, programme),
            )
            for use in uses
        ],
    )


@strawberry.type(description="The part of a line that corrects what one earlier period booked.")
class PriorPeriod:
    """A correction of an earlier statement."""

    period: str = strawberry.field(description="Label of the earlier period.")
    statement_id: strawberry.ID = strawberry.field(description="Id of your statement of that period.")
    exact: Decimal = strawberry.field(description="The exact amount with six decimals, signed as the line.")


@strawberry.type(description="One line of a statement, signed from your side: a charge is negative.")
class StatementLine:
    """A line."""

    row: strawberry.Private[reading.StatementLine]

    @described_field("What the line is for.")
    def kind(self) -> StatementLineKind:
        """The line's kind."""
        return StatementLineKind(self.row.kind.value)

    @described_field("How many points it counts, without sign; null where it counts none, as a fixed fee.")
    def points(self) -> Points | None:
        """The line's points."""
        return None if self.row.points is None else Points(self.row.points)

    @described_field("The exact amount with six decimals: the sum over its transactions' movements of this kind.")
    def exact(self) -> Decimal:
        """The unrounded amount."""
        return decimal_from_micro(self.row.exact_micro)

    @described_field("Of that, the part that reverses what an earlier period booked; six decimals.")
    def prior_period_exact(self) -> Decimal:
        """The part of earlier periods."""
        return decimal_from_micro(self.row.prior_exact_micro)

    @described_field(
        "The same by the period in whose statement each part first stood, at the terms of then; earliest first."
    )
    async def prior_periods(self, info: Info) -> list[PriorPeriod]:
        """The parts of earlier periods one by one."""
        key, calendar = (self.row.period_id, self.row.partner_id), info.context.programme.calendar
        return [
            PriorPeriod(
                period=(label := calendar.label(part.period_id)),
                statement_id=strawberry.ID(plain_id("SettlementStatement", f"{label}/{self.row.partner_id}")),
                exact=decimal_from_micro(part.exact_micro),
            )
            for part in await info.context.loaders.statement_prior_periods.load(key)
            if part.kind == self.row.kind
        ]

    @described_field("The amount billed: exact, rounded half-even once for the line.")
    def billed(self, info: Info) -> Money:
        """The rounded amount."""
        return money_from_minor(self.row.billed_minor, info.context.programme)

    @described_field("What explains the line: its transactions, latest first. Fees and taxes have none.")
    async def transactions(self, info: Info, first: First = None, after: After = None) -> Connection[Transaction]:
        """A page of the transactions whose movements make the line."""
        context, size = info.context, page_size(first)
        before = cursor_key(context, "Transaction", after)
        movements = reading.MOVEMENTS_OF_LINE[self.row.kind]
        ids: list[int] = []
        if movements:
            start = NO_COMMAND_BEFORE if before is None else before
            page = LinePage(self.row.period_id, self.row.partner_id, movements, start, size + 1)
            ids = await context.loaders.line_pages.load(page)
        rows = await context.loaders.transactions.load_many(ids)
        found = [(row.id, Transaction(row=row)) for row in rows if row is not None]
        return connection_of("Transaction", size, after, found)


@strawberry.type(description="Tax on one line of a statement, computed on what is billed and signed as the line.")
class StatementTax:
    """A part of the TAX line."""

    part: strawberry.Private[TaxPart]

    @described_field("The kind of line that is taxed.")
    def kind(self) -> StatementLineKind:
        """The taxed kind."""
        return StatementLineKind(self.part.kind.value)

    @described_field("The rate: 0.19 for 19 percent.")
    def rate(self) -> Decimal:
        """The rate."""
        return decimal_from_micro(self.part.rate_ppm)

    @described_field("What is taxed: the billed amount of the line, without tax.")
    def taxable(self, info: Info) -> Money:
        """The line without tax."""
        return money_from_minor(self.part.taxable_minor, info.context.programme)

    @described_field("The tax, rounded half-even to the currency's decimals.")
    def tax(self, info: Info) -> Money:
        """The tax."""
        return money_from_minor(self.part.tax_minor, info.context.programme)

    @described_field("The line with its tax.")
    def gross(self, info: Info) -> Money:
        """The line with tax."""
        return money_from_minor(self.part.taxable_minor + self.part.tax_minor, info.context.programme)


@strawberry.type(description="A payment between operator and partner, recorded as the bank booked it.")
class Payment:
    """A recorded payment."""

    row: strawberry.Private[payments.Payment]

    @described_field("What was paid, signed as the statement's due: negative when the partner paid.")
    def amount(self, info: Info) -> Money:
        """The amount."""
        return money_from_minor(self.row.amount_minor, info.context.programme)

    @described_field("The bank's value date.")
    def value_date(self) -> date:
        """The value date."""
        return self.row.value_date

    @described_field("What the bank calls it.")
    def bank_reference(self) -> str:
        """The bank's reference."""
        return self.row.bank_reference

    @described_field("When it was recorded.")
    def recorded_at(self) -> datetime:
        """The recording."""
        return self.row.recorded_at

    @described_field("Label of the period, open then, in which it was booked.")
    def booked_in(self, info: Info) -> str:
        """The period's label."""
        return info.context.programme.calendar.label(self.row.booked_in)

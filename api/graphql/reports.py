"""Performance reports: what a partner's money achieved."""

from datetime import date
from decimal import Decimal
from typing import Annotated

import strawberry
from graphql import GraphQLError

from api.graphql.context import Context, Info, bad_input
from api.graphql.fields import described_field, guarded_field
from api.graphql.ids import plain_number
from api.graphql.limits import REPORT_DAYS_MAX
from api.graphql.money import Money, money_from_micro, money_from_minor
from api.graphql.partners import BudgetStatus, Partner, budget_status, known_partner
from api.graphql.scalars import Points
from domain.periods import local_date
from settlement.performance import MINIMUM_CELL_MEMBERS, RATE_DIGITS, Performance, ShownCell
from settlement.performance_reading import performance_report

EARLIEST_DAY, LATEST_DAY = date(1900, 1, 1), date(2999, 12, 31)

_RATE = f"a fraction with {RATE_DIGITS} decimals, rounded half-even"
_WITHHELD = f"0 and named in suppressed where fewer than {MINIMUM_CELL_MEMBERS} members stand behind it"


@strawberry.type(
    description="Points of one issuer that members burned at one redeemer, before refunds. A partner sees its own row"
    " and column."
)
class MatrixCell:
    """A cell of the matrix."""

    cell: strawberry.Private[ShownCell]

    @described_field("Who had awarded the points.")
    async def issuer(self, info: Info) -> Partner:
        """The issuer."""
        return await known_partner(info.context, self.cell.issuer_id)

    @described_field("Where they were burned.")
    async def redeemer(self, info: Info) -> Partner:
        """The redeemer."""
        return await known_partner(info.context, self.cell.redeemer_id)

    @described_field("How many points, without sign.")
    def points(self) -> Points:
        """The points."""
        return Points(self.cell.points)

    @described_field(
        "Their value at what the redeemer is reimbursed per point; to a partner that is the issuer alone, at the issue"
        " prices that it paid, since the other's reimbursement is not its business. Exact, with six decimals."
    )
    def value(self, info: Info) -> Money:
        """The value."""
        return money_from_micro(self.cell.value_micro, info.context.programme)


@strawberry.type(
    description="What happened at a partner, or in the whole coalition, on the days from and to and between them, by"
    " when it happened (occurredAt), whichever period it was booked in. A partner's own totals are always exact;"
    f" figures that tell about other partners need {MINIMUM_CELL_MEMBERS} members behind them, else they are"
    " suppressed."
)
class PerformanceReport:
    """A report."""

    partner_id: strawberry.Private[int | None]
    figures: strawberry.Private[Performance]
    from_: date = strawberry.field(name="from", description="First day, in the programme's time zone.")
    to: date = strawberry.field(description="Last day, included.")

    @described_field("Whose report it is; null for the whole coalition.")
    async def partner(self, info: Info) -> Partner | None:
        """The partner."""
        return None if self.partner_id is None else await known_partner(info.context, self.partner_id)

    @described_field("Purchases less what was returned on these days; negative when more came back than was bought.")
    def sales(self, info: Info) -> Money:
        """Sales net of returns."""
        return money_from_minor(self.figures.totals.sales_minor, info.context.programme)

    @described_field("How many purchases members made, later returned ones included.")
    def purchases(self) -> int:
        """Count of purchases."""
        return self.figures.totals.purchases

    @described_field("How many members made them.")
    def active_members(self) -> int:
        """Count of active members."""
        return self.figures.members.active

    @described_field("Sales per purchase, rounded half-even to the currency's decimals; null without purchases.")
    def average_order_value(self, info: Info) -> Money | None:
        """The average order."""
        minor = self.figures.average_order_minor
        return None if minor is None else money_from_minor(minor, info.context.programme)

    @described_field(f"Purchases per active member: {_RATE}; null without one.")
    def frequency(self) -> Decimal | None:
        """The frequency."""
        return self.figures.frequency

    @described_field(
        f"Members with two purchases or more on these days, of the active members: {_RATE}; null without one."
    )
    def repurchase_rate(self) -> Decimal | None:
        """The repurchase rate."""
        return self.figures.repurchase_rate

    @described_field("Points awarded for these purchases, whoever funded them, before reversals.")
    def points_issued(self) -> Points:
        """Points issued."""
        return Points(self.figures.totals.issued)

    @described_field("Points burned here, whoever issued them, before refunds.")
    def points_burned(self) -> Points:
        """Points burned."""
        return Points(self.figures.totals.burned)

    @described_field("Points taken back for returned goods, without sign.")
    def points_reversed(self) -> Points:
        """Points reversed."""
        return Points(self.figures.totals.reversed)

    @described_field("Points given back to members for refunded burns.")
    def points_restored(self) -> Points:
        """Points restored."""
        return Points(self.figures.totals.restored)

    @described_field(f"pointsBurned of pointsIssued: {_RATE}, and may exceed 1; null when none were issued.")
    def redemption_rate(self) -> Decimal | None:
        """The redemption rate as a flow."""
        return self.figures.redemption_rate

    @described_field(
        "What awards of these days were charged to the partner, issue value and service fee, before reversals; without"
        " what the operator funds. Positive, exact, with six decimals."
    )
    def gross_charge(self, info: Info) -> Money:
        """The gross charge."""
        return money_from_micro(self.figures.totals.charge_micro, info.context.programme)

    @described_field(f"grossCharge of sales: {_RATE}; null unless sales are above zero.")
    def effective_reward_rate(self) -> Decimal | None:
        """The effective reward rate."""
        return self.figures.effective_reward_rate

    @described_field("Members whom the partner enrolled on these days.")
    def new_members(self) -> int:
        """Count of new members."""
        return self.figures.members.new

    @described_field(f"Those of newMembers who then bought at another partner, up to the last day; {_WITHHELD}.")
    def traffic_given(self) -> int:
        """Count of members sent on."""
        return self.figures.members.given

    @described_field(
        f"Members whose first purchase ever at the partner is of these days, after one at another partner; {_WITHHELD}."
    )
    def traffic_received(self) -> int:
        """Count of members who came from elsewhere."""
        return self.figures.members.received

    @described_field(
        "Who issued what was burned where. A partner's cell with another partner is left out where fewer than"
        f" {MINIMUM_CELL_MEMBERS} members stand behind it, or where it would follow from pointsBurned and the others."
    )
    def matrix(self) -> list[MatrixCell]:
        """The matrix, by issuer and redeemer."""
        return [MatrixCell(cell=cell) for cell in self.figures.matrix]

    @described_field(
        f"Fields of which something was withheld from a partner for want of {MINIMUM_CELL_MEMBERS} members, none"
        " included; always empty for the operator."
    )
    def suppressed(self) -> list[str]:
        """Names of suppressed fields."""
        return list(self.figures.suppressed)

    @described_field(
        "The partner's budget window of the last day, or of today where that lies ahead, as it stands now; null without"
        " one, and for the coalition."
    )
    async def budget(self, info: Info) -> BudgetStatus | None:
        """The budget window."""
        context = info.context
        if self.partner_id is None:
            return None
        programme = context.programme
        day = min(self.to, local_date(context.services.clock(), programme.zone))
        key = (self.partner_id, day, programme.calendar.ordinal(day))
        view = await context.loaders.budgets.load(key)
        return None if view is None else budget_status(context, view)


def reported_partner(context: Context, given: strawberry.ID | None) -> int | None:
    """Whose report is asked for, None for the coalition's. Raises FORBIDDEN for another partner's."""
    if given is None:
        return None if context.is_operator else context.viewer_id
    partner_id = plain_number("Partner", given)
    if not context.is_operator and partner_id != context.viewer_id:
        message = "a partner may read its own report only: leave partnerId out"
        raise GraphQLError(message, extensions={"code": "FORBIDDEN", "field": "partnerId"})
    held = context.services.configuration.held
    if held is None or partner_id not in held.partners:
        raise bad_input("there is no partner with this id; leave it out for the whole coalition", "partnerId")
    return partner_id


def check_days(from_day: date, to_day: date) -> None:
    """Raises BAD_USER_INPUT for days that no report can cover."""
    if to_day < from_day:
        raise bad_input("to is the last day of the report and must not lie before from", "to")
    if from_day < EARLIEST_DAY or to_day > LATEST_DAY:
        raise bad_input(f"a report lies between {EARLIEST_DAY} and {LATEST_DAY}", "from")
    if (to_day - from_day).days >= REPORT_DAYS_MAX:
        raise bad_input(f"a report covers at most {REPORT_DAYS_MAX} days: ask for less at a time", "from")


@strawberry.type
class ReportQueries:
    """Query fields of reports."""

    @guarded_field(
        "Query.performanceReport",
        "What a partner's money achieved from one day to another: your own report; for the operator a partner's or,"
        " when it names none, the whole coalition's. Another partner's is FORBIDDEN.",
    )
    async def performance_report(
        self,
        info: Info,
        from_: Annotated[
            date, strawberry.argument(name="from", description="First day, in the programme's time zone.")
        ],
        to: Annotated[
            date,
            strawberry.argument(description=f"Last day, included; at most {REPORT_DAYS_MAX} days in all."),
        ],
        partner_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Whose; your own when left out.")
        ] = None,
    ) -> PerformanceReport:
        """One report."""
        context = info.context
        check_days(from_, to)
        wanted = reported_partner(context, partner_id)
        figures = await performance_report(
            context.services.database, context.programme, context.viewer_id, wanted, from_, to
        )
        return PerformanceReport(partner_id=wanted, figures=figures, from_=from_, to=to)

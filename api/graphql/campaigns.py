"""Campaigns: what they give, where and when, and who pays."""

from datetime import date, timedelta
from decimal import Decimal

import strawberry

from api.graphql.context import Info, page_size
from api.graphql.fields import described_field, guarded_field
from api.graphql.money import After, Connection, First, Money, connection_of, cursor_key, money_from_micro
from api.graphql.partners import BudgetStatus, Partner, budget_status, known_partner
from api.graphql.scalars import Points
from domain import campaign_reading, terms
from domain.values import decimal_from_micro


@strawberry.type(description="One funder's part of a campaign.")
class CampaignFunding:
    """A share of the bonus."""

    funder_id: strawberry.Private[int]
    share: Decimal = strawberry.field(
        description="The part of the bonus that it pays, from 0 to 1, six decimals. Points are split by largest"
        " remainder, ties by the funders' codes."
    )

    @described_field('Who pays; the operator appears as the partner with code "operator".')
    async def funder(self, info: Info) -> Partner:
        """The funder."""
        return await known_partner(info.context, self.funder_id)


@strawberry.type(
    description="A bonus on purchases of some days at some tills. It gives a multiplier, bonus points, or points per"
    " unit: one of the three is not null."
)
class Campaign:
    """A campaign of the configuration."""

    row: strawberry.Private[terms.Campaign]
    from_: date = strawberry.field(name="from", description="First local day, by when a purchase happened.")
    to: date = strawberry.field(description="Last local day, inclusive.")

    @described_field("The campaign's code, unique in the coalition; awards and movements name it.")
    def code(self) -> str:
        """The code."""
        return self.row.code

    @described_field("The campaign's name.")
    def name(self) -> str:
        """The name."""
        return self.row.name

    @described_field("At whose tills it runs; null: at all.")
    async def partners(self, info: Info) -> list[Partner] | None:
        """The partners where it runs."""
        ids = self.row.partner_ids
        return None if ids is None else [await known_partner(info.context, partner_id) for partner_id in ids]

    @described_field("The purchase earns so many times its base points; the bonus is what goes beyond them.")
    def multiplier(self) -> Decimal | None:
        """The multiplier."""
        return None if self.row.multiplier_micro is None else decimal_from_micro(self.row.multiplier_micro)

    @described_field("Points for a purchase that reaches minAmount.")
    def bonus_points(self) -> Points | None:
        """The bonus of a purchase."""
        return None if self.row.bonus_points is None else Points(self.row.bonus_points)

    @described_field("Smallest purchase that gets bonusPoints; null unless it gives those.")
    def min_amount(self, info: Info) -> Money | None:
        """The smallest purchase."""
        if self.row.bonus_points is None:
            return None
        return money_from_micro(self.row.min_amount_micro, info.context.programme)

    @described_field("Points per unit of what is bought, rounded down once.")
    def points_per_unit(self) -> Decimal | None:
        """The rate."""
        return None if self.row.rate_micro is None else decimal_from_micro(self.row.rate_micro)

    @described_field("Categories that pointsPerUnit counts; where these and includeProducts are empty, all is.")
    def include_categories(self) -> list[str]:
        """Categories that count."""
        return self.row.include_categories

    @described_field("Products that pointsPerUnit counts beside those categories.")
    def include_products(self) -> list[str]:
        """Products that count."""
        return self.row.include_products

    @described_field("Most bonus points of one purchase; null: no limit.")
    def max_points(self) -> Points | None:
        """The cap of a purchase."""
        return None if self.row.max_points is None else Points(self.row.max_points)

    @described_field("Who pays, by code.")
    def funding(self) -> list[CampaignFunding]:
        """The funders with their shares."""
        return [
            CampaignFunding(funder_id=funder_id, share=decimal_from_micro(share_ppm))
            for funder_id, share_ppm in self.row.funding
        ]

    @described_field(
        "The campaign's own budget; null where each funder's own budget pays, and for everybody but the operator and a"
        " partner that funds the campaign alone: it tells what the others' points cost."
    )
    async def budget(self, info: Info) -> BudgetStatus | None:
        """The campaign's window."""
        view = await info.context.loaders.campaign_budgets.load(self.row.id)
        return None if view is None else budget_status(info.context, view)


def campaign_node(row: terms.Campaign) -> Campaign:
    """The schema's value of a campaign."""
    return Campaign(row=row, from_=row.starts, to=row.ends - timedelta(days=1))


@strawberry.type
class CampaignQueries:
    """Query fields about campaigns."""

    @guarded_field(
        "Query.campaigns",
        "The campaigns that run at your tills or that you fund (an operator sees all), in the order of their set-up.",
    )
    async def campaigns(self, info: Info, first: First = None, after: After = None) -> Connection[Campaign]:
        """A page of campaigns."""
        context, size = info.context, page_size(first)
        key = cursor_key(context, "Campaign", after)
        async with context.services.database.reading(context.viewer_id) as connection:
            rows = await campaign_reading.campaigns_page(connection, 0 if key is None else key, size + 1)
        return connection_of("Campaign", size, after, [(-row.id, campaign_node(row)) for row in rows])

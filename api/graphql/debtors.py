"""Members who owe points, as a list for the operator."""

from datetime import UTC, datetime, timedelta

import strawberry

from api.graphql.context import Context, Info, page_size
from api.graphql.fields import described_field, guarded_field
from api.graphql.members import Member
from api.graphql.money import After, Connection, First, Money, connection_of, cursor_numbers, money_from_micro
from api.graphql.partners import Partner, known_partner
from api.graphql.scalars import Points
from api.graphql.transactions import Transaction
from domain.debtors import DebtKey, OpenDebt, debts_page

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
KIND = "MemberDebt"
NO_KEY = DebtKey(EPOCH, 0)


@strawberry.type(
    description="Points that a member owes since a return: it had spent them, and their issuer was credited."
)
class MemberDebt:
    """One line of the list."""

    debt: strawberry.Private[OpenDebt]

    @described_field("Who owes; what a household owes is listed with who returned the goods.")
    async def member(self, info: Info) -> Member | None:
        """The member."""
        row = await info.context.loaders.members.find(self.debt.member_id)
        return None if row is None else Member(row=row)

    @described_field("Since when: the instant at which the goods came back.")
    def since(self) -> datetime:
        """When it began."""
        return self.debt.key.occurred_at

    @described_field("How many points are still owed, positive.")
    def points(self) -> Points:
        """Open points."""
        return Points(self.debt.open_points)

    @described_field("How many points the return left owed.")
    def original_points(self) -> Points:
        """What it began with."""
        return Points(self.debt.points)

    @described_field("Whose points they were.")
    async def issuer(self, info: Info) -> Partner:
        """The issuer."""
        return await known_partner(info.context, self.debt.issuer_id)

    @described_field("Who had paid for them and was credited: the issuer, or the operator.")
    async def funder(self, info: Info) -> Partner:
        """The funder."""
        return await known_partner(info.context, self.debt.funder_id)

    @described_field("What the operator is owed, at the price that was credited; six decimals.")
    def value(self, info: Info) -> Money:
        """Open points x price."""
        return money_from_micro(self.debt.value_micro, info.context.programme)

    @described_field("The return.")
    async def transaction(self, info: Info) -> Transaction | None:
        """The command that made it."""
        row = await info.context.loaders.transactions.load(self.debt.command_id)
        return None if row is None else Transaction(row=row)


@strawberry.type
class DebtorQueries:
    """The query field of the list."""

    @guarded_field(
        "Query.debtors",
        "What members owe since returns, by return and issuer, oldest first. Empty unless the programme's claw_back is"
        " negative_balance.",
    )
    async def debtors(self, info: Info, first: First = None, after: After = None) -> Connection[MemberDebt]:
        """A page of open debts."""
        context, size = info.context, page_size(first)
        key = _key(context, after)
        async with context.services.database.reading(context.viewer_id) as connection:
            debts = await debts_page(connection, key, size + 1)
        found = [((_micros(debt.key), debt.key.id), MemberDebt(debt=debt)) for debt in debts]
        return connection_of(KIND, size, after, found)


def _micros(key: DebtKey) -> int:
    return (key.occurred_at - EPOCH) // MICROSECOND


def _key(context: Context, after: str | None) -> DebtKey:
    numbers = cursor_numbers(context, KIND, after, 2)
    return NO_KEY if numbers is None else DebtKey(EPOCH + numbers[0] * MICROSECOND, numbers[1])

"""The schema: its roots, its printed form, and what a change of it means to clients."""

from pathlib import Path
from typing import Annotated

import strawberry
from strawberry.schema.config import StrawberryConfig

from api.graphql import wiring
from api.graphql.accounts import AccountMutations
from api.graphql.budgets import BudgetMutations, BudgetQueries
from api.graphql.campaigns import CampaignQueries
from api.graphql.context import Context, Info
from api.graphql.debtors import DebtorQueries
from api.graphql.deposits import DepositMutations, DepositQueries
from api.graphql.disputes import DisputeMutations, DisputeQueries
from api.graphql.expiring import ExpiringQueries
from api.graphql.fields import guarded_field
from api.graphql.four_eyes import ProposalMutations, ProposalQueries
from api.graphql.holds import BurnHold, HoldMutations, HoldQueries, hold_by_numbers
from api.graphql.ids import plain_number, split
from api.graphql.members import Member, MemberQueries
from api.graphql.money import Node
from api.graphql.parked import ParkedQueries
from api.graphql.partners import PartnerQueries, partner_by_id
from api.graphql.payments import PaymentMutations, PaymentQueries
from api.graphql.pending import PendingMutations
from api.graphql.pools import PoolMutations
from api.graphql.reports import ReportQueries
from api.graphql.scalars import SCALARS
from api.graphql.scopes import NODE_SCOPES
from api.graphql.sdl import sorted_sdl
from api.graphql.settlement import SettlementMutations, SettlementQueries
from api.graphql.till import TillMutations, TillQueries
from api.graphql.transactions import Transaction, TransactionQueries
from api.graphql.viewer import ViewerQueries

SNAPSHOT = Path(__file__).parent / "schema.graphql"
"""The printed schema as reviewed: the output of ``coalition schema print``, which a test compares."""


async def node_by_id(context: Context, given: str) -> Node | None:
    """Whatever the id names, as far as the viewer may see it; None for any other text."""
    found = split(given)
    if found is None or found[0] not in NODE_SCOPES or not context.allows(NODE_SCOPES[found[0]]):
        return None
    type_name = found[0]
    if type_name == "Partner":
        partner_id = plain_number("Partner", given)
        return None if partner_id is None else await partner_by_id(context, partner_id)
    numbers = context.services.ids.decode(context.viewer_id, type_name, given)
    if numbers is None:
        return None
    if type_name == "Member":
        member = await context.loaders.members.find(numbers[0])
        return None if member is None else Member(row=member)
    if type_name == "BurnHold":
        return await hold_by_numbers(context, numbers)
    command = await context.loaders.transactions.load(numbers[-1])
    return None if command is None else Transaction(row=command)


@strawberry.type
class NodeQueries:
    """The query field of Relay's Node."""

    @guarded_field(
        "Query.node",
        "Anything by its id; null for an id that is not yours, or whose type your token may not read.",
    )
    async def node(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="An id as your own queries gave it.")],
    ) -> Node | None:
        """One node."""
        return await node_by_id(info.context, id)


@strawberry.type(description="Everything that can be read.")
class Query(
    NodeQueries,
    ViewerQueries,
    MemberQueries,
    ExpiringQueries,
    DebtorQueries,
    PartnerQueries,
    CampaignQueries,
    BudgetQueries,
    TransactionQueries,
    TillQueries,
    HoldQueries,
    ParkedQueries,
    SettlementQueries,
    PaymentQueries,
    DepositQueries,
    ReportQueries,
    ProposalQueries,
    DisputeQueries,
):
    """The queries."""


@strawberry.type(
    description="Everything that can be done. Each field posts on its own and may be null after a fault (see errors);"
    " what the platform refuses is a Refusal. Repeat with the same idempotency key when an answer was lost."
)
class Mutation(
    TillMutations,
    HoldMutations,
    PendingMutations,
    AccountMutations,
    PoolMutations,
    SettlementMutations,
    PaymentMutations,
    DepositMutations,
    BudgetMutations,
    ProposalMutations,
    DisputeMutations,
):
    """The mutations."""


def make_schema() -> strawberry.Schema:
    """The schema as served, with strawberry taken out of its running path."""
    made = strawberry.Schema(
        query=Query,
        mutation=Mutation,
        config=StrawberryConfig(scalar_map=SCALARS),
        types=[Member, Transaction, BurnHold],
    )
    wiring.wire(made._schema)  # noqa: SLF001 (strawberry has no public name for it)
    return made


schema = make_schema()


def printed_schema() -> str:
    """The schema in its definition language, sorted, so that a change of it is a change of lines."""
    return sorted_sdl(schema.as_str())

"""Batching of reads: per request by key, and for members' balances across requests.

A loader gathers what one tick of the event loop asks for and reads it in one statement of its own short transaction,
so the number of statements of a document does not grow with its pages.
"""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import NamedTuple, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection
from strawberry.dataloader import DataLoader

from api.gathering import Gatherer
from domain import pool_reading, reading
from domain.budget_reading import blocks_of
from domain.campaign_reading import campaign_budgets
from domain.commands import BudgetView, CommandRow
from domain.database import Database
from domain.floats import FloatBlock
from domain.periods import Clock
from domain.terms import Partner, Store
from settlement import adjusted, deposit_reading, disputed
from settlement import reading as settled
from settlement.budget_uses import BudgetUse, budgets_of_statements
from settlement.lines import TaxPart
from settlement.payments import Payment, payments_of_statements
from settlement.prior_periods import PriorPart, prior_periods_of_statements

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Missing = TypeVar("Missing")

MemberKey = int | tuple[str, str]
"""A member's id, or a normalised identifier (kind, value)."""


class MemberReader(Gatherer[MemberKey, reading.MemberRow]):
    """Reads members with their balances for all requests of the process, as the posting queue posts for all.

    Members belong to no partner; resolvers decide what shows of them.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(self._members, "member reader")
        self._database = database
        self._clock = clock

    async def _members(self, keys: Sequence[MemberKey]) -> Mapping[MemberKey, reading.MemberRow]:
        identifiers = [key for key in keys if not isinstance(key, int)]
        ids = [key for key in keys if isinstance(key, int)]
        found: dict[MemberKey, reading.MemberRow] = {}
        now = self._clock()
        async with self._database.reading(reading.NOBODY_ID) as connection:
            if identifiers:
                found |= dict((await reading.members_by_identifier(connection, identifiers, now)).items())
            if ids:
                found |= dict((await reading.members_by_id(connection, ids, now)).items())
        return found


class LinePage(NamedTuple):
    """One page of a statement line's transactions: whose line of which period, and where the page begins."""

    period_id: int
    party_id: int
    movement_kinds: tuple[str, ...]
    before: int
    limit: int


class Loaders:
    """The loaders of one request, made when first used; what they read is the viewer's by row-level security."""

    def __init__(self, database: Database, members: MemberReader, clock: Clock, viewer_id: int) -> None:
        self._database = database
        self._viewer_id = viewer_id
        self._clock = clock
        self.members = members

    def batched(
        self,
        read: Callable[[AsyncConnection, Sequence[Key]], Awaitable[Mapping[Key, Value]]],
        missing: Callable[[], Missing],
    ) -> DataLoader[Key, Value | Missing]:
        """A loader over a batch read; keys that it does not find give ``missing()``."""

        async def load(keys: list[Key]) -> list[Value | Missing]:
            async with self._database.reading(self._viewer_id) as connection:
                found = await read(connection, keys)
            return [found[key] if key in found else missing() for key in keys]

        return DataLoader(load_fn=load)

    @cached_property
    def partners(self) -> DataLoader[int, Partner | None]:
        """Partners by id."""
        return self.batched(reading.partners_by_id, _none)

    @cached_property
    def stores(self) -> DataLoader[int, Store | None]:
        """Stores by id."""

        async def read(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, Store]:
            return {store.id: store for store in await reading.stores_of(connection, ids=ids)}

        return self.batched(read, _none)

    @cached_property
    def stores_of_partner(self) -> DataLoader[int, list[Store]]:
        """Stores by partner id."""

        async def read(connection: AsyncConnection, partners: Sequence[int]) -> dict[int, list[Store]]:
            found: dict[int, list[Store]] = {}
            for store in await reading.stores_of(connection, partners=partners):
                found.setdefault(store.partner_id, []).append(store)
            return found

        return self.batched(read, list)

    @cached_property
    def budgets(self) -> DataLoader[tuple[int, date, int], BudgetView | None]:
        """Budget windows by partner id, local day and period id."""

        async def read(
            connection: AsyncConnection, keys: Sequence[tuple[int, date, int]]
        ) -> dict[tuple[int, date, int], BudgetView]:
            found: dict[tuple[int, date, int], BudgetView] = {}
            # One moment, so one statement; two only when midnight passes while a request runs.
            for day, period_id in dict.fromkeys(key[1:] for key in keys):
                windows = await reading.budget_windows(
                    connection, [key[0] for key in keys], day, period_id, self._clock()
                )
                found.update({(partner_id, day, period_id): view for partner_id, view in windows.items()})
            return found

        return self.batched(read, _none)

    @cached_property
    def float_blocks(self) -> DataLoader[int, list[FloatBlock]]:
        """Blocks of prepaid budgets by the id of the window."""
        return self.batched(blocks_of, list)

    @cached_property
    def campaign_budgets(self) -> DataLoader[int, BudgetView | None]:
        """Campaigns' own budgets by campaign id, as far as the viewer may see them."""
        return self.batched(campaign_budgets, _none)

    @cached_property
    def identifiers(self) -> DataLoader[int, list[tuple[str, str]]]:
        """Every identifier (kind, value) by member id: for the operator."""
        return self.batched(lambda connection, ids: reading.identifiers_of(connection, ids, None), list)

    @cached_property
    def own_identifiers(self) -> DataLoader[int, list[tuple[str, str]]]:
        """Identifiers by member id that the viewer itself supplied."""
        viewer_id = self._viewer_id
        return self.batched(lambda connection, ids: reading.identifiers_of(connection, ids, viewer_id), list)

    @cached_property
    def expiries(self) -> DataLoader[int, reading.Expiry | None]:
        """Next expiry by account id."""
        return self.batched(lambda connection, ids: reading.next_expiries(connection, ids, self._clock()), _none)

    @cached_property
    def pools_of_members(self) -> DataLoader[int, int | None]:
        """Pool id by the id of a member who is in one."""
        return self.batched(pool_reading.pools_of_members, _none)

    @cached_property
    def pools_of_commands(self) -> DataLoader[int, int | None]:
        """Pool id by the id of a command that changed who is in it."""
        return self.batched(pool_reading.pools_of_commands, _none)

    @cached_property
    def pool_places(self) -> DataLoader[int, list[pool_reading.PlaceRow]]:
        """Who is in a pool, by its id, as far as the viewer may know."""
        viewer_id = self._viewer_id
        return self.batched(lambda connection, ids: pool_reading.places_of_pools(connection, ids, viewer_id), list)

    @cached_property
    def transactions(self) -> DataLoader[int, CommandRow | None]:
        """Commands by id, as far as the viewer may see them."""
        return self.batched(reading.transactions_by_id, _none)

    @cached_property
    def resolutions(self) -> DataLoader[int, CommandRow | None]:
        """Captures and voids by the id of their hold."""
        return self.batched(reading.resolutions_of, _none)

    @cached_property
    def movements(self) -> DataLoader[int, list[reading.MovementRow]]:
        """Movements by command id."""
        return self.batched(reading.movements_of, list)

    @cached_property
    def lot_uses(self) -> DataLoader[int, list[reading.LotUseRow]]:
        """Lot uses by movement id."""
        return self.batched(reading.lot_uses_of, list)

    def gathered(
        self, read: Callable[[Database, int, list[Key]], Awaitable[Mapping[Key, Value]]]
    ) -> DataLoader[Key, Value]:
        """A loader over a batch read of the settlement, which opens its own transaction and answers every key."""

        async def load(keys: list[Key]) -> list[Value]:
            found = await read(self._database, self._viewer_id, keys)
            return [found[key] for key in keys]

        return DataLoader(load_fn=load)

    @cached_property
    def statements(self) -> DataLoader[int, list[settled.SettlementStatement]]:
        """Statements by period id, as far as the viewer may see them."""
        return self.gathered(settled.statements_of_periods)

    @cached_property
    def statement_lines(self) -> DataLoader[settled.StatementKey, list[settled.StatementLine]]:
        """Lines by statement."""
        return self.gathered(settled.lines_of_statements)

    @cached_property
    def statement_budgets(self) -> DataLoader[settled.StatementKey, list[BudgetUse]]:
        """Budget windows by the statement whose entries drew on them."""
        return self.gathered(budgets_of_statements)

    @cached_property
    def statement_taxes(self) -> DataLoader[settled.StatementKey, list[TaxPart]]:
        """Parts of the tax by statement."""
        return self.gathered(settled.taxes_of_statements)

    @cached_property
    def statement_prior_periods(self) -> DataLoader[settled.StatementKey, list[PriorPart]]:
        """Parts of lines that correct earlier periods, by statement."""
        return self.gathered(prior_periods_of_statements)

    @cached_property
    def statement_payments(self) -> DataLoader[settled.StatementKey, list[Payment]]:
        """Payments by the statement that they pay."""
        return self.gathered(payments_of_statements)

    @cached_property
    def disputes(self) -> DataLoader[int, disputed.Dispute | None]:
        """Disputes by id, as far as the viewer may see them."""
        return self.batched(disputed.disputes_by_id, _none)

    @cached_property
    def statement_disputes(self) -> DataLoader[settled.StatementKey, list[disputed.Dispute]]:
        """Disputes by the statement that they are about."""
        return self.batched(disputed.disputes_of_statements, list)

    @cached_property
    def statement_adjustments(self) -> DataLoader[settled.StatementKey, list[adjusted.Adjustment]]:
        """Adjustments by the statement whose line they make."""
        return self.batched(adjusted.adjustments_of_statements, list)

    @cached_property
    def deposits(self) -> DataLoader[int, deposit_reading.DepositAccount | None]:
        """Deposits by partner id, as far as the viewer may see them."""
        return self.batched(deposit_reading.deposit_accounts, _none)

    @cached_property
    def deposit_payments(self) -> DataLoader[int, list[deposit_reading.DepositPayment]]:
        """What was paid into deposits and out of them, by partner id."""
        return self.batched(deposit_reading.payments_of_deposits, list)

    @cached_property
    def dispute_transactions(self) -> DataLoader[int, list[int]]:
        """Ids of the commands that a dispute names."""
        return self.batched(disputed.transactions_of_disputes, list)

    @cached_property
    def period_figures(self) -> DataLoader[int, settled.PeriodFigures]:
        """The coalition's figures by period id; only an operator's scopes lead here."""
        return self.gathered(lambda database, _, ids: settled.period_figures(database, ids))

    @cached_property
    def line_pages(self) -> DataLoader[LinePage, list[int]]:
        """Command ids of a page of a statement line's transactions."""

        async def read(connection: AsyncConnection, pages: Sequence[LinePage]) -> dict[LinePage, list[int]]:
            found: dict[LinePage, list[int]] = {}
            # Lines of one field share before and limit; only another alias with other arguments adds a statement.
            for before, limit in dict.fromkeys((page.before, page.limit) for page in pages):
                group = [page for page in pages if (page.before, page.limit) == (before, limit)]
                lines = [page[:3] for page in group]
                found.update(zip(group, await reading.line_commands(connection, lines, before, limit), strict=True))
            return found

        return self.batched(read, list)


def _none() -> None:
    return None

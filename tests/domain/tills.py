"""A till under test: a posting queue with a clock that the test sets, and short words for commands."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, text

from domain.accounts import PoolRole
from domain.commands import (
    Amount,
    Authorize,
    BasketLine,
    BudgetView,
    Burn,
    Capture,
    Command,
    CommandKind,
    CreatePool,
    Earn,
    Enroll,
    Enrolled,
    JoinPool,
    LeavePool,
    MemberRef,
    Merge,
    OriginalRef,
    Outcome,
    Posted,
    Refusal,
    Reverse,
    StoreRef,
    Transfer,
    Unmerge,
    Void,
)
from domain.database import Database
from domain.errors import RefusalCode
from domain.queue import PostingQueue
from domain.terms import Configuration, ConfigurationCache
from domain.values import OPERATOR_ID
from tests.domain.books import contents
from tests.factories import MID_MARCH, apply_toml

MARCH = 2017 * 12 + 2
APRIL = MARCH + 1
EUR_MICRO = 1_000_000
NO_STORE = StoreRef()
BasketInput = tuple[str | None, str | None, str, str]
"""A basket line as sku, category, quantity and amount."""


@dataclass
class MovableClock:
    """A clock that stands where the test puts it."""

    now: datetime = MID_MARCH

    def __call__(self) -> datetime:
        return self.now

    def to(self, year: int, month: int, day: int, hour: int = 12, minute: int = 0) -> datetime:
        """Moves the clock."""
        self.now = datetime(year, month, day, hour, minute, tzinfo=UTC)
        return self.now

    def forward(self, **by: int) -> datetime:
        """Moves it forward by a timedelta's keywords."""
        self.now += timedelta(**by)
        return self.now


@dataclass
class Till:
    """One process's queue on a coalition, and commands in few words. ``EUR`` unless ``currency`` says otherwise."""

    database: Database
    configuration: Configuration
    clock: MovableClock
    queue: PostingQueue
    cache: ConfigurationCache
    currency: str = "EUR"
    members: dict[str, Enrolled] = field(default_factory=dict)

    def id_of(self, partner: str) -> int:
        """A partner's id."""
        return self.configuration.partners_by_code[partner].id

    def store_of(self, partner: str, code: str) -> int:
        """A store's id."""
        return self.configuration.stores_by_code[(self.id_of(partner), code)].id

    # ------------------------------------------------------------ commands

    def enrolment(
        self,
        card: str | None = None,
        *,
        key: str | None = None,
        email: str | None = None,
        phone: str | None = None,
        partner: str = "grocer",
        store: StoreRef = NO_STORE,
        attributes: tuple[tuple[str, str], ...] = (),
        at: datetime | None = None,
    ) -> Enroll:
        """An enrolment; its key is "enrol-<card>" unless given."""
        partner_id = self.id_of(partner)
        return Enroll(partner_id, key or f"enrol-{card}", card, email, phone, store, None, attributes, at)

    def purchase(
        self,
        key: str,
        amount: str = "100.00",
        *,
        card: str = "card-1",
        partner: str = "grocer",
        reference: str | None = None,
        at: datetime | None = None,
        store: StoreRef = NO_STORE,
        lines: Sequence[BasketInput] | None = None,
        currency: str | None = None,
        member: MemberRef | None = None,
        channel: str | None = None,
    ) -> Earn:
        """A purchase; its reference is its key unless given, and it happens now."""
        return Earn(
            self.id_of(partner),
            key,
            MemberRef(identifier=("card", card)) if member is None else member,
            self.money(amount, currency),
            at or self.clock.now,
            key if reference is None else reference,
            store,
            channel,
            self.basket(lines),
        )

    def burn(
        self,
        key: str,
        points: int,
        *,
        card: str = "card-1",
        partner: str = "grocer",
        reference: str | None = None,
        at: datetime | None = None,
        store: StoreRef = NO_STORE,
    ) -> Burn:
        """A burn; its reference is its key unless given, and it happens now."""
        member = MemberRef(identifier=("card", card))
        moment = at or self.clock.now
        return Burn(self.id_of(partner), key, member, points, moment, key if reference is None else reference, store)

    def authorization(self, key: str, points: int, **given: Any) -> Authorize:
        """An authorization of a burn; takes what ``burn`` takes."""
        return Authorize(*self.burn(key, points, **given))

    def capture(
        self,
        key: str,
        original: str | OriginalRef,
        points: int | None = None,
        *,
        partner: str = "grocer",
        at: datetime | None = None,
    ) -> Capture:
        """A capture of the authorization with that key, or of what the reference says."""
        return Capture(self.id_of(partner), key, _original(original), at or self.clock.now, points)

    def void(
        self,
        key: str,
        original: str | OriginalRef,
        *,
        partner: str = "grocer",
        at: datetime | None = None,
        reason: str | None = None,
    ) -> Void:
        """A void of the authorization with that key, or of what the reference says."""
        return Void(self.id_of(partner), key, _original(original), at or self.clock.now, reason)

    def reversal(
        self,
        key: str,
        original: str | OriginalRef,
        *,
        partner: str = "grocer",
        amount: str | None = None,
        lines: Sequence[BasketInput] | None = None,
        points: int | None = None,
        at: datetime | None = None,
        reason: str | None = None,
        awaits: bool = False,
    ) -> Reverse:
        """A reversal of the command with that key, or of what the reference says."""
        return Reverse(
            self.id_of(partner),
            key,
            _original(original),
            at or self.clock.now,
            None if amount is None else self.money(amount),
            self.basket(lines),
            points,
            reason,
            awaits,
        )

    def transfer(
        self,
        key: str,
        points: int,
        *,
        source: str = "card-1",
        target: str = "card-2",
        partner: str | None = None,
        at: datetime | None = None,
        reason: str | None = None,
    ) -> Transfer:
        """A transfer by the operator, or by a partner."""
        giver, receiver = (MemberRef(identifier=("card", card)) for card in (source, target))
        by = OPERATOR_ID if partner is None else self.id_of(partner)
        return Transfer(by, key, giver, receiver, points, at or self.clock.now, reason)

    def merge(
        self,
        key: str,
        keep: str | MemberRef = "card-1",
        duplicate: str | MemberRef = "card-2",
        *,
        reason: str | None = None,
    ) -> Merge:
        """A merge of the members with these cards."""
        kept, other = (
            MemberRef(identifier=("card", member)) if isinstance(member, str) else member
            for member in (keep, duplicate)
        )
        return Merge(OPERATOR_ID, key, kept, other, reason)

    def unmerge(self, key: str, merge: str, *, reason: str | None = None) -> Unmerge:
        """The undoing of the merge with that key."""
        return Unmerge(OPERATOR_ID, key, OriginalRef(key=merge), reason)

    def founding(self, key: str, card: str = "card-1", *, partner: str | None = None) -> CreatePool:
        """A pool founded by the member with that card."""
        by = OPERATOR_ID if partner is None else self.id_of(partner)
        return CreatePool(by, key, MemberRef(identifier=("card", card)))

    def joining(
        self,
        key: str,
        pool_id: int,
        card: str = "card-2",
        *,
        role: PoolRole = PoolRole.MEMBER,
        burn_limit: int | None = None,
        partner: str | None = None,
    ) -> JoinPool:
        """The member with that card joins, or changes its place."""
        by = OPERATOR_ID if partner is None else self.id_of(partner)
        return JoinPool(by, key, pool_id, MemberRef(identifier=("card", card)), role, burn_limit)

    def leaving(self, key: str, card: str = "card-2", *, partner: str | None = None) -> LeavePool:
        """The member with that card leaves its pool."""
        by = OPERATOR_ID if partner is None else self.id_of(partner)
        return LeavePool(by, key, MemberRef(identifier=("card", card)))

    def money(self, amount: str, currency: str | None = None) -> Amount:
        """An amount of the programme's currency."""
        return Amount(Decimal(amount), self.currency if currency is None else currency)

    def basket(self, lines: Sequence[BasketInput] | None) -> tuple[BasketLine, ...] | None:
        """Lines given as (sku, category, quantity, amount)."""
        if lines is None:
            return None
        return tuple(
            BasketLine(sku, category, Decimal(quantity), self.money(amount))
            for sku, category, quantity, amount in lines
        )

    # ------------------------------------------------------------ answers

    async def enrolled(self, *cards: str, partner: str = "grocer") -> None:
        """Members with these cards."""
        for outcome in await self.queue.post_many([self.enrolment(card, partner=partner) for card in cards]):
            assert isinstance(outcome, Enrolled), outcome
            self.members[outcome.key.removeprefix("enrol-")] = outcome

    async def accept(self, command: Command) -> Posted:
        """The receipt of a command that must be accepted."""
        outcome = await self.queue.post(command)
        assert isinstance(outcome, Posted), outcome
        return outcome

    async def accept_all(self, commands: Sequence[Command]) -> list[Posted]:
        """The receipts of commands sent at once, all of which must be accepted."""
        posted = []
        for outcome in await self.queue.post_many(commands):
            assert isinstance(outcome, Posted), outcome
            posted.append(outcome)
        return posted

    async def enroll(self, command: Enroll) -> Enrolled:
        """The receipt of an enrolment that must be accepted."""
        outcome = await self.queue.post(command)
        assert isinstance(outcome, Enrolled), outcome
        return outcome

    async def refuse(self, command: Command, code: RefusalCode, field_name: str | None = None) -> Refusal:
        """The refusal of a command that must be refused so, and after which every table is as before."""
        before = await contents(self.database)
        outcome = await self.queue.post(command)
        assert isinstance(outcome, Refusal), outcome
        assert (outcome.code, outcome.field, outcome.key) == (code, field_name, command.key), outcome
        assert await contents(self.database) == before
        return outcome

    # ------------------------------------------------------------ what stands in the tables

    async def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """What a query finds, as the posting role."""
        async with self.database.posting() as connection:
            found: Sequence[Row[Any]] = (await connection.execute(text(sql), parameters)).all()
        return [tuple(row) for row in found]

    async def one(self, sql: str, **parameters: Any) -> Any:
        """The one value of a query that finds one row with one column."""
        [[value]] = await self.rows(sql, **parameters)
        return value

    async def movements(self, key: str, *columns: str) -> list[tuple[Any, ...]]:
        """These columns of the movements of the command with that key, in the order in which they were posted."""
        names = ", ".join(f"t.{column}" for column in columns)
        return await self.rows(
            f"SELECT {names} FROM transaction AS t JOIN command AS c ON c.id = t.command_id"
            " WHERE c.idempotency_key = :key ORDER BY t.id",
            key=key,
        )

    async def budget(self, partner: str = "grocer", period_id: int = MARCH) -> tuple[int, bool]:
        """(consumed micro-units, whether in alert) of a partner's window."""
        [(consumed_micro, in_alert)] = await self.rows(
            "SELECT consumed_micro, alerted_at IS NOT NULL FROM budget"
            " WHERE partner_id = :partner AND period_id = :period",
            partner=self.id_of(partner),
            period=period_id,
        )
        return consumed_micro, in_alert

    async def available(self, card: str = "card-1") -> int:
        """The stored balance of a member's account."""
        sql = """
            SELECT a.available FROM account AS a JOIN member AS m ON m.account_id = a.id
              JOIN member_identifier AS i ON i.member_id = m.id WHERE i.kind = 'card' AND i.value = :card
        """
        available: int = await self.one(sql, card=card)
        return available


def _original(named: str | OriginalRef) -> OriginalRef:
    return OriginalRef(key=named) if isinstance(named, str) else named


def window_of(posted: Posted) -> BudgetView:
    """The budget window that a receipt shows, without the id that it happens to have."""
    assert posted.budget is not None
    return posted.budget._replace(budget_id=None)


def by_reference(reference: str, kind: CommandKind | None = None, store: StoreRef = NO_STORE) -> OriginalRef:
    """The original named by the till's own reference."""
    return OriginalRef(reference=reference, kind=kind, store=store)


def codes(outcomes: Iterable[Outcome]) -> Counter[str]:
    """How many were posted, found again, and refused by which code."""
    return Counter(
        outcome.code if isinstance(outcome, Refusal) else "replayed" if outcome.replayed else "posted"
        for outcome in outcomes
    )


@asynccontextmanager
async def till_on(
    database: Database, toml: str, *, at: datetime = MID_MARCH, is_history: bool = False, queue_max: int = 5_000
) -> AsyncIterator[Till]:
    """A till of a coalition that is applied first."""
    configuration = await apply_toml(database, toml)
    async with queue_on(database, configuration, at=at, is_history=is_history, queue_max=queue_max) as till:
        yield till


@asynccontextmanager
async def queue_on(
    database: Database,
    configuration: Configuration,
    *,
    at: datetime = MID_MARCH,
    is_history: bool = False,
    queue_max: int = 5_000,
) -> AsyncIterator[Till]:
    """One more process's queue on the same coalition."""
    clock, cache = MovableClock(at), ConfigurationCache(database)
    queue = PostingQueue(database, cache, clock, is_history=is_history, queue_max=queue_max)
    queue.start()
    yield Till(database, configuration, clock, queue, cache, configuration.programme.currency)
    await queue.stop()

"""The posting queue: commands that arrive while a batch is in flight form the next one (DESIGN.md, "Group commit").

A batch is one transaction: load, decide in arrival order, write, commit, answer. This file holds the order of its
steps and what happens when one fails; what is read stands in ``loading``, what is decided in ``earning``, ``burning``,
``reversing`` and ``enrolling``, what is written in ``writing``.
"""

import asyncio
import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from domain.account_loading import load_account_changes
from domain.adjusting import load_adjustments
from domain.asked import Asked, Known, LocksMissing, MoreLocks, accounts_with_lots, budget_windows
from domain.batch import Batch, Budget, StartOver
from domain.batch_clock import BatchClock
from domain.commands import Burn, Command, CommandKind, Earn, Enroll, Outcome, Refusal
from domain.database import (
    DEADLOCK,
    LOCK_TIMEOUT,
    SERIALIZATION,
    STALE_PLAN,
    UNIQUE_VIOLATION,
    BatchConnection,
    Database,
    is_connection_lost,
    sqlstate,
)
from domain.deciding import decide, decide_all
from domain.enrolling import enrolment_identifiers
from domain.errors import RefusalCode, Refused
from domain.floats import drawn_floats
from domain.held import load_holds
from domain.ledger import ensure_periods
from domain.loading import (
    claim_identifiers,
    create_budgets,
    load_commands,
    load_details,
    load_lots,
    load_members,
    load_secret,
    load_state,
    lock_accounts,
    lock_budgets,
    lock_shared,
    next_id_block,
    resolve_members,
)
from domain.observing import REQUEST_ID, QueueObserver, fault_facts
from domain.parking import load_parked, lock_parking, may_park
from domain.pending import load_pending, reserved_budgets
from domain.periods import Clock
from domain.pooling import load_pools
from domain.sweeping import load_last_uses
from domain.terms import BudgetPlan, Configuration, ConfigurationCache, load_configuration
from domain.writing import write_batch

BATCH_MAX = 500
QUEUE_MAX = 5_000
TURNED_AWAY = "too many commands are waiting: send this one again in a moment, with the same key"
IDS_PER_COMMAND = 8


class _Trouble(Enum):
    """Why an attempt at a batch failed, and so what helps."""

    CONTENTION = "others were in the way: the whole batch again from step 0, where a winner is now visible"
    SERVER = "the server went away, is starting or has no room, which is no command's fault: again, later"
    FAULT = "something in the batch: halves of it, until the guilty command stands alone"


TRIES_MAX = {_Trouble.CONTENTION: 12, _Trouble.SERVER: 60, _Trouble.FAULT: 1}
PAUSE_MS = {_Trouble.CONTENTION: 20, _Trouble.SERVER: 10}
"""Before the second try; the n-th waits n times as long, for a server about 18 seconds in all."""

CONTENTION_STATES = frozenset({DEADLOCK, SERIALIZATION, LOCK_TIMEOUT, STALE_PLAN, UNIQUE_VIOLATION})

SERVER_CLASSES = ("08", "53", "57", "58")
"""Classes of SQLSTATE that speak of the server and its connections."""

STATEMENT_TIMEOUT = "57014"
"""Of class 57, but about the statement: half a batch may be quick enough."""

logger = logging.getLogger(__name__)


class _QuoteDone(Exception):
    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes


class _Ids(Iterator[int]):
    """Ids for new rows, out of blocks that were fetched before the batch began."""

    def __init__(self) -> None:
        self._left: deque[int] = deque()
        self._filling = asyncio.Lock()
        self.wanted = 0

    def __next__(self) -> int:
        if not self._left:
            self.wanted *= 2
            raise StartOver
        return self._left.popleft()

    async def fill(self, connection: BatchConnection, wanted: int) -> None:
        """Makes sure that at least ``wanted`` ids are at hand, or as many as a batch ran out of before."""
        # One at a time (a quote runs beside the batch): blocks are appended in their order, so that ids ascend.
        async with self._filling:
            self.wanted = max(self.wanted, wanted)
            while len(self._left) < self.wanted:
                self._left.extend(await next_id_block(connection))


@dataclass(slots=True)
class _Waiting:
    command: Command
    request_id: str | None
    answer: asyncio.Future[Outcome]


class PostingQueue:
    """Takes every till command of this process, in order, many to a transaction."""

    def __init__(
        self,
        database: Database,
        configuration: ConfigurationCache,
        clock: Clock,
        *,
        is_history: bool = False,
        queue_max: int = QUEUE_MAX,
        observer: QueueObserver | None = None,
    ) -> None:
        """``is_history`` books each command into the period in which it occurred (``--booking occurred``)."""
        self._database = database
        self._configuration = configuration
        self._clock = clock
        self._is_history = is_history
        self._queue_max = queue_max
        self._observer = observer
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._worker: asyncio.Task[None] | None = None
        self._ids = _Ids()
        self._secret: bytes | None = None
        self._first_open_id = 0
        self._known_periods: set[int] = set()
        self._imported_periods: set[int] = set()
        self._known_windows: set[tuple[int, int]] = set()

    def start(self) -> None:
        """Begins to take commands."""
        self._worker = asyncio.create_task(self._work(), name="posting-queue")

    async def stop(self) -> None:
        """Posts what has arrived, refuses what comes now, and ends."""
        self._closing = True
        self._arrived.set()
        if self._worker is not None:
            await self._worker

    @property
    def length(self) -> int:
        """How many commands wait for the next batch."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether what comes now is turned away."""
        return self._closing or len(self._waiting) >= self._queue_max

    def turn_away(self, kind: type[Command], key: str) -> Refusal:
        """The answer to a command that finds the queue full; it is counted, and nothing else is done with it."""
        if self._observer is not None:
            self._observer.turned_away(kind)
        return Refusal(RefusalCode.OVERLOADED, TURNED_AWAY, None, key)

    async def post(self, command: Command) -> Outcome:
        """Posts one command and answers when it is committed. A caller that goes away does not cancel its posting."""
        return await self._enqueue(command)

    async def post_many(self, commands: Sequence[Command]) -> list[Outcome]:
        """Posts commands in order, each on its own; answers in the same order."""
        # Awaited one after the other, most are done already: gathering costs a callback each.
        return [await answer for answer in [self._enqueue(command) for command in commands]]

    async def quote(self, command: Earn | Burn) -> Outcome:
        """What posting the command now would answer; nothing is written, its key is neither looked at nor used."""
        return (await self._execute([command], [REQUEST_ID.get()], is_quote=True))[0]

    def _enqueue(self, command: Command) -> asyncio.Future[Outcome]:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self.is_full:
            answer.set_result(self.turn_away(type(command), command.key))
        else:
            self._waiting.append(_Waiting(command, REQUEST_ID.get(), answer))
            self._arrived.set()
        return answer

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
                commands = [waiting.command for waiting in taken]
                started_ns = time.monotonic_ns()
                outcomes = await self._execute(commands, [waiting.request_id for waiting in taken])
                for waiting, outcome in zip(taken, outcomes, strict=True):
                    if not waiting.answer.done():
                        waiting.answer.set_result(outcome)
                if self._observer is not None:
                    self._observer.batch_posted(commands, outcomes, (time.monotonic_ns() - started_ns) // 1000)
            if self._closing:
                return

    async def _execute(
        self, commands: Sequence[Command], request_ids: Sequence[str | None], *, is_quote: bool = False
    ) -> list[Outcome]:
        """Runs a batch until it is committed; what fails for its own sake refuses alone."""
        sent_before: set[int] = set()
        found = MoreLocks()
        tries = Counter[_Trouble]()
        while True:
            try:
                return await self._attempt(commands, sent_before, found, is_quote=is_quote)
            except Exception as error:  # noqa: BLE001 (one command's fault must not refuse the other 499)
                trouble = _trouble_of(error)
                tries[trouble] += 1
                if tries[trouble] >= TRIES_MAX[trouble]:
                    return await self._give_up(commands, request_ids, error, trouble, is_quote=is_quote)
                if isinstance(error, LocksMissing):
                    found.add(error.locks)
                if not isinstance(error, StartOver):
                    await asyncio.sleep(tries[trouble] * PAUSE_MS[trouble] / 1000)

    async def _give_up(
        self,
        commands: Sequence[Command],
        request_ids: Sequence[str | None],
        error: Exception,
        trouble: _Trouble,
        *,
        is_quote: bool,
    ) -> list[Outcome]:
        if trouble is not _Trouble.SERVER and len(commands) > 1:
            half = len(commands) // 2
            first = await self._execute(commands[:half], request_ids[:half], is_quote=is_quote)
            return first + await self._execute(commands[half:], request_ids[half:], is_quote=is_quote)
        own_id = uuid.uuid4().hex
        requests = [request_id or own_id for request_id in request_ids]
        logger.error(
            "%d commands refused by a fault, request %s",
            len(commands),
            " ".join(dict.fromkeys(requests)),
            extra={"fault": fault_facts(error)},
        )
        return [
            Refusal(
                RefusalCode.INTERNAL_ERROR,
                f"internal error, request {request}: send the same command again, or report the request",
                None,
                command.key,
            )
            for command, request in zip(commands, requests, strict=True)
        ]

    async def _attempt(
        self,
        commands: Sequence[Command],
        sent_before: set[int],
        found: MoreLocks,
        *,
        is_quote: bool,
    ) -> list[Outcome]:
        configuration = self._configuration.held or await self._configuration.current()
        if configuration is None:
            message = "no coalition has been applied yet"
            return [Refusal(RefusalCode.TERMS_MISSING, message, None, command.key) for command in commands]
        expected = self._expected_periods(configuration, commands)
        try:
            async with self._database.batch() as connection:
                known = await self._before_locks(
                    connection, configuration, commands, expected, found, is_quote=is_quote
                )
                async with connection.transaction():
                    clock = await self._lock_periods(
                        connection, configuration, commands, expected, known, is_quote=is_quote
                    )
                    batch = Batch(clock, self._ids, known.secret, is_quote=is_quote, sent_before=sent_before)
                    await self._load(connection, batch, commands, known)
                    if is_quote:
                        outcomes = [decide(batch, command) for command in commands]
                        raise _QuoteDone(outcomes)  # noqa: TRY301 (the way out of a transaction without its commit)
                    outcomes = await decide_all(connection, batch, commands)
                    sent_before.update([row.id for row, _ in batch.accepted])
                    imported = await self._mark_imported(connection, batch)
                    await write_batch(connection, batch)
        except _QuoteDone as done:
            return done.outcomes
        self._known_windows.update(batch.budgets)
        self._imported_periods |= imported
        return outcomes

    async def _mark_imported(self, connection: BatchConnection, batch: Batch) -> set[int]:
        # Only what is accepted is history: a refused row must not move the first period (DESIGN.md section 12, 1).
        booked = {row.period_id for row, _ in batch.accepted} if self._is_history else set()
        missing = booked - self._imported_periods
        if missing:
            spans = [batch.configuration.programme.calendar.span(period_id) for period_id in missing]
            await ensure_periods(connection, spans, imported=True)
        return missing

    def _expected_periods(self, configuration: Configuration, commands: Sequence[Command]) -> set[int]:
        """The periods to lock: of the clock's reading and the next one; for history those of the rows."""
        now = self._clock()
        clock = BatchClock(configuration, now, self._first_open_id, self._is_history)
        current = max(configuration.programme.calendar.containing(now), self._first_open_id)
        if not self._is_history:
            return {current, current + 1}
        return {clock.booking(command.occurred_at or now).period_id for command in commands}

    async def _before_locks(
        self,
        connection: BatchConnection,
        configuration: Configuration,
        commands: Sequence[Command],
        expected: set[int],
        found: MoreLocks,
        *,
        is_quote: bool,
    ) -> Known:
        """Step 0: whom and what the commands mean, ids to give, and the period rows, committed before the batch."""
        asked = Asked.of(commands, configuration)
        if self._secret is None:
            self._secret = await load_secret(connection)
        await self._ids.fill(connection, len(commands) * IDS_PER_COMMAND)
        identifiers, members, merged = await resolve_members(connection, asked.identifiers, asked.member_ids)
        originals = []
        if asked.original_ids or asked.original_keys or asked.original_references:
            originals = await load_commands(
                connection, asked.original_ids, asked.original_keys, originals=asked.original_references
            )
        budget_ids = found.budget_ids | await reserved_budgets(connection, commands, originals)
        budget_ids |= await drawn_floats(connection, configuration, originals)
        if asked.account_ids:
            uses = await load_last_uses(connection, asked.account_ids)
            members.update({use.member_now.id: use.member_now for use in uses.values() if use.is_left})
        pools = await load_pools(connection, asked.pool_ids, members) if asked.may_be_pooled else {}
        posting_into = {min(expected)} if not self._is_history else expected
        if not is_quote and not posting_into <= self._known_periods:
            spans = [configuration.programme.calendar.span(period_id) for period_id in posting_into]
            await ensure_periods(connection, spans)
            self._known_periods |= posting_into
        members.update({o.member_now.id: o.member_now for o in originals if o.member_now is not None})
        return Known(self._secret, asked, identifiers, members, merged, pools, originals, budget_ids, found)

    async def _lock_periods(
        self,
        connection: BatchConnection,
        configuration: Configuration,
        commands: Sequence[Command],
        expected: set[int],
        known: Known,
        *,
        is_quote: bool,
    ) -> BatchClock:
        """Steps 1 and 2. Raises StartOver when configuration or periods are not what step 0 expected."""
        await (lock_parking if may_park(commands) else lock_shared)(connection, expected)
        state = await load_state(connection, expected)
        if state.version != configuration.programme.version:
            self._configuration.held = await load_configuration(connection)
            raise StartOver
        self._first_open_id = 0 if state.last_not_open is None else state.last_not_open + 1
        clock = BatchClock(configuration, self._clock(), self._first_open_id, self._is_history)
        targets = {clock.booking(command.occurred_at or clock.recorded_at).period_id for command in commands}
        present = set(state.present or ())
        if not targets <= expected or not (is_quote or targets <= present):
            self._known_periods &= present
            raise StartOver
        known.has_parked = state.has_parked or may_park(commands)
        return clock

    async def _load(self, connection: BatchConnection, batch: Batch, commands: Sequence[Command], known: Known) -> None:
        """Steps 3 to 6: claims, then locks on budgets and accounts, then, in new statements, what deciding needs."""
        batch.identifiers, batch.members, batch.merged = known.identifiers, known.members, known.merged
        batch.proposals = await load_adjustments(connection, commands)
        if not batch.is_quote:
            await self._claim(connection, batch, commands)
        windows = budget_windows(batch, commands, known)
        if windows or known.budget_ids:
            locked = (batch.configuration, windows, known.budget_ids, batch.clock.recorded_at)
            batch.budgets = await self._lock_budgets(connection, *locked)
        if known.account_ids:
            batch.accounts = await lock_accounts(connection, known.account_ids)
        if batch.members:
            again = await load_members(connection, batch.members)
            if any(again[m.id].account_id != m.account_id or again[m.id].merged_into for m in batch.members.values()):
                raise StartOver
            batch.members = again
        asked, original_ids = known.asked, known.original_ids
        originals = await load_commands(connection, original_ids, asked.keys, asked.references)
        for original in originals:
            batch.remember(original)
        needed = [o for o in originals if o.command.id in original_ids or o.key in asked.keys]
        needed = [o for o in needed if o.command.kind != CommandKind.ENROLL]
        if needed:
            await load_details(connection, needed)
        if asked.account_ids:
            batch.last_uses = await load_last_uses(connection, asked.account_ids)
        await load_account_changes(connection, batch, asked, commands, needed)
        lot_ids = {lot_id for original in needed for lot_id in original.lot_ids}
        lot_ids |= {lot_id for merge in batch.merges.values() for moved in merge.moved for lot_id in moved}
        lot_ids |= await load_holds(connection, batch, commands, needed)
        accounts = accounts_with_lots(batch, commands, needed)
        if accounts:
            await load_lots(connection, accounts, lot_ids)
        await load_pending(connection, batch, commands, needed, original_ids)
        if known.has_parked:
            await load_parked(connection, batch, commands, known)

    async def _claim(self, connection: BatchConnection, batch: Batch, commands: Sequence[Command]) -> None:
        claims: dict[tuple[str, str], tuple[int, int]] = {}
        for command in commands:
            if not isinstance(command, Enroll):
                continue
            try:
                wanted = enrolment_identifiers(command, batch.configuration.programme.region)
            except Refused:
                continue  # decided, and refused, in its turn
            if any(identifier in batch.identifiers for identifier in wanted):
                continue  # finds a member
            member_id = next(batch.new_ids)
            for identifier in wanted:
                claims.setdefault(identifier, (member_id, command.partner_id))
        if claims:
            if not await claim_identifiers(connection, claims):
                raise StartOver
            batch.claims = claims

    async def _lock_budgets(
        self,
        connection: BatchConnection,
        configuration: Configuration,
        windows: dict[tuple[int, int], BudgetPlan],
        budget_ids: set[int],
        now: datetime,
    ) -> dict[tuple[int, int], Budget]:
        ordered = [(windows[window], window[1]) for window in sorted(windows)]
        missing = [(plan, period_id) for plan, period_id in ordered if (plan.id, period_id) not in self._known_windows]
        if missing:
            await create_budgets(connection, missing, [next(self._ids) for _ in missing])
        return await lock_budgets(connection, ordered, budget_ids, configuration.plans_by_id, now)


def _trouble_of(error: Exception) -> _Trouble:
    if isinstance(error, StartOver):
        return _Trouble.CONTENTION
    if isinstance(error, OSError | PoolTimeoutError) or is_connection_lost(error):
        return _Trouble.SERVER
    if not isinstance(error, DBAPIError | asyncpg.PostgresError):
        return _Trouble.FAULT
    state = sqlstate(error)
    if state in CONTENTION_STATES:
        return _Trouble.CONTENTION
    from_server = state is not None and state.startswith(SERVER_CLASSES) and state != STATEMENT_TIMEOUT
    return _Trouble.SERVER if from_server else _Trouble.FAULT

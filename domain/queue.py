"""The posting queue: commands that arrive while a batch is in flight form the next one (DESIGN.md, "Group commit").

A batch is one transaction: load, decide in arrival order, write, commit, answer. This file holds the order of its
steps and what happens when one fails; what is read stands in ``loading``, what is decided in ``earning``, ``burning``,
``reversing`` and ``enrolling``, what is written in ``writing``.
"""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.batch import (
    Batch,
    BatchClock,
    Budget,
    Member,
    Original,
    StartOver,
    budget_window,
    key_of,
)
from domain.burning import decide_burn
from domain.commands import Burn, Command, CommandKind, Earn, Enroll, MemberRef, Outcome, Refusal, Reverse
from domain.database import (
    DEADLOCK,
    LOCK_TIMEOUT,
    SERIALIZATION,
    STALE_PLAN,
    UNIQUE_VIOLATION,
    Database,
    sqlstate,
)
from domain.earning import decide_earn
from domain.enrolling import decide_enroll, enrolment_identifiers
from domain.errors import LedgerFault, RefusalCode, Refused
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
from domain.periods import Clock, period_containing, period_span
from domain.reversing import decide_reverse
from domain.terms import BudgetPlan, Configuration, ConfigurationCache, load_configuration
from domain.writing import write_batch

BATCH_MAX = 500
QUEUE_MAX = 5_000
ATTEMPTS_MAX = 12
CONNECTION_ATTEMPTS_MAX = 60
RETRY_PAUSE_MS = 20
CONNECTION_PAUSE_MS = 250
IDS_PER_COMMAND = 8

TRANSIENT_STATES = frozenset({DEADLOCK, SERIALIZATION, LOCK_TIMEOUT, STALE_PLAN, UNIQUE_VIOLATION})
"""The whole batch again from step 0: after a unique violation the winner is visible there."""

CONNECTION_CLASSES = ("08", "53", "57", "58")
"""Classes of SQLSTATE that say that the server went away, is starting or has no room: the same batch again, later."""

logger = logging.getLogger(__name__)


class _QuoteDone(Exception):
    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes


class _Ids(Iterator[int]):
    """Ids for new rows, out of blocks that were fetched before the batch began."""

    def __init__(self) -> None:
        self._left: deque[int] = deque()
        self.wanted = 0

    def __next__(self) -> int:
        if not self._left:
            self.wanted *= 2
            raise StartOver
        return self._left.popleft()

    async def fill(self, connection: AsyncConnection, wanted: int) -> None:
        """Makes sure that at least ``wanted`` ids are at hand, or as many as a batch ran out of before."""
        self.wanted = max(self.wanted, wanted)
        while len(self._left) < self.wanted:
            self._left.extend(await next_id_block(connection))


@dataclass(slots=True)
class _Waiting:
    command: Command
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
    ) -> None:
        """``is_history`` books each command into the period in which it occurred (``--booking occurred``)."""
        self._database = database
        self._configuration = configuration
        self._clock = clock
        self._is_history = is_history
        self._queue_max = queue_max
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._worker: asyncio.Task[None] | None = None
        self._ids = _Ids()
        self._secret: bytes | None = None
        self._first_open_id = 0
        self._known_periods: set[int] = set()
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

    async def post(self, command: Command) -> Outcome:
        """Posts one command and answers when it is committed. A caller that goes away does not cancel its posting."""
        return await self._enqueue(command)

    async def post_many(self, commands: Sequence[Command]) -> list[Outcome]:
        """Posts commands in order, each on its own; answers in the same order."""
        return list(await asyncio.gather(*[self._enqueue(command) for command in commands]))

    async def quote(self, command: Earn | Burn) -> Outcome:
        """What posting the command now would answer; nothing is written, its key is neither looked at nor used."""
        return (await self._execute([command], is_quote=True))[0]

    def _enqueue(self, command: Command) -> asyncio.Future[Outcome]:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._closing or len(self._waiting) >= self._queue_max:
            message = "too many commands are waiting: send this one again in a moment, with the same key"
            answer.set_result(Refusal(RefusalCode.OVERLOADED, message, None, command.key))
        else:
            self._waiting.append(_Waiting(command, answer))
            self._arrived.set()
        return answer

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
                outcomes = await self._execute([waiting.command for waiting in taken])
                for waiting, outcome in zip(taken, outcomes, strict=True):
                    if not waiting.answer.done():
                        waiting.answer.set_result(outcome)
            if self._closing:
                return

    async def _execute(self, commands: Sequence[Command], *, is_quote: bool = False) -> list[Outcome]:
        """Runs a batch until it is committed; what fails for its own sake refuses alone."""
        sent_before: dict[tuple[int, str], set[int]] = {}
        attempts = lost = 0
        while attempts < ATTEMPTS_MAX and lost < CONNECTION_ATTEMPTS_MAX:
            try:
                return await self._attempt(commands, sent_before, is_quote=is_quote)
            except StartOver:
                attempts += 1
            except (DBAPIError, OSError) as error:
                if _is_lost_connection(error):
                    # Also when it was lost at COMMIT: the same keys again find out whether it was done.
                    lost += 1
                    await asyncio.sleep(CONNECTION_PAUSE_MS / 1000)
                elif isinstance(error, DBAPIError) and sqlstate(error) in TRANSIENT_STATES:
                    attempts += 1
                    await asyncio.sleep(attempts * RETRY_PAUSE_MS / 1000)
                else:
                    return await self._bisect(commands, error, is_quote=is_quote)
            except Exception as error:  # noqa: BLE001 (one command's fault must not refuse the other 499)
                return await self._bisect(commands, error, is_quote=is_quote)
        return await self._bisect(commands, LedgerFault("the batch could not be posted"), is_quote=is_quote)

    async def _bisect(self, commands: Sequence[Command], error: Exception, *, is_quote: bool) -> list[Outcome]:
        if len(commands) > 1:
            half = len(commands) // 2
            first = await self._execute(commands[:half], is_quote=is_quote)
            return first + await self._execute(commands[half:], is_quote=is_quote)
        request_id = uuid.uuid4().hex
        logger.error("command refused by a fault, request %s", request_id, exc_info=error)
        message = f"internal error, request {request_id}: send the same command again, or report the request"
        return [Refusal(RefusalCode.INTERNAL_ERROR, message, None, commands[0].key)]

    async def _attempt(
        self,
        commands: Sequence[Command],
        sent_before: dict[tuple[int, str], set[int]],
        *,
        is_quote: bool,
    ) -> list[Outcome]:
        configuration = self._configuration.held or await self._configuration.current()
        if configuration is None:
            message = "no coalition has been applied yet"
            return [Refusal(RefusalCode.TERMS_MISSING, message, None, command.key) for command in commands]
        expected = self._expected_periods(configuration, commands)
        known = await self._before_locks(configuration, commands, expected, is_quote=is_quote)
        try:
            async with self._database.posting() as connection:
                clock = await self._lock_periods(connection, configuration, commands, expected, is_quote=is_quote)
                batch = Batch(clock, self._ids, known.secret, is_quote=is_quote, sent_before=sent_before)
                await self._load(connection, batch, commands, known)
                outcomes = [_decide(batch, command) for command in commands]
                if is_quote:
                    raise _QuoteDone(outcomes)  # noqa: TRY301 (the way out of a transaction without its commit)
                for row, _ in batch.new_commands:
                    sent_before.setdefault((row.partner_id, row.key), set()).add(row.id)
                await write_batch(connection, batch)
        except _QuoteDone as done:
            return done.outcomes
        self._known_windows.update(batch.budgets)
        return outcomes

    def _expected_periods(self, configuration: Configuration, commands: Sequence[Command]) -> set[int]:
        """The periods to lock: of the clock's reading and the next one; for history those of the rows."""
        now = self._clock()
        clock = BatchClock(configuration, now, self._first_open_id, self._is_history)
        current = max(period_containing(now, configuration.programme.zone), self._first_open_id)
        if not self._is_history:
            return {current, current + 1}
        return {clock.booking(command.occurred_at or now).period_id for command in commands}

    async def _before_locks(
        self, configuration: Configuration, commands: Sequence[Command], expected: set[int], *, is_quote: bool
    ) -> "_Known":
        """Step 0: whom and what the commands mean, ids to give, and the period rows, committed before the batch."""
        region = configuration.programme.region
        asked = _Asked.of(commands, region)
        async with self._database.posting() as connection:
            if self._secret is None:
                self._secret = await load_secret(connection)
            await self._ids.fill(connection, len(commands) * IDS_PER_COMMAND)
            identifiers, members = await resolve_members(connection, asked.identifiers, asked.member_ids)
            originals = []
            if asked.reversal_ids or asked.reversal_keys or asked.reversal_references:
                originals = await load_commands(
                    connection, asked.reversal_ids, asked.reversal_keys, asked.reversal_references
                )
        posting_into = {min(expected)} if not self._is_history else expected
        if not is_quote and not posting_into <= self._known_periods:
            async with self._database.posting() as connection:
                spans = [period_span(period_id, configuration.programme.zone) for period_id in posting_into]
                await ensure_periods(connection, spans, imported=self._is_history)
            self._known_periods |= posting_into
        accounts = {member.account_id for member in members.values()}
        accounts.update(original.command.account_id for original in originals)
        return _Known(self._secret, asked, identifiers, members, accounts, {o.command.id for o in originals})

    async def _lock_periods(
        self,
        connection: AsyncConnection,
        configuration: Configuration,
        commands: Sequence[Command],
        expected: set[int],
        *,
        is_quote: bool,
    ) -> BatchClock:
        """Steps 1 and 2. Raises StartOver when configuration or periods are not what step 0 expected."""
        await lock_shared(connection, expected)
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
        return clock

    async def _load(
        self, connection: AsyncConnection, batch: Batch, commands: Sequence[Command], known: "_Known"
    ) -> None:
        """Steps 3 to 6: claims, then locks on budgets and accounts, then, in new statements, what deciding needs."""
        batch.identifiers, batch.members = known.identifiers, known.members
        if not batch.is_quote:
            await self._claim(connection, batch, commands)
        windows = _windows(batch, commands)
        if windows:
            batch.budgets = await self._lock_budgets(connection, windows)
        if known.accounts:
            batch.accounts = await lock_accounts(connection, known.accounts)
        if batch.members:
            again = await load_members(connection, batch.members)
            if any(again[m.id].account_id != m.account_id for m in batch.members.values()):
                raise StartOver
            batch.members = again
        asked = known.asked
        keys = asked.reversal_keys if batch.is_quote else asked.reversal_keys | {key_of(c) for c in commands}
        originals = await load_commands(
            connection, known.original_ids, keys, asked.references | asked.reversal_references
        )
        for original in originals:
            batch.remember(original)
        needed = [o for o in originals if _needs_details(o, known.original_ids, keys)]
        if needed:
            await load_details(connection, needed)
        await _load_lots(connection, batch, commands, needed)

    async def _claim(self, connection: AsyncConnection, batch: Batch, commands: Sequence[Command]) -> None:
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
        self, connection: AsyncConnection, windows: dict[tuple[int, int], BudgetPlan]
    ) -> dict[tuple[int, int], Budget]:
        ordered = [(windows[window], window[1]) for window in sorted(windows)]
        missing = [(plan, period_id) for plan, period_id in ordered if (plan.id, period_id) not in self._known_windows]
        if missing:
            await create_budgets(connection, missing, [next(self._ids) for _ in missing])
        return await lock_budgets(connection, ordered)


@dataclass(slots=True)
class _Asked:
    """What the commands of a batch name, by kind of name."""

    identifiers: set[tuple[str, str]]
    member_ids: set[int]
    references: set[tuple[int, str]]
    reversal_ids: set[int]
    reversal_keys: set[tuple[int, str]]
    reversal_references: set[tuple[int, str]]

    @classmethod
    def of(cls, commands: Sequence[Command], region: str) -> "_Asked":
        """Collects the names; an enrolment's identifiers that cannot be are left to its decision."""
        asked = cls(set(), set(), set(), set(), set(), set())
        for command in commands:
            if isinstance(command, Enroll):
                try:
                    asked.identifiers.update(enrolment_identifiers(command, region))
                except Refused:
                    continue
            elif isinstance(command, Reverse):
                asked._add_original(command)
            else:
                asked._add_member(command.member)
                asked.references.add((command.partner_id, command.reference))
        return asked

    def _add_member(self, ref: MemberRef) -> None:
        if ref.member_id is not None:
            self.member_ids.add(ref.member_id)
        if ref.identifier is not None:
            self.identifiers.add(ref.identifier)

    def _add_original(self, command: Reverse) -> None:
        ref = command.original
        if ref.command_id is not None:
            self.reversal_ids.add(ref.command_id)
        if ref.key is not None:
            self.reversal_keys.add((command.partner_id, ref.key))
        if ref.reference is not None:
            self.reversal_references.add((command.partner_id, ref.reference))


@dataclass(slots=True)
class _Known:
    """What step 0 found."""

    secret: bytes
    asked: _Asked
    identifiers: dict[tuple[str, str], int]
    members: dict[int, Member]
    accounts: set[int]
    original_ids: set[int]


def _is_lost_connection(error: Exception) -> bool:
    if isinstance(error, DBAPIError):
        state = sqlstate(error)
        return (
            error.connection_invalidated
            or isinstance(error, InterfaceError)
            or (state is not None and state.startswith(CONNECTION_CLASSES))
        )
    return isinstance(error, OSError)


def _windows(batch: Batch, commands: Sequence[Command]) -> dict[tuple[int, int], BudgetPlan]:
    """The budget windows that purchases and returns of this batch draw on or credit."""
    windows = {}
    for command in commands:
        if isinstance(command, Earn | Reverse):
            booking = batch.clock.booking(command.occurred_at)
            plan = batch.configuration.plan_on(command.partner_id, booking.day)
            if plan is not None:
                windows[budget_window(plan, booking)] = plan
    return windows


def _needs_details(original: Original, reversal_ids: set[int], keys: set[tuple[int, str]]) -> bool:
    command = original.command
    return command.kind != CommandKind.ENROLL and (
        command.id in reversal_ids or (command.partner_id, command.key) in keys
    )


async def _load_lots(
    connection: AsyncConnection, batch: Batch, commands: Sequence[Command], originals: Sequence[Original]
) -> None:
    """Lots where points may be taken or restored, and where some may be past and must not count."""
    instants = [batch.clock.expiry_instant(c.occurred_at or batch.clock.recorded_at) for c in commands]
    horizon = max(instants)
    wanted = {original.command.account_id for original in originals}
    for command in commands:
        if isinstance(command, Burn):
            member = _member_of(batch, command.member)
            wanted.update(() if member is None else (member.account_id,))
        elif isinstance(command, Reverse):
            found = batch.by_key.get((command.partner_id, command.original.key or ""))
            wanted.update(() if found is None else (found.command.account_id,))
    accounts = [
        account
        for account in batch.accounts.values()
        if account.id in wanted or (account.next_expires_at is not None and account.next_expires_at <= horizon)
    ]
    lot_ids = {award.lot_id for original in originals for award in original.awards if award.lot_id is not None}
    lot_ids.update(use.lot_id for original in originals for use in original.uses)
    if accounts:
        await load_lots(connection, accounts, lot_ids)


def _member_of(batch: Batch, ref: MemberRef) -> Member | None:
    member_id = ref.member_id if ref.identifier is None else batch.identifiers.get(ref.identifier)
    return None if member_id is None else batch.members.get(member_id)


def _decide(batch: Batch, command: Command) -> Outcome:
    try:
        if isinstance(command, Enroll):
            return decide_enroll(batch, command)
        if isinstance(command, Earn):
            return decide_earn(batch, command, _member_of(batch, command.member))
        if isinstance(command, Burn):
            return decide_burn(batch, command, _member_of(batch, command.member))
        return decide_reverse(batch, command)
    except Refused as refused:
        return Refusal(refused.code, refused.message, refused.field, command.key)

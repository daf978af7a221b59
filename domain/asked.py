"""What the commands of a batch name: what is looked up before and under its locks.

Only what can stand in the database is looked up: a name that cannot be stored finds nothing, and would fail the
statement for the whole batch. Its command is refused when it is decided.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from domain.accounts import Pool
from domain.batch import Batch, Member, Original, StartOver, budget_window, is_key, is_reference, store_id_of
from domain.campaign_awards import campaign_windows
from domain.commands import (
    Adjust,
    Authorize,
    Burn,
    Capture,
    Command,
    CommandKind,
    ConfirmPayment,
    CreatePool,
    Earn,
    Enroll,
    JoinPool,
    LeavePool,
    MemberRef,
    Merge,
    OriginalRef,
    Reverse,
    Sweep,
    Transfer,
    Unmerge,
    Void,
)
from domain.enrolling import enrolment_identifiers
from domain.errors import Refused
from domain.loading import AskedOriginal
from domain.lots import Account, Charge
from domain.standing import standing_id
from domain.terms import BudgetPlan, Configuration

REVERSIBLE = (CommandKind.EARN, CommandKind.BURN, CommandKind.CAPTURE)
RESOLVABLE = (CommandKind.AUTHORIZATION,)


def reversible(ref: OriginalRef) -> tuple[CommandKind, ...]:
    """Kinds of command that a reversal may mean; to a till the burn of an authorized one is its capture."""
    if ref.kind is None:
        return REVERSIBLE
    return (CommandKind.BURN, CommandKind.CAPTURE) if ref.kind == CommandKind.BURN else (ref.kind,)


def _meant(command: Reverse | ConfirmPayment | Capture | Void | Unmerge) -> tuple[CommandKind, ...]:
    if isinstance(command, Reverse):
        return reversible(command.original)
    if isinstance(command, ConfirmPayment):
        return (CommandKind.EARN,)
    return (CommandKind.MERGE,) if isinstance(command, Unmerge) else RESOLVABLE


@dataclass(slots=True)
class Asked:
    """What the commands of a batch name, by kind of name."""

    identifiers: set[tuple[str, str]] = field(default_factory=set)
    member_ids: set[int] = field(default_factory=set)
    keys: set[tuple[int, str]] = field(default_factory=set)
    """Of every command: what was posted under them is a replay or a conflict."""

    references: set[tuple[int, str]] = field(default_factory=set)
    """Of purchases and burns, to be looked up among those that must be unique."""

    original_ids: set[int] = field(default_factory=set)
    original_keys: set[tuple[int, str]] = field(default_factory=set)
    """Of what is to be reversed, paid or resolved, and of these commands: sent again they mean what they did before."""

    original_references: set[AskedOriginal] = field(default_factory=set)
    account_ids: set[int] = field(default_factory=set)
    """Of accounts to be swept."""

    pool_ids: set[int] = field(default_factory=set)
    may_be_pooled: bool = False
    """Whether it matters in which pools the members are."""

    @classmethod
    def of(cls, commands: Sequence[Command], configuration: Configuration) -> "Asked":
        """Collects the names of these commands."""
        asked = cls()
        for command in commands:
            if isinstance(command, Sweep):
                asked.account_ids.add(command.account_id)
                continue
            if is_key(command.key):
                asked.keys.add((command.partner_id, command.key))
            if isinstance(command, Enroll):
                asked._add_enrolment(command, configuration)
            elif isinstance(command, Reverse | ConfirmPayment | Capture | Void | Unmerge):
                asked._add_original(command, configuration)
            elif isinstance(command, Transfer | Merge | CreatePool | JoinPool | LeavePool):
                asked._add_account_change(command)
            elif isinstance(command, Adjust):
                asked._add_member(command.member)
                asked.original_keys.add((command.partner_id, command.key))
            else:
                asked._add_member(command.member)
                if isinstance(command, Authorize):
                    # A replay shows the hold, and its account need not be the member's any more.
                    asked.original_keys.add((command.partner_id, command.key))
                if is_reference(command.reference):
                    asked.references.add((command.partner_id, command.reference))
        return asked

    def _add_enrolment(self, command: Enroll, configuration: Configuration) -> None:
        try:
            self.identifiers.update(enrolment_identifiers(command, configuration.programme.region))
        except Refused:
            return

    def _add_member(self, ref: MemberRef) -> None:
        if ref.member_id is not None:
            self.member_ids.add(ref.member_id)
        if ref.identifier is not None:
            self.identifiers.add(ref.identifier)

    def _add_account_change(self, command: Transfer | Merge | CreatePool | JoinPool | LeavePool) -> None:
        if isinstance(command, Transfer):
            members = [command.source, command.target]
        elif isinstance(command, Merge):
            members = [command.keep, command.duplicate]
        else:
            members = [command.member]
        for member in members:
            self._add_member(member)
        self.may_be_pooled |= not isinstance(command, Transfer)
        if isinstance(command, JoinPool):
            self.pool_ids.add(command.pool_id)

    def _add_original(
        self, command: Reverse | ConfirmPayment | Capture | Void | Unmerge, configuration: Configuration
    ) -> None:
        ref = command.original
        if is_key(command.key):
            self.original_keys.add((command.partner_id, command.key))
        if ref.command_id is not None:
            self.original_ids.add(ref.command_id)
        if ref.key is not None and is_key(ref.key):
            self.original_keys.add((command.partner_id, ref.key))
        if ref.reference is not None and is_reference(ref.reference):
            try:
                store_id = store_id_of(configuration, command.partner_id, ref.store)
            except Refused:
                return
            self.original_references.add(AskedOriginal(command.partner_id, ref.reference, _meant(command), store_id))


@dataclass(slots=True)
class MoreLocks:
    """What a batch needs locked beside what its commands name: windows by their ids, accounts, and windows credited.

    ``charges``: of awards that are taken back because of what the batch does.
    """

    budget_ids: set[int] = field(default_factory=set)
    account_ids: set[int] = field(default_factory=set)
    charges: set[Charge] = field(default_factory=set)

    def add(self, found: "MoreLocks") -> None:
        """Adds what a later attempt found."""
        self.budget_ids |= found.budget_ids
        self.account_ids |= found.account_ids
        self.charges |= found.charges


class LocksMissing(StartOver):
    """Under its locks the batch found that it needs these too: begin again, and lock them with the others."""

    def __init__(self, locks: MoreLocks) -> None:
        super().__init__()
        self.locks = locks


@dataclass(slots=True)
class Known:
    """What step 0 found: whom and what the names mean, and so what is to be locked."""

    secret: bytes
    asked: Asked
    identifiers: dict[tuple[str, str], int]
    members: dict[int, Member]
    """Also those of the originals."""

    merged: dict[int, int]
    pools: dict[int, Pool]
    originals: Sequence[Original]
    budget_ids: set[int]
    """Windows beside those of the bookings: pending awards reserved money of them."""

    found: MoreLocks
    """What earlier attempts found that they did not lock."""

    has_parked: bool = False
    """Known under the locks: reversals wait for originals that did not arrive, or may have to."""

    @property
    def account_ids(self) -> set[int]:
        """Accounts that the batch may change."""
        accounts = {member.account_id for member in self.members.values()}
        for pool in self.pools.values():
            accounts.add(pool.account_id)
            accounts.update(one.home_account_id for one in pool.members.values() if one.member_id in self.members)
        accounts |= {original.command.account_id for original in self.originals}
        return accounts | self.asked.account_ids | self.found.account_ids

    @property
    def original_ids(self) -> set[int]:
        """Commands that the batch may reverse or confirm, or by which it did so before."""
        return {original.command.id for original in self.originals}


def budget_windows(batch: Batch, commands: Sequence[Command], known: Known) -> dict[tuple[int, int], BudgetPlan]:
    """The budget windows that purchases and returns of this batch may draw on or credit."""
    bookings = {(c.partner_id, batch.clock.booking(c.occurred_at)) for c in commands if isinstance(c, (Earn, Reverse))}
    windows = {}
    for partner_id, booking in bookings:
        plan = batch.configuration.plan_on(partner_id, booking.day)
        if plan is not None:
            windows[budget_window(plan, booking)] = plan
    if batch.configuration.campaigns:
        windows.update(campaign_windows(batch, commands, known.originals))
    if known.found.charges:
        windows.update(credited_windows(batch, commands, known.found.charges))
    return windows


def credited_windows(
    batch: Batch, commands: Sequence[Command], charges: Iterable[Charge]
) -> dict[tuple[int, int], BudgetPlan]:
    """The windows that returns of awards charged so would credit, where commands of this batch brought them about."""
    bookings = {batch.clock.booking(command.occurred_at or batch.clock.recorded_at) for command in commands}
    windows = {}
    for charge in charges:
        campaign = None if charge.rule_id is None else batch.configuration.campaigns_by_id.get(charge.rule_id)
        for booking in bookings:
            plan = None if campaign is None else campaign.budget
            plan = plan or batch.configuration.plan_on(charge.funder_id, booking.day)
            if plan is not None:
                windows[budget_window(plan, booking)] = plan
    return windows


def accounts_with_lots(batch: Batch, commands: Sequence[Command], originals: Sequence[Original]) -> list[Account]:
    """The accounts whose lots deciding needs: points may be taken or restored there, or some may be past by now."""
    horizon = batch.clock.expiry_instant(max([c.occurred_at or batch.clock.recorded_at for c in commands]))
    rolls = batch.configuration.programme.rolling_lots
    wanted = {original.command.account_id for original in originals}
    members = [batch.members.get(standing_id(batch, original)) for original in originals]
    wanted.update(member.account_id for member in members if member is not None)
    for command in commands:
        if isinstance(command, Burn | Authorize | Transfer | Adjust) or (rolls and isinstance(command, Earn)):
            member = member_of(batch, command.source if isinstance(command, Transfer) else command.member)
            wanted.update(() if member is None else (member.account_id,))
        elif isinstance(command, CreatePool | JoinPool | LeavePool):
            member = member_of(batch, command.member)
            wanted.update(() if member is None else (member.account_id,))
        elif isinstance(command, Merge):
            members = [member_of(batch, ref) for ref in (command.keep, command.duplicate)]
            wanted.update(member.account_id for member in members if member is not None)
        elif isinstance(command, Sweep):
            wanted.add(command.account_id)
    return [
        account
        for account in batch.accounts.values()
        if account.id in wanted or (account.next_expires_at is not None and account.next_expires_at <= horizon)
    ]


def accounts_with_holds(batch: Batch, commands: Sequence[Command], originals: Sequence[Original]) -> list[int]:
    """Accounts where points are held and out of which some are to be burned or returned, or that are swept, or roll."""
    returns = any(isinstance(command, Reverse) for command in commands)
    rolls = batch.configuration.programme.rolling_lots
    earns = returns or rolls
    members = [
        member_of(batch, command.member)
        for command in commands
        if isinstance(command, Burn | Authorize) or (earns and isinstance(command, Earn))
    ]
    if returns:
        members += [batch.members.get(standing_id(batch, original)) for original in originals]
    accounts = {member.account_id for member in members if member is not None}
    accounts |= {command.account_id for command in commands if isinstance(command, Sweep)}
    if returns or rolls:
        # A capture is a use of its account: what other holds keep there rolls, too.
        accounts |= {original.command.account_id for original in originals}
    return sorted(account.id for account in batch.accounts.values() if account.held and account.id in accounts)


def authorizations_of(batch: Batch, originals: Sequence[Original]) -> list[int]:
    """The authorizations among these commands whose holds deciding needs."""
    return [
        original.command.id
        for original in originals
        # One that another process committed under a key of this batch may belong to an account that nobody locked.
        if original.command.kind == CommandKind.AUTHORIZATION and original.command.account_id in batch.accounts
    ]


def member_of(batch: Batch, ref: MemberRef) -> Member | None:
    """Whom a command names, as far as the batch knows by now."""
    member_id = ref.member_id if ref.identifier is None else batch.identifiers.get(ref.identifier)
    return None if member_id is None else batch.members.get(batch.merged.get(member_id, member_id))

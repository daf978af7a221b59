"""What a batch of commands knows and what it will write: the state that deciding reads and changes, in arrival order.

Everything here was loaded under the batch's locks or was made by an earlier command of the same batch. A decision
checks everything first and changes state last, so that a refused command leaves no trace.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from domain.accounts import MergeChange, MergeRecord, Pool, PoolChange
from domain.awards import NOTHING_RETURNED, RatedLine, Returned
from domain.batch_clock import BatchClock, Booking
from domain.commands import BudgetView, CommandKind, CommandRow, MovementKind, OriginalRef, StoreRef
from domain.errors import RefusalCode, Refused
from domain.lots import Account, Hold, Lot, PendingAward
from domain.members import is_clean_text
from domain.parked import Parked
from domain.positions import Contribution
from domain.proposals import Decision, Proposal
from domain.terms import BudgetPlan, Configuration, Partner, Terms
from domain.values import NO_STORE_ID

KEY_MAX_CHARACTERS = 200
REFERENCE_MAX_CHARACTERS = 200
CHANNEL_MAX_CHARACTERS = 50
REASON_MAX_CHARACTERS = 500
REFERENCED = frozenset({CommandKind.EARN, CommandKind.BURN, CommandKind.AUTHORIZATION, CommandKind.CAPTURE})
"""Kinds of command that their reference may name later."""

SYSTEM_KEY_PREFIX = "system:"
"""Keys of commands that no caller sent; callers cannot use it."""


class StartOver(Exception):
    """What the batch assumed before its locks no longer holds: begin again from step 0."""


@dataclass(slots=True)
class Member:
    """A member as the batch sees it."""

    id: int
    account_id: int
    state: str
    merged_into: int | None = None
    burn_limit: int | None = None
    """Most points that it may burn of its pool on one local day."""


class LastUse(NamedTuple):
    """Who used an account last, who stands for that member now, and whether nobody uses the account any more."""

    member_id: int
    member_now: Member
    is_left: bool


@dataclass(slots=True)
class Budget:
    """One locked budget window and its plan."""

    id: int
    plan: BudgetPlan
    period_id: int
    limit_micro: int
    overdraft_micro: int
    consumed_micro: int
    reserved_micro: int
    alerted_at: datetime | None
    is_changed: bool = False

    @property
    def available_micro(self) -> int:
        """Limit (+ approved overdraft) - consumed - reserved (SETTLEMENT.md c.4)."""
        return self.limit_micro + self.overdraft_micro - self.consumed_micro - self.reserved_micro

    def draw(self, amount_micro: int, now: datetime) -> None:
        """Consumes (negative: credits), and notes crossing the alert threshold, once per crossing."""
        self.consumed_micro += amount_micro
        self._note_use(now)

    def reserve(self, amount_micro: int, now: datetime) -> None:
        """Sets money aside for a pending award (negative: sets it free); counts for the alert as consuming does."""
        self.reserved_micro += amount_micro
        self._note_use(now)

    def consume_reserved(self, amount_micro: int) -> None:
        """Consumes what was set aside: the use of the window stays as it is, and so does its alert."""
        self.reserved_micro -= amount_micro
        self.consumed_micro += amount_micro
        self.is_changed = True

    def _note_use(self, now: datetime) -> None:
        self.is_changed = True
        if not self.plan.is_alert(self.limit_micro, self.consumed_micro + self.reserved_micro):
            self.alerted_at = None
        elif self.alerted_at is None:
            self.alerted_at = now

    def view(self) -> BudgetView:
        """As receipts show it."""
        return BudgetView(
            self.plan.partner_id, self.limit_micro, self.overdraft_micro, self.consumed_micro, self.reserved_micro,
            self.alerted_at, self.plan.funding, self.id,
        )  # fmt: skip


@dataclass(slots=True)
class StoredAward:
    """One award of an original purchase: what was granted, on which terms, by whom, into which lot.

    ``is_pending``: it began pending, and its lot exists once ``pending``, which is loaded then, is confirmed.
    """

    transaction_id: int
    rule_id: int | None
    requested: int
    granted: int
    funder_id: int
    terms_id: int
    budget_id: int | None
    lot_id: int | None
    is_pending: bool = False
    pending: PendingAward | None = None


@dataclass(slots=True)
class BurnUse:
    """One lot that paid for an original burn, and how much of that was given back since."""

    lot_id: int
    points: int
    restored: int


@dataclass(slots=True)
class Original:
    """A command that may be reversed (or replayed), with what its reversals did so far."""

    command: CommandRow
    fingerprint: bytes
    lines: tuple[RatedLine, ...] | None
    created_member: bool = False
    member_now: Member | None = None
    """Its member, or who stands for it since a merge, as stored; None where the command is of this batch."""

    is_left: bool = False
    """Whether no member uses its account any more: what comes back to it belongs elsewhere."""

    awards: list[StoredAward] = field(default_factory=list)
    burn_transaction_id: int | None = None
    burn_terms_id: int | None = None
    uses: list[BurnUse] = field(default_factory=list)
    returned: Returned = NOTHING_RETURNED
    is_returned: bool = False
    shortfall_points: int = 0
    has_details: bool = True
    """False while a stored one was found for its key or reference alone: nobody may reverse it then."""

    @property
    def key(self) -> tuple[int, str]:
        """What makes a command unique: its partner and idempotency key."""
        return (self.command.partner_id, self.command.key)

    @property
    def lot_ids(self) -> set[int]:
        """The lots of its awards, or those that paid for it."""
        return {award.lot_id for award in self.awards if award.lot_id is not None} | {use.lot_id for use in self.uses}


class TransactionRow(NamedTuple):
    """A row of ``transaction``; fields in the order of ledger.HASHED_TRANSACTION_COLUMNS, signs as the table says."""

    account_id: int
    id: int
    command_id: int
    kind: MovementKind
    period_id: int
    partner_id: int
    party_id: int
    funder_id: int | None
    issuer_id: int | None
    store_id: int
    points: int
    requested_points: int
    shortfall_points: int
    issue_value_micro: int
    service_fee_micro: int
    reimbursement_micro: int
    breakage_share_micro: int
    pool_value_micro: int
    budget_id: int | None
    budget_micro: int
    terms_id: int | None
    rule_id: int | None
    lot_id: int | None
    reverses_id: int | None
    reverses_period_id: int | None
    occurred_at: datetime
    recorded_at: datetime


class LotUseRow(NamedTuple):
    """A row of ``lot_use``."""

    account_id: int
    id: int
    lot_id: int
    transaction_id: int
    kind: MovementKind
    points: int
    period_id: int
    issuer_id: int
    funder_id: int
    redeemer_id: int | None
    price_micro: int


class CommandInput(NamedTuple):
    """The columns of ``command`` beside those of CommandRow."""

    fingerprint: bytes
    reference_unique: bool
    eligible_minor: int | None = None
    lines: str | None = None
    whole: bool = False
    input_digest: str | None = None
    created_member: bool = False


@dataclass(frozen=True, slots=True)
class NewMember:
    """A member that an enrolment of this batch makes; its identifiers were claimed before deciding."""

    id: int
    account_id: int
    partner_id: int
    store_id: int
    channel: str | None
    attributes: tuple[tuple[str, str], ...]
    enrolled_at: datetime
    identifiers: tuple[tuple[str, str], ...]


@dataclass
class Batch:
    """State of one batch. Maps are what was loaded plus what earlier commands added; lists are what will be written."""

    clock: BatchClock
    new_ids: Iterator[int]
    secret: bytes
    members: dict[int, Member] = field(default_factory=dict)
    identifiers: dict[tuple[str, str], int] = field(default_factory=dict)
    claims: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """Identifiers claimed before deciding -> (member, partner) that claimed them."""
    accounts: dict[int, Account] = field(default_factory=dict)
    merged: dict[int, int] = field(default_factory=dict)
    """Members that were merged -> who stands for them."""

    merged_with: dict[int, set[int]] = field(default_factory=dict)
    """Of members that commands name which are sent again: who was merged into them, and who once stood for them."""

    merges: dict[int, MergeRecord] = field(default_factory=dict)
    """Merges that may be undone, and those of this batch, by their commands."""

    merge_changes: list[MergeChange] = field(default_factory=list)
    pools: dict[int, Pool] = field(default_factory=dict)
    pool_changes: list[PoolChange] = field(default_factory=list)
    left_accounts: dict[int, bool] = field(default_factory=dict)
    """Accounts that this batch left without a member, or took into use again."""

    last_uses: dict[int, LastUse] = field(default_factory=dict)
    """Of accounts that are swept."""

    owing: set[int] = field(default_factory=set)
    """Accounts that owe points, or did before this batch."""

    budgets: dict[tuple[int, int], Budget] = field(default_factory=dict)
    by_key: dict[tuple[int, str], Original] = field(default_factory=dict)
    by_id: dict[int, Original] = field(default_factory=dict)
    by_reference: dict[tuple[int, str], list[Original]] = field(default_factory=dict)
    taken_references: set[tuple[int, str, CommandKind, int]] = field(default_factory=set)
    new_members: list[NewMember] = field(default_factory=list)
    new_commands: list[tuple[CommandRow, CommandInput]] = field(default_factory=list)
    new_transactions: list[TransactionRow] = field(default_factory=list)
    new_lots: list[Lot] = field(default_factory=list)
    new_lot_uses: list[LotUseRow] = field(default_factory=list)
    new_awards: list[PendingAward] = field(default_factory=list)
    new_holds: list[Hold] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    written_commands: list[tuple[CommandRow, CommandInput]] = field(default_factory=list)
    """What was written ahead of the batch's end is here, and no longer among the new."""

    proposals: dict[int, Proposal] = field(default_factory=dict)
    """Locked proposals of the batch's adjustments, as they stand after what was decided so far."""

    decisions: list[tuple[int, Decision]] = field(default_factory=list)
    """Those that were approved here, by the proposal's id."""

    on_floats: list[TransactionRow] = field(default_factory=list)
    """Of what is written: what draws on floats, or gives back to them."""

    position_changes: list[tuple[int, Contribution]] = field(default_factory=list)
    """Of what is written: (period, contribution)."""

    burned_today: dict[int, int] = field(default_factory=dict)
    """Points that members burned of their pool since local midnight; only of those who have a limit."""

    moved_today: dict[int, int] = field(default_factory=dict)
    """Points that partners moved away from a member since local midnight; only where the programme limits them."""

    is_quote: bool = False
    sent_before: set[int] = field(default_factory=set)
    """Ids that earlier attempts of this very batch gave commands: found again after a lost commit, no replay."""

    first_answers: set[int] = field(default_factory=set)
    """Those of them that were answered as first postings: whoever asks for one again gets a replay."""

    @cached_property
    def configuration(self) -> Configuration:
        """The configuration that prices this batch."""
        return self.clock.configuration

    @property
    def accepted(self) -> list[tuple[CommandRow, CommandInput]]:
        """Every command that the batch accepted so far, written or not."""
        return self.written_commands + self.new_commands

    def partner(self, partner_id: int) -> Partner:
        """The calling partner. A client's partner always exists: clients are made for partners of the file."""
        return self.configuration.partners[partner_id]

    def store_id(self, partner_id: int, store: StoreRef) -> int:
        """The store a command names, 0 for none. Raises Refused(STORE_NOT_FOUND)."""
        return store_id_of(self.configuration, partner_id, store)

    def check_key(self, key: str) -> None:
        """Raises Refused(INPUT_INVALID) for a key that cannot be stored, or that is reserved."""
        if not is_key(key) or key.startswith(SYSTEM_KEY_PREFIX):
            message = (
                f"an idempotency key has 1 to {KEY_MAX_CHARACTERS} printable characters and does not begin with "
                f'"{SYSTEM_KEY_PREFIX}"'
            )
            raise Refused(RefusalCode.INPUT_INVALID, message, "idempotencyKey")

    def check_channel(self, channel: str | None) -> None:
        """Raises Refused(INPUT_INVALID) for a channel that cannot be stored."""
        if channel is not None and not is_clean_text(channel, CHANNEL_MAX_CHARACTERS):
            message = f"a channel has 1 to {CHANNEL_MAX_CHARACTERS} printable characters"
            raise Refused(RefusalCode.INPUT_INVALID, message, "channel")

    def check_reason(self, reason: str | None) -> None:
        """Raises Refused(INPUT_INVALID) for a reason that cannot be stored."""
        if reason is not None and not is_clean_text(reason, REASON_MAX_CHARACTERS):
            message = f"a reason has 1 to {REASON_MAX_CHARACTERS} printable characters"
            raise Refused(RefusalCode.INPUT_INVALID, message, "reason")

    def check_reference(self, reference: str) -> None:
        """Raises Refused(INPUT_INVALID) for a reference that cannot be stored."""
        if not is_reference(reference):
            message = f"a reference has 1 to {REFERENCE_MAX_CHARACTERS} printable characters"
            raise Refused(RefusalCode.INPUT_INVALID, message, "reference")

    def check_reference_free(self, partner_id: int, kind: CommandKind, reference: str, store_id: int) -> None:
        """Raises Refused(DUPLICATE_REFERENCE) for a reference that this partner already used there."""
        if self.partner(partner_id).reference_unique and (
            (partner_id, reference, kind, store_id) in self.taken_references
        ):
            message = f"reference {reference} was used before for another {kind.lower()} of this store"
            raise Refused(RefusalCode.DUPLICATE_REFERENCE, message, "reference")

    def terms_at(self, partner_id: int, occurred_at: datetime) -> Terms:
        """The partner's terms then. Raises Refused(TERMS_MISSING)."""
        terms = self.configuration.terms_at(partner_id, occurred_at)
        if terms is None:
            message = "the partner has no contract terms for the day of occurredAt"
            raise Refused(RefusalCode.TERMS_MISSING, message, "occurredAt")
        return terms

    def active_member(self, member: Member | None, field_name: str = "member") -> Member:
        """The member, if there is one and it is open. Raises Refused(MEMBER_NOT_FOUND, MEMBER_CLOSED)."""
        if member is None:
            raise Refused(RefusalCode.MEMBER_NOT_FOUND, "no member has this id or identifier", field_name)
        if member.state != "ACTIVE":
            raise Refused(RefusalCode.MEMBER_CLOSED, "the member's account is closed", field_name)
        return member

    def budget(self, partner_id: int, booking: Booking) -> Budget | None:
        """The partner's window for that booking; None where none is planned."""
        plan = self.configuration.plan_on(partner_id, booking.day)
        if plan is None:
            return None
        return self.budgets[budget_window(plan, booking)]

    def budget_by_id(self, budget_id: int) -> Budget:
        """A window that a pending award reserved money of: among those locked, perhaps of a closed period."""
        return next(budget for budget in self.budgets.values() if budget.id == budget_id)

    def originals(self, partner_id: int, ref: OriginalRef, store: int, kinds: Container[CommandKind]) -> list[Original]:
        """The caller's own commands of these kinds that a reversal, a payment, a capture or a void may mean."""
        found: list[Original] = []
        if ref.command_id is not None and ref.command_id in self.by_id:
            found = [self.by_id[ref.command_id]]
        elif ref.key is not None and (partner_id, ref.key) in self.by_key:
            found = [self.by_key[(partner_id, ref.key)]]
        elif ref.reference is not None:
            found = self.by_reference.get((partner_id, ref.reference), [])
        return [
            original
            for original in found
            if original.command.partner_id == partner_id
            and original.command.kind in kinds
            and store in (NO_STORE_ID, original.command.store_id)
        ]

    def is_replay(self, found: CommandRow) -> bool:
        """Whether a command found under its key was posted before this batch; asking says that it is answered now."""
        if found.id in self.first_answers or found.id not in self.sent_before:
            return True
        self.first_answers.add(found.id)
        return False

    def remember(self, original: Original) -> None:
        """Indexes an accepted or loaded command for later commands of the batch."""
        command = original.command
        self.by_key[original.key] = original
        self.by_id[command.id] = original
        if command.reference is not None and command.kind in REFERENCED:
            self.by_reference.setdefault((command.partner_id, command.reference), []).append(original)
            self.taken_references.add((command.partner_id, command.reference, command.kind, command.store_id))


def budget_window(plan: BudgetPlan, booking: Booking) -> tuple[int, int]:
    """Key of a plan's window: per period, or 0 for a single one over all of the plan's dates."""
    return (plan.id, booking.period_id if plan.per_period else 0)


def store_id_of(configuration: Configuration, partner_id: int, store: StoreRef) -> int:
    """The partner's store that is named, 0 for none. Raises Refused(STORE_NOT_FOUND)."""
    if store.store_id is None and store.code is None:
        return NO_STORE_ID
    by_id = None if store.store_id is None else configuration.stores.get(store.store_id)
    by_code = None if store.code is None else configuration.stores_by_code.get((partner_id, store.code))
    found = by_id or by_code
    if found is None or found.partner_id != partner_id:
        field_name = "storeId" if store.code is None else "storeCode"
        raise Refused(RefusalCode.STORE_NOT_FOUND, "the partner has no such store", field_name)
    if store.store_id is not None and store.code is not None and by_id != by_code:
        raise Refused(RefusalCode.STORE_NOT_FOUND, "storeId and storeCode name different stores", "storeCode")
    return found.id


def is_key(key: str) -> bool:
    """Whether an idempotency key can stand in the database."""
    return is_clean_text(key, KEY_MAX_CHARACTERS)


def is_reference(reference: str) -> bool:
    """Whether a till's reference can stand in the database."""
    return is_clean_text(reference, REFERENCE_MAX_CHARACTERS)

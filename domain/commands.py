"""What callers ask of the till, and what it answers. Plain values: no database, no schema, no clock.

Inputs are as the caller gave them (an unparsable identifier, an unknown store, an amount with too many decimals are
all possible here): deciding about them is the batch's job, so that one bad command of 500 refuses alone.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from domain.accounts import PoolRole
from domain.errors import RETRYABLE, RefusalCode
from domain.proposals import Decision
from domain.values import OPERATOR_ID


class CommandKind(StrEnum):
    """Kind of an accepted command, as stored; all but ENROLL are transactions of the GraphQL schema."""

    ENROLL = "ENROLL"
    EARN = "EARN"
    CONFIRMATION = "CONFIRMATION"
    BURN = "BURN"
    AUTHORIZATION = "AUTHORIZATION"
    CAPTURE = "CAPTURE"
    VOID = "VOID"
    REVERSAL = "REVERSAL"
    EXPIRY = "EXPIRY"
    TRANSFER = "TRANSFER"
    MERGE = "MERGE"
    UNMERGE = "UNMERGE"
    ADJUSTMENT = "ADJUSTMENT"
    REPAYMENT = "REPAYMENT"


class MovementKind(StrEnum):
    """Kind of one row of ``transaction`` (DESIGN.md section 4)."""

    EARN = "EARN"
    EARN_PENDING = "EARN_PENDING"
    CONFIRM = "CONFIRM"
    CANCEL = "CANCEL"
    EARN_REVERSAL = "EARN_REVERSAL"
    OVERDRAW = "OVERDRAW"
    REPAY = "REPAY"
    BURN = "BURN"
    HOLD = "HOLD"
    CAPTURE = "CAPTURE"
    RELEASE = "RELEASE"
    BURN_REVERSAL = "BURN_REVERSAL"
    EXPIRE = "EXPIRE"
    TRANSFER_OUT = "TRANSFER_OUT"
    TRANSFER_IN = "TRANSFER_IN"
    ADJUST = "ADJUST"


class Amount(NamedTuple):
    """Money as a caller wrote it: checked against the programme's currency when the command is decided."""

    value: Decimal
    currency: str


class MemberRef(NamedTuple):
    """Which member: a member id (already decrypted) or a normalised identifier; both None when it names nobody."""

    member_id: int | None = None
    identifier: tuple[str, str] | None = None


class StoreRef(NamedTuple):
    """Which store of the partner: by id or by code; neither: none."""

    store_id: int | None = None
    code: str | None = None


class BasketLine(NamedTuple):
    """One line of a basket, net of discounts; ``quantity`` may have up to three decimals (weighed goods)."""

    sku: str | None
    category: str | None
    quantity: Decimal
    amount: Amount


class Enroll(NamedTuple):
    """Makes a member of the person with these identifiers (raw, as given), or finds the existing one."""

    partner_id: int
    key: str
    card: str | None
    email: str | None
    phone: str | None
    store: StoreRef = StoreRef()
    channel: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    occurred_at: datetime | None = None


class Earn(NamedTuple):
    """A purchase at the partner; ``amount`` is without the part paid in points."""

    partner_id: int
    key: str
    member: MemberRef
    amount: Amount
    occurred_at: datetime
    reference: str
    store: StoreRef = StoreRef()
    channel: str | None = None
    lines: tuple[BasketLine, ...] | None = None


class BurnFields(NamedTuple):
    """What a burn says, and an authorization of one."""

    partner_id: int
    key: str
    member: MemberRef
    points: int
    occurred_at: datetime
    reference: str
    store: StoreRef = StoreRef()
    channel: str | None = None


class Burn(BurnFields):
    """Points spent at the partner."""

    __slots__ = ()


class Authorize(BurnFields):
    """Points set aside at the partner for a burn that is not certain yet."""

    __slots__ = ()


class OriginalRef(NamedTuple):
    """Which command is undone or resolved: by command id, by key, or by reference with kind and perhaps store.

    Exactly one of the three must be given; ``command_id`` is None also for an id that the caller cannot have.
    ``given`` counts how many ways the caller used; a reference that should have named its kind is none.
    """

    command_id: int | None = None
    key: str | None = None
    reference: str | None = None
    kind: CommandKind | None = None
    store: StoreRef = StoreRef()
    given: int = 1


class Reverse(NamedTuple):
    """Goods returned (amount or lines) or a burn refunded (points); with none of the three: all that is left."""

    partner_id: int
    key: str
    original: OriginalRef
    occurred_at: datetime
    amount: Amount | None = None
    lines: tuple[BasketLine, ...] | None = None
    points: int | None = None
    reason: str | None = None
    awaits_original: bool = False  # whether it waits where the original did not arrive yet


class ConfirmPayment(NamedTuple):
    """The money of a purchase came in, at a partner whose points wait for that."""

    partner_id: int
    key: str
    original: OriginalRef
    occurred_at: datetime


class Sweep(NamedTuple):
    """What is due of one account at the clock's reading, to be booked: the system asks, never a caller.

    It is no command of the ledger: nothing is stored of it but what it finds due, and it may be sent at any time and
    as often as one likes.
    """

    account_id: int
    occurred_at: None = None
    """Now, whenever that is, as of every command that does not say when it occurred."""

    partner_id: int = OPERATOR_ID

    @property
    def key(self) -> str:
        """Names it in logs and refusals; it is no idempotency key."""
        return f"system:sweep:{self.account_id}"


class Transfer(NamedTuple):
    """Points that one member gives to another; ``partner_id`` 0: the operator moves them."""

    partner_id: int
    key: str
    source: MemberRef
    target: MemberRef
    points: int
    occurred_at: datetime
    reason: str | None = None


class Adjust(NamedTuple):
    """Points that the operator gives or takes, in its own name: the approval of a proposal, which says how many."""

    partner_id: int
    key: str
    member: MemberRef
    occurred_at: datetime
    proposal_id: int
    decision: Decision


class Capture(NamedTuple):
    """Burns points of an authorization, the rest is released; None: all of it, 0: a void."""

    partner_id: int
    key: str
    original: OriginalRef
    occurred_at: datetime
    points: int | None = None


class Void(NamedTuple):
    """Calls an authorization off: all its points are released."""

    partner_id: int
    key: str
    original: OriginalRef
    occurred_at: datetime
    reason: str | None = None


class Merge(NamedTuple):
    """Two members that are one person: from now on ``keep`` stands for ``duplicate`` too."""

    partner_id: int
    key: str
    keep: MemberRef
    duplicate: MemberRef
    reason: str | None = None
    occurred_at: None = None


class Unmerge(NamedTuple):
    """A merge that was a mistake, named by the id or the key of its command."""

    partner_id: int
    key: str
    original: OriginalRef
    reason: str | None = None
    occurred_at: None = None


NO_POOL_ID = 0
"""Stands for an id that names no pool."""


class CreatePool(NamedTuple):
    """A household's pool, founded by its head."""

    partner_id: int
    key: str
    member: MemberRef
    reason: str | None = None
    occurred_at: None = None


class JoinPool(NamedTuple):
    """A member who comes into a pool, or whose role or limit there changes."""

    partner_id: int
    key: str
    pool_id: int
    member: MemberRef
    role: PoolRole = PoolRole.MEMBER
    burn_limit: int | None = None
    reason: str | None = None
    occurred_at: None = None


class LeavePool(NamedTuple):
    """A member who goes back to an account of its own."""

    partner_id: int
    key: str
    member: MemberRef
    reason: str | None = None
    occurred_at: None = None


Command = (
    Enroll | Earn | Burn | Authorize | Capture | Void | Reverse | ConfirmPayment | Sweep | Transfer | Adjust | Merge
    | Unmerge | CreatePool | JoinPool | LeavePool
)  # fmt: skip


class Refusal(NamedTuple):
    """A command that was not done, and why. Nothing changed and nothing is remembered of it."""

    code: RefusalCode
    message: str
    field: str | None
    key: str

    @property
    def retryable(self) -> bool:
        """Whether the very same command may succeed later without anybody changing anything else."""
        return self.code in RETRYABLE


class CommandRow(NamedTuple):
    """One accepted command as stored: a row of ``command``; units as the column names say."""

    id: int
    partner_id: int
    key: str
    kind: CommandKind
    account_id: int
    member_id: int
    store_id: int
    reference: str | None
    channel: str | None
    amount_minor: int | None
    points: int | None
    reverses_id: int | None
    reason: str | None
    declined_points: int
    occurred_at: datetime
    recorded_at: datetime
    period_id: int
    moved_points: int
    """Sum of its movements' points on its own account, signed from the member's side; of a capture, what it burned."""


class AwardResult(NamedTuple):
    """One award of a purchase: points of one rule or campaign, granted by one funder (0: the operator).

    ``pending_until`` is when its return window ends, as long as points of it are pending; None otherwise.
    """

    rule_code: str | None
    funder_id: int
    requested_points: int
    granted_points: int
    pending_until: datetime | None = None
    waits_for_payment: bool = False
    campaign_code: str | None = None


class BalanceView(NamedTuple):
    """A member's points; expired ones are never counted. ``available`` is negative where the member owes points."""

    account_id: int
    available: int
    pending: int
    held: int


class HoldView(NamedTuple):
    """An authorization's hold: points = captured + released once it is resolved (``state`` no longer OPEN)."""

    account_id: int
    id: int
    partner_id: int
    points: int
    captured: int
    released: int
    state: str
    expires_at: datetime


class BudgetView(NamedTuple):
    """Use of one budget window, in micro-units; available = limit (+ approved overdraft) - consumed - reserved."""

    partner_id: int
    limit_micro: int
    overdraft_micro: int
    consumed_micro: int
    reserved_micro: int
    alerted_at: datetime | None
    funding: str = "POSTPAID"
    budget_id: int | None = None
    """None where the window does not exist yet, since nothing drew on it."""

    @property
    def available_micro(self) -> int:
        """What may still be spent (SETTLEMENT.md c.4)."""
        return self.limit_micro + self.overdraft_micro - self.consumed_micro - self.reserved_micro


class Enrolled(NamedTuple):
    """Answer to Enroll: the member, and whether this key created it."""

    member_id: int
    account_id: int
    created: bool
    replayed: bool
    key: str


class Posted(NamedTuple):
    """Answer to what moves points: the stored command, and the balances after it (a replay: today's).

    ``points`` is what the caller asked about, positive: granted, burned, set aside, set free, moved to another account,
    taken back or given back by a reversal, or made usable by a payment. ``hold``: an authorization's, however resolved.
    ``shortfall_points`` of a reversal could not be taken back and stay charged to the issuing partner.
    """

    command: CommandRow
    points: int
    awards: tuple[AwardResult, ...]
    declined_points: int
    shortfall_points: int
    balance: BalanceView
    budget: BudgetView | None
    replayed: bool
    hold: HoldView | None = None


class Swept(NamedTuple):
    """Answer to Sweep: what it booked. All zero where nothing was due, or where an earlier sweep had done it."""

    account_id: int
    expired_lots: int = 0
    expired_points: int = 0
    confirmed_awards: int = 0
    confirmed_points: int = 0
    timed_out_holds: int = 0
    lapsed_awards: int = 0
    lapsed_points: int = 0

    @property
    def replayed(self) -> bool:
        """Never: what was done is not due again."""
        return False


class ParkedReversal(NamedTuple):
    """Answer to Reverse where it waits for its original, and what became of it since; see ``domain.parked.Parked``."""

    id: int
    partner_id: int
    key: str
    original_key: str | None
    reference: str | None
    kind: CommandKind | None
    state: str
    occurred_at: datetime
    recorded_at: datetime
    expires_at: datetime
    command_id: int | None
    refusal_code: str | None
    replayed: bool = False


Outcome = Enrolled | Posted | Swept | ParkedReversal | Refusal

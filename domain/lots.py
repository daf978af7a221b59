"""Lots: points of one award that are still open, the order in which they are used, and holds (SETTLEMENT.md c.2).

Before them come pending awards: points that become a lot when they are confirmed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo

from domain.periods import lot_expiry


class ClawBack(StrEnum):
    """Which lots a return takes its points from when those of the purchase are spent (SETTLEMENT.md c.3)."""

    OWN_LOT_THEN_ISSUER = "own_lot_then_issuer"
    """The purchase's own lot, then others of the same issuer and funder."""

    ALL_LOTS = "all_lots"
    """The purchase's own lot, then all others of the account."""

    NEGATIVE_BALANCE = "negative_balance"
    """The purchase's own lot, then all others of the account; the member owes the rest (``domain.owing``)."""


@dataclass(slots=True)
class Lot:
    """Open points of one award: ``remaining`` of ``granted``; ``reserved`` ones are set aside by open holds.

    ``price_micro`` is the issue price per point at which they entered the pool.
    """

    account_id: int
    id: int
    transaction_id: int
    issuer_id: int
    funder_id: int
    terms_id: int
    price_micro: int
    breakage_share_ppm: int
    granted: int
    remaining: int
    earned_at: datetime
    expires_at: datetime
    grace_until: datetime | None
    rolling_months: int | None
    parent_id: int | None = None
    """The lot of another account that these points were moved out of; None where they were earned."""

    reserved: int = 0
    is_new: bool = False
    is_changed: bool = False

    @property
    def usable_until(self) -> datetime:
        """First instant at which the lot is past."""
        return self.grace_until or self.expires_at

    def is_past(self, instant: datetime) -> bool:
        """Whether its points are expired then, booked so or not."""
        return self.usable_until <= instant

    def roll(self, occurred_at: datetime, instant: datetime, zone: ZoneInfo) -> None:
        """Moves the expiry of open points to ``rolling_months`` after the account was used, never to an earlier date.

        Points that are past at ``instant`` stay so, and so do those that live on in their days of grace.
        """
        is_open = self.remaining or self.reserved
        if self.rolling_months is None or not is_open or self.grace_until is not None or self.is_past(instant):
            return
        moved = lot_expiry(occurred_at, self.rolling_months, zone)
        if moved > self.expires_at:
            self.expires_at = moved
            self.is_changed = True

    def take(self, points: int) -> None:
        """Uses points of the lot; the caller has checked that it holds them."""
        assert 0 <= points <= self.remaining
        self.remaining -= points
        self.is_changed = True

    def restore(self, points: int) -> None:
        """Gives points back that were taken of this lot."""
        assert 0 <= points <= self.granted - self.remaining - self.reserved
        self.remaining += points
        self.is_changed = True

    def set_aside(self, points: int) -> None:
        """Reserves points for a hold; until it is resolved they do not expire."""
        self.take(points)
        self.reserved += points

    def spend_reserved(self, points: int) -> None:
        """Uses points that a hold had reserved."""
        assert 0 <= points <= self.reserved
        self.reserved -= points
        self.is_changed = True

    def set_free(self, points: int) -> None:
        """Makes points usable again that a hold had reserved."""
        self.spend_reserved(points)
        self.remaining += points


class Charge(NamedTuple):
    """How one award was charged, and so how its return is credited.

    ``partner_id`` and ``store_id`` are the purchase's, ``budget_id`` the window that the award drew on, if on one, and
    ``transaction_id`` with ``period_id`` the movement that carried the money: the award, or its confirmation.
    """

    partner_id: int
    store_id: int
    funder_id: int
    issuer_id: int
    terms_id: int
    rule_id: int | None
    budget_id: int | None
    transaction_id: int
    period_id: int


@dataclass(slots=True)
class Missing:
    """What a return could not take back of one award, and ``open_points`` of which holds may still bring.

    ``id`` is the movement that carries the shortfall, on the account of the purchase; the other ids are the purchase's.
    """

    account_id: int
    id: int
    purchase_id: int
    member_id: int
    reference: str | None
    charge: Charge
    open_points: int


@dataclass(slots=True)
class Recall:
    """Points of a lot that a hold had set aside when a return would have taken them: they are taken if they come back.

    ``place`` is where the lot stood among those that the return would have taken, ``taken_points`` how many came back.
    """

    account_id: int
    hold_id: int
    lot_id: int
    place: int
    missing: Missing
    taken_points: int = 0
    is_new: bool = False
    is_changed: bool = False

    def take(self, points: int) -> None:
        """Notes that so many of them made the shortfall good; the caller has checked that so many are missing."""
        assert 0 < points <= self.missing.open_points
        self.missing.open_points -= points
        self.taken_points += points
        self.is_changed = True


@dataclass(slots=True)
class Hold:
    """Points that an authorization set aside; ``id`` is its command's, ``uses`` names (lot id, points) in burn order.

    ``state`` is OPEN, CAPTURED, VOIDED or EXPIRED; ``recorded_at`` is when it was authorized. The reimbursement is that
    of ``terms_id``, the authorization's.
    """

    account_id: int
    id: int
    transaction_id: int
    partner_id: int
    store_id: int
    member_id: int
    reference: str | None
    points: int
    captured: int
    released: int
    state: str
    recorded_at: datetime
    expires_at: datetime
    terms_id: int
    uses: list[tuple[int, int]]
    recalls: list[Recall] = field(default_factory=list)
    """What returns miss of its points, the oldest return first."""

    is_new: bool = False
    is_changed: bool = False

    def is_due(self, instant: datetime) -> bool:
        """Whether its time has run out and nobody has booked so yet."""
        return self.state == "OPEN" and self.expires_at <= instant

    def resolve(self, state: str, captured: int) -> None:
        """Captures so many of its points and releases the rest."""
        self.state, self.captured, self.released = state, captured, self.points - captured
        self.is_changed = True


@dataclass(slots=True)
class PendingAward:
    """Points of one award that are not usable yet: ``open_points`` of ``granted``.

    ``id`` is also that of the lot which its confirmation opens. ``reserved_micro`` is what it still reserves of its
    budget window. ``store_id`` and ``reference`` are the purchase's. ``confirmed``: the movement that confirmed it, and
    its period.
    """

    account_id: int
    id: int
    transaction_id: int
    command_id: int
    member_id: int
    partner_id: int
    issuer_id: int
    funder_id: int
    terms_id: int
    rule_id: int | None
    budget_id: int | None
    granted: int
    open_points: int
    reserved_micro: int
    release_at: datetime
    waits_for_payment: bool
    earned_at: datetime
    store_id: int
    reference: str | None
    confirmed: tuple[int, int] | None = None
    is_new: bool = False
    is_changed: bool = False

    def is_due(self, instant: datetime) -> bool:
        """Whether nothing keeps its points from being confirmed then."""
        return self.open_points > 0 and not self.waits_for_payment and self.release_at <= instant

    def close(self, points: int, freed_micro: int) -> None:
        """Takes points out, confirmed or cancelled, with what they reserved; the caller has checked both."""
        assert 0 <= points <= self.open_points
        assert 0 <= freed_micro <= self.reserved_micro
        self.open_points -= points
        self.reserved_micro -= freed_micro
        self.is_changed = True


@dataclass(slots=True)
class Debt:
    """Points that a return could not take back: ``open_points`` of ``points`` are not paid back yet.

    ``id`` is that of the movement that overdrew the account, ``command_id`` the return's, of ``occurred_at``,
    ``price_micro`` what the operator advanced to the funder per point, the issue price of ``terms_id``.
    """

    account_id: int
    id: int
    command_id: int
    member_id: int
    period_id: int
    funder_id: int
    terms_id: int
    price_micro: int
    points: int
    open_points: int
    occurred_at: datetime
    is_new: bool = False
    is_changed: bool = False

    def repay(self, points: int) -> None:
        """Takes off what later points paid back; the caller has checked that so much is open."""
        assert 0 <= points <= self.open_points
        self.open_points -= points
        self.is_changed = True


@dataclass(slots=True)
class Account:
    """Balances of one account inside a batch. ``lots`` holds every lot that the batch may touch or that may be past.

    ``available`` is what its lots have; the member sees it less ``owed``, the sum of what is open of ``debts``.
    ``awards`` holds the pending awards that the batch may confirm or cancel, or whose purchase it may return.
    """

    id: int
    available: int
    pending: int
    held: int
    next_expires_at: datetime | None
    owed: int = 0
    lots: list[Lot] = field(default_factory=list)
    awards: list[PendingAward] = field(default_factory=list)
    holds: dict[int, Hold] = field(default_factory=dict)
    """Those that the batch asks about, and where points are burned the open ones, by their ids."""
    debts: list[Debt] = field(default_factory=list)
    all_lots_loaded: bool = False
    is_new: bool = False
    is_changed: bool = False

    def usable(self, instant: datetime) -> int:
        """Points that may be burned then: expired ones never count, booked as expired or not."""
        if self.next_expires_at is None or instant < self.next_expires_at:
            return self.available
        return self.available - sum(lot.remaining for lot in self.lots if lot.is_past(instant))

    def change(self, points: int) -> None:
        """Adds to the available points (negative: takes away)."""
        self.available += points
        self.is_changed = True

    def change_pending(self, points: int) -> None:
        """Adds to the pending points (negative: takes away)."""
        self.pending += points
        self.is_changed = True

    def set_aside(self, points: int) -> None:
        """Moves available points to held ones (negative: back)."""
        self.held += points
        self.change(-points)

    def spend_held(self, points: int) -> None:
        """Takes away held points."""
        self.held -= points
        self.is_changed = True

    def add(self, lot: Lot) -> None:
        """Takes in a new lot."""
        self.lots.append(lot)
        self.change(lot.remaining)
        if self.next_expires_at is None or lot.usable_until < self.next_expires_at:
            self.next_expires_at = lot.usable_until

    def note_use(self, occurred_at: datetime, instant: datetime, zone: ZoneInfo) -> None:
        """A purchase or a burn was accepted: what rolls with the use of the account lives on from then."""
        for lot in self.lots:
            lot.roll(occurred_at, instant, zone)
        self.note_next_expiry()

    def note_next_expiry(self) -> None:
        """Makes ``next_expires_at`` exact again where all open lots are known."""
        if self.all_lots_loaded:
            exact = min((lot.usable_until for lot in self.lots if lot.remaining), default=None)
            self.is_changed = self.is_changed or exact != self.next_expires_at
            self.next_expires_at = exact


def burn_order(lots: Iterable[Lot], instant: datetime) -> list[Lot]:
    """Lots that may be used then, first to be used first: earliest expiry, then earliest earned, then sequence."""
    usable = [lot for lot in lots if lot.remaining and not lot.is_past(instant)]
    return sorted(usable, key=_place_in_burn_order)


def held_in_burn_order(lots: Iterable[Lot]) -> list[Lot]:
    """Lots of which holds have points, past or not, as if they could be used."""
    return sorted((lot for lot in lots if lot.reserved), key=_place_in_burn_order)


def _place_in_burn_order(lot: Lot) -> tuple[datetime, datetime, int]:
    return lot.usable_until, lot.earned_at, lot.id


def allocate(lots: Iterable[Lot], points: int) -> list[tuple[Lot, int]]:
    """Which of the ordered lots give how much; less than ``points`` in all where they do not hold enough."""
    taken = []
    for lot in lots:
        if points == 0:
            break
        part = min(lot.remaining, points)
        if part:
            taken.append((lot, part))
            points -= part
    return taken

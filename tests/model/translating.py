"""Commands of the auditor as the product's, and the product's answers as the auditor gives them."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from domain.accounts import PoolRole
from domain.commands import (
    Amount,
    Authorize,
    BasketLine,
    Burn,
    Capture,
    Command,
    ConfirmPayment,
    CreatePool,
    Earn,
    JoinPool,
    LeavePool,
    MemberRef,
    Merge,
    OriginalRef,
    Outcome,
    ParkedReversal,
    Posted,
    Refusal,
    Reverse,
    Transfer,
    Unmerge,
    Void,
)
from tests.model.days import Days
from tests.model.ledger import Dict


def money(minor: int) -> Amount:
    return Amount(Decimal(minor).scaleb(-2), "EUR")


def as_product(one: Dict, ids: dict[str, int]) -> Command:
    return MAKE[one["kind"]](one, ids[one["partner"]], one["key"], one["at"])


MAKE: dict[str, Callable[[Dict, int, str, Any], Command]] = {
    "earn": lambda one, by, key, at: Earn(
        by, key, _member(one["card"]), money(one["amount_minor"]), at, one["reference"], lines=_lines(one["lines"])
    ),
    "burn": lambda one, by, key, at: Burn(by, key, _member(one["card"]), one["points"], at, one["reference"]),
    "authorize": lambda one, by, key, at: Authorize(by, key, _member(one["card"]), one["points"], at, one["reference"]),
    "capture": lambda one, by, key, at: Capture(by, key, _original(one), at, one["points"]),
    "void": lambda one, by, key, at: Void(by, key, _original(one), at),
    "pay": lambda one, by, key, at: ConfirmPayment(by, key, _original(one), at),
    "reverse": lambda one, by, key, at: Reverse(
        by, key, _original(one), at, None if one["amount_minor"] is None else money(one["amount_minor"]),
        _lines(one["lines"]), one["points"], awaits_original=one.get("awaits", False),
    ),
    "transfer": lambda one, by, key, at: Transfer(by, key, _member(one["card"]), _member(one["to"]), one["points"], at),
    "merge": lambda one, by, key, _: Merge(by, key, _member(one["keep"]), _member(one["card"])),
    "unmerge": lambda one, by, key, _: Unmerge(by, key, _original(one)),
    "found": lambda one, by, key, _: CreatePool(by, key, _member(one["card"])),
    "join": lambda one, by, key, _: JoinPool(
        by, key, one["pool_id"], _member(one["card"]), PoolRole(one["role"]), one["limit"]
    ),
    "leave": lambda one, by, key, _: LeavePool(by, key, _member(one["card"])),
}  # fmt: skip
"""A command by its kind."""


def _original(one: Dict) -> OriginalRef:
    return OriginalRef(key=one["original"])


def _member(card: str) -> MemberRef:
    return MemberRef(identifier=("card", card))


def _lines(lines: tuple[tuple[str, str | None, int, int], ...] | None) -> tuple[BasketLine, ...] | None:
    if lines is None:
        return None
    return tuple(BasketLine(sku, category, Decimal(quantity), money(minor)) for sku, category, quantity, minor in lines)


def as_auditor(outcome: Outcome, codes: dict[int, str], days: Days) -> str | Dict:
    if isinstance(outcome, Refusal):
        return str(outcome.code)
    if isinstance(outcome, ParkedReversal):
        return {"parked": outcome.state, "replayed": outcome.replayed}
    assert isinstance(outcome, Posted)
    budget, hold = outcome.budget, outcome.hold
    return {
        "points": outcome.points,
        "awards": [
            (award.rule_code or award.campaign_code, codes[award.funder_id], award.requested_points,
             award.granted_points, award.pending_until, award.waits_for_payment)
            for award in outcome.awards
        ],
        "declined": outcome.declined_points,
        "shortfall": outcome.shortfall_points,
        "balance": outcome.balance[1:],
        "budget": None if budget is None else (budget.consumed_micro, budget.reserved_micro, budget.available_micro),
        "period": days.label(outcome.command.period_id),
        "hold": None if hold is None else (hold.state, hold.points, hold.captured),
        "replayed": outcome.replayed,
    }  # fmt: skip

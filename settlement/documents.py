"""Canonical bytes: the statement document that a reader can recompute, and the hash chained over all of a close.

Canonical JSON has sorted keys, no spaces, amounts as decimal strings and instants in UTC: equal facts give equal
bytes, so that a close that is done again can be compared byte for byte (SETTLEMENT.md c.7, invariant 15).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from domain.positions import Contribution
from domain.values import decimal_from_micro, decimal_from_minor
from settlement.lines import Line, OperatorTotals, Outstanding, Settled


@dataclass(frozen=True, slots=True)
class PeriodFacts:
    """What every document of a period says of it; all of it never changes once the period exists."""

    id: int
    label: str
    opens_at: datetime
    closes_at: datetime
    currency: str
    currency_digits: int


@dataclass(frozen=True, slots=True)
class BudgetDrawn:
    """What a partner's entries of a period drew on one budget window, credits taken off.

    ``window`` is the label of the window's period, None for a single budget over all of its plan's dates.
    """

    budget_id: int
    partner_id: int
    window: str | None
    drawn_micro: int


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Points of returned goods that could not be taken back; they stay charged to the issuing partner."""

    points: int = 0
    value_micro: int = 0


@dataclass(frozen=True, slots=True)
class Statement:
    """One partner's statement of one period and its canonical bytes."""

    settled: Settled
    partner_code: str
    budgets: tuple[BudgetDrawn, ...]
    shortfall: Shortfall
    document: bytes
    outstanding: Outstanding | None = None

    @property
    def sha256(self) -> str:
        """The document's hash, in hexadecimal digits."""
        return hashlib.sha256(self.document).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, in UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def instant_text(instant: datetime) -> str:
    """An instant in UTC, such as 2017-02-28T23:00:00Z."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def make_statement(
    period: PeriodFacts,
    settled: Settled,
    partner_code: str,
    budgets: Iterable[BudgetDrawn],
    shortfall: Shortfall,
    outstanding: Outstanding | None = None,
) -> Statement:
    """The statement with its document; ``outstanding``: what the partner's lots leave where it is the final one."""
    ordered = tuple(sorted(budgets, key=lambda budget: budget.budget_id))
    digits = period.currency_digits
    facts: dict[str, Any] = {
        "period": {
            "label": period.label,
            "opens_at": instant_text(period.opens_at),
            "closes_at": instant_text(period.closes_at),
        },
        "partner": partner_code,
        "currency": period.currency,
        "lines": [_line_facts(line, digits) for line in settled.lines],
        "net": str(decimal_from_minor(settled.net_minor, digits)),
        "due": str(decimal_from_minor(settled.due_minor, digits)),
        "budgets": [
            {
                "budget": str(budget.budget_id),
                "window": budget.window,
                "drawn": str(decimal_from_micro(budget.drawn_micro)),
            }
            for budget in ordered
        ],
        "shortfall": {
            "points": shortfall.points,
            "value": str(decimal_from_micro(shortfall.value_micro)),
        },
    }
    if settled.carried_in_minor or settled.carried_on_minor:
        # Only then, as with taxes: statements from before there was a minimum stay what they were, byte for byte.
        facts["carried_forward"] = {
            "brought_in": str(decimal_from_minor(settled.carried_in_minor, digits)),
            "carried_on": str(decimal_from_minor(settled.carried_on_minor, digits)),
        }
    if outstanding is not None:
        facts["final"] = {
            "outstanding_points": outstanding.points,
            "outstanding_value": str(decimal_from_micro(outstanding.value_micro)),
        }
    if settled.taxes:
        facts["taxes"] = [
            {
                "kind": tax.kind.value,
                "rate_ppm": tax.rate_ppm,
                "taxable": str(decimal_from_minor(tax.taxable_minor, digits)),
                "tax": str(decimal_from_minor(tax.tax_minor, digits)),
            }
            for tax in settled.taxes
        ]
    return Statement(settled, partner_code, ordered, shortfall, canonical(facts), outstanding)


def _line_facts(line: Line, digits: int) -> dict[str, Any]:
    return {
        "kind": line.kind.value,
        "entries": line.entries,
        "points": line.points,
        "exact": str(decimal_from_micro(line.exact_micro)),
        "prior_period_exact": str(decimal_from_micro(line.prior_exact_micro)),
        "billed": str(decimal_from_minor(line.billed_minor, digits)),
        "residue": str(decimal_from_micro(line.residue_micro)),
    }


def totals_facts(totals: OperatorTotals, pool_micro: int, outstanding_points: int, digits: int) -> dict[str, Any]:
    """The coalition's figures of a close, as the certificate shows them to the operator."""
    return {
        "operator_net": str(decimal_from_minor(totals.operator_net_minor, digits)),
        "pool_change": str(decimal_from_micro(totals.pool_change_micro)),
        "pool": str(decimal_from_micro(pool_micro)),
        "margin": str(decimal_from_micro(totals.margin_micro)),
        "fees": str(decimal_from_micro(totals.fees_micro)),
        "spread": str(decimal_from_micro(totals.spread_micro)),
        "breakage": str(decimal_from_micro(totals.breakage_micro)),
        "rounding": str(decimal_from_micro(totals.rounding_micro)),
        "subsidy": str(decimal_from_micro(totals.subsidy_micro)),
        "adjustments": str(decimal_from_micro(totals.adjustments_micro)),
        "tax": str(decimal_from_micro(totals.tax_micro)),
        "member_receivable_change": str(decimal_from_micro(totals.receivable_change_micro)),
        "deposit_change": str(decimal_from_micro(totals.deposit_change_micro)),
        "outstanding_points": outstanding_points,
        "netting_efficiency_ppm": totals.netting_efficiency_ppm,
    }


def position_facts(positions: Iterable[Contribution]) -> list[dict[str, Any]]:
    """Every position of a period with the sum of its rows' hashes, in one order."""
    return [
        {
            "partner": position.partner_id,
            "kind": position.kind.value,
            "entries": position.entries,
            "points": position.points,
            "amount_micro": position.amount_micro,
            "prior_amount_micro": position.prior_amount_micro,
            "hash_sum": position.hash_sum,
        }
        for position in sorted(positions, key=lambda position: (position.partner_id, position.kind))
    ]


def close_digest(
    label: str,
    previous: bytes | None,
    totals: Mapping[str, Any],
    positions: Iterable[Contribution],
    documents: Sequence[bytes],
) -> bytes:
    """SHA-256 of a close: a header line with totals, position hashes and the previous close's hash, then every
    statement's bytes on a line of its own, in the order of partner ids.
    """
    header = canonical(
        {
            "period": label,
            "previous": None if previous is None else previous.hex(),
            "totals": totals,
            "positions": position_facts(positions),
        }
    )
    return hashlib.sha256(b"\n".join([header, *documents])).digest()

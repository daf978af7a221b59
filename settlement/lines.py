"""From positions to statement lines, nets and the operator's totals: pure arithmetic (SETTLEMENT.md c.1, c.5).

Signs: a line is seen from its partner, so a charge is negative; the operator's totals are seen from the operator.
Exact money is in micro-units, billed money in minor units of the programme's currency.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from domain.commands import MovementKind
from domain.positions import Contribution, LineKind, MovementSums, contributions
from domain.values import OPERATOR_ID, decimal_from_micro, half_even, micro_per_minor, minor_from_micro

PPM = 1_000_000

Positions = Mapping[tuple[int, LineKind], Contribution]
"""Running totals of one period by partner id and kind."""

LINES_WITHOUT_POINTS = frozenset(
    {LineKind.FIXED_FEE, LineKind.ADJUSTMENT, LineKind.PREPAID, LineKind.TAX, LineKind.CARRIED_FORWARD}
)

LINE_ORDER = {kind: number for number, kind in enumerate(LineKind)}
"""Lines stand on a statement in the order in which the kinds are declared."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a statement: exact, rounded once, and what the rounding left for ROUNDING.

    ``prior_exact_micro`` is an unrounded "of which": reversals of what was booked in an earlier period.
    """

    kind: LineKind
    entries: int
    points: int | None
    exact_micro: int
    prior_exact_micro: int
    billed_minor: int
    residue_micro: int


@dataclass(frozen=True, slots=True)
class TaxPart:
    """Tax on one billed line, signed as the line, in minor units; the TAX line is their sum."""

    kind: LineKind
    rate_ppm: int
    taxable_minor: int
    tax_minor: int


@dataclass(frozen=True, slots=True)
class Settled:
    """One partner's period: its lines, their rounded sum, and what is due of it.

    ``net_minor`` positive: the operator pays the partner. ``due_minor`` = net + what earlier statements left
    (``carried_in_minor``) - what is too little to be paid and left to the next one (``carried_on_minor``).
    """

    partner_id: int
    lines: tuple[Line, ...]
    net_minor: int
    due_minor: int
    carried_in_minor: int = 0
    carried_on_minor: int = 0
    taxes: tuple[TaxPart, ...] = ()

    @property
    def tax_minor(self) -> int:
        """What is taxed in all, signed from the partner's side; part of the net."""
        return sum(tax.tax_minor for tax in self.taxes)

    @property
    def net_lines(self) -> tuple[Line, ...]:
        """The lines that make the net: all but what is carried forward."""
        return tuple(line for line in self.lines if line.kind != LineKind.CARRIED_FORWARD)


class Outstanding(NamedTuple):
    """What a partner's own lots leave after a period: points available or held, and what they are worth in the pool."""

    points: int
    value_micro: int


@dataclass(frozen=True, slots=True)
class Billing:
    """What the statements of a period take beside its positions, in minor units.

    ``carried_in_minor``: by partner, what its last statement left; what is due in amounts below ``minimum_minor`` is
    left to the next. ``tax_ppm``: by partner and kind of line, the rate that is added to what is billed. ``finals``: by
    partner whose final statement it is, what its lots leave; it always gets one, and it leaves nothing to a next.
    """

    carried_in_minor: Mapping[int, int]
    minimum_minor: int
    tax_ppm: Mapping[tuple[int, LineKind], int]
    finals: Mapping[int, Outstanding] = field(default_factory=dict)


NOTHING_BESIDE = Billing({}, 0, {})


@dataclass(frozen=True, slots=True)
class OperatorTotals:
    """The operator's side of a period: margin and its parts in micro-units, the net in minor units.

    ``rounding_micro`` is the sum of the lines' residues, ``subsidy_micro`` what operator-funded points cost,
    ``adjustments_micro`` the contra side of the partners' adjustments: what they were debited. ``tax_micro`` is what is
    taken in tax, less what is paid: part of the net, not of the margin. ``receivable_change_micro`` is by how much
    members owe the operator more: money that it has not got yet. ``deposit_change_micro`` is by how much what partners
    had paid in before changes: negative where their awards used it, money that the operator had got already.
    """

    pool_change_micro: int
    fees_micro: int
    spread_micro: int
    breakage_micro: int
    rounding_micro: int
    subsidy_micro: int
    adjustments_micro: int
    tax_micro: int
    receivable_change_micro: int
    deposit_change_micro: int
    operator_net_minor: int
    gross_lines_minor: int
    gross_nets_minor: int

    @property
    def margin_micro(self) -> int:
        """Margin = fees + spread + operator breakage + rounding + adjustments - subsidy (SETTLEMENT.md c.5)."""
        gained = self.fees_micro + self.spread_micro + self.breakage_micro + self.rounding_micro
        return gained + self.adjustments_micro - self.subsidy_micro

    @property
    def explained_micro(self) -> int:
        """What the net must be: pool + margin + tax + deposit change - what members owe more (SETTLEMENT.md c.5)."""
        kept_micro = self.pool_change_micro + self.margin_micro + self.tax_micro
        return kept_micro + self.deposit_change_micro - self.receivable_change_micro

    @property
    def explanation(self) -> str:
        """``explained_micro`` in words; parts that most periods do not have are left out where they are 0."""
        said = (
            f"pool change {decimal_from_micro(self.pool_change_micro)} + margin {decimal_from_micro(self.margin_micro)}"
        )
        if self.tax_micro:
            said += f" + tax {decimal_from_micro(self.tax_micro)}"
        if self.deposit_change_micro:
            said += f" + deposit change {decimal_from_micro(self.deposit_change_micro)}"
        if self.receivable_change_micro:
            said += f" - {decimal_from_micro(self.receivable_change_micro)} owed"
        return said

    @property
    def netting_efficiency_ppm(self) -> int | None:
        """1 - sum|nets| / sum|lines| in millionths; None when nothing was billed."""
        if self.gross_lines_minor == 0:
            return None
        return half_even(PPM * (self.gross_lines_minor - self.gross_nets_minor), self.gross_lines_minor)


def positions_of(parts: Iterable[Contribution]) -> dict[tuple[int, LineKind], Contribution]:
    """Adds contributions up to positions."""
    positions: dict[tuple[int, LineKind], Contribution] = {}
    for part in parts:
        key = (part.partner_id, part.kind)
        held = positions.get(key)
        positions[key] = (
            part if held is None else Contribution(*key, *(a + b for a, b in zip(held[2:], part[2:], strict=True)))
        )
    return positions


def positions_of_movements(
    movements: Iterable[MovementSums], entry_lines: Iterable[Contribution]
) -> dict[tuple[int, LineKind], Contribution]:
    """The positions that a period's rows amount to."""
    return positions_of([*(part for sums in movements for part in contributions(sums)), *entry_lines])


def differing_positions(period_id: int, kept: Positions, from_rows: Positions) -> list[str]:
    """In words, the positions that are not what their rows sum to."""
    found = []
    for key in sorted(kept.keys() | from_rows.keys()):
        nothing = Contribution(*key, 0, 0, 0, 0, 0)
        one, other = kept.get(key, nothing), from_rows.get(key, nothing)
        if one != other:
            said = ", ".join(
                f"{name} {a} instead of {b}"
                for name, a, b in zip(one._fields[2:], one[2:], other[2:], strict=True)
                if a != b
            )
            found.append(f"period {period_id}, partner {key[0]}, position {key[1]}: {said}")
    return found


def settle(positions: Positions, currency_digits: int, billing: Billing = NOTHING_BESIDE) -> list[Settled]:
    """The statement of every partner with a position, or for which it is the final one, by partner id.

    A line is rounded once, half-even.
    """
    lines: defaultdict[int, list[Line]] = defaultdict(list)
    for (partner_id, kind), position in positions.items():
        if partner_id != OPERATOR_ID:
            lines[partner_id].append(_line(kind, position, currency_digits))
    settled = []
    for partner_id in sorted(lines.keys() | billing.finals.keys()):
        ordered = tuple(sorted(lines.get(partner_id, ()), key=lambda line: LINE_ORDER[line.kind]))
        taxes = tuple(
            TaxPart(line.kind, rate_ppm, line.billed_minor, half_even(line.billed_minor * rate_ppm, PPM))
            for line in ordered
            if (rate_ppm := billing.tax_ppm.get((partner_id, line.kind))) is not None
        )
        if taxes:
            ordered += (_beside(LineKind.TAX, len(taxes), sum(tax.tax_minor for tax in taxes), currency_digits),)
        net_minor = sum(line.billed_minor for line in ordered)
        carried_in_minor = billing.carried_in_minor.get(partner_id, 0)
        total_minor = net_minor + carried_in_minor
        minimum_minor = 0 if partner_id in billing.finals else billing.minimum_minor
        carried_on_minor = total_minor if abs(total_minor) < minimum_minor else 0
        forward_minor = carried_in_minor - carried_on_minor
        if forward_minor:
            ordered += (_beside(LineKind.CARRIED_FORWARD, 1, forward_minor, currency_digits),)
        due_minor = total_minor - carried_on_minor
        settled.append(Settled(partner_id, ordered, net_minor, due_minor, carried_in_minor, carried_on_minor, taxes))
    return settled


def _beside(kind: LineKind, entries: int, amount_minor: int, currency_digits: int) -> Line:
    """A line of whole minor units that no position stands behind: nothing of it is rounded."""
    return Line(kind, entries, None, amount_minor * micro_per_minor(currency_digits), 0, amount_minor, 0)


def _line(kind: LineKind, position: Contribution, currency_digits: int) -> Line:
    billed_minor = minor_from_micro(position.amount_micro, currency_digits)
    return Line(
        kind,
        position.entries,
        None if kind in LINES_WITHOUT_POINTS else position.points,
        position.amount_micro,
        position.prior_amount_micro,
        billed_minor,
        position.amount_micro - billed_minor * micro_per_minor(currency_digits),
    )


def operator_totals(
    movements: Iterable[MovementSums], entry_lines: Iterable[Contribution], settled: Iterable[Settled]
) -> OperatorTotals:
    """Pool change, margin and its parts from a period's rows, and the net from its rounded lines.

    ``entry_lines`` are the partner entries that stand on statements.

    What a movement leaves after its party and the pool is the operator's: fees, the share of an expiry that no
    issuer gets (BREAKAGE), or the difference between a lot's price and what is paid for it (SPREAD). What a member owes
    instead of giving it is none of that, and what is paid back of it costs the operator nothing.
    """
    pool = fees = spread = breakage = subsidy = receivable = 0
    for sums in movements:
        pool += sums.pool_value_micro
        receivable += sums.receivable_micro
        fees -= sums.service_fee_micro
        left = -(sums.issue_value_micro + sums.reimbursement_micro + sums.breakage_share_micro + sums.pool_value_micro)
        if sums.kind == MovementKind.EXPIRE:
            breakage += left
        elif sums.kind == MovementKind.OVERDRAW:
            spread += left + sums.receivable_micro
        else:
            spread += left
        if sums.party_id == OPERATOR_ID and sums.kind != MovementKind.REPAY:
            subsidy -= (
                sums.issue_value_micro + sums.service_fee_micro + sums.reimbursement_micro + sums.breakage_share_micro
            )
    statements = list(settled)
    booked: defaultdict[LineKind, int] = defaultdict(int)
    for line in entry_lines:
        booked[line.kind] += line.amount_micro
    return OperatorTotals(
        pool_change_micro=pool,
        fees_micro=fees - booked[LineKind.FIXED_FEE],
        spread_micro=spread,
        breakage_micro=breakage,
        rounding_micro=sum(line.residue_micro for one in statements for line in one.lines),
        subsidy_micro=subsidy,
        adjustments_micro=-booked[LineKind.ADJUSTMENT],
        tax_micro=tax_micro(statements),
        receivable_change_micro=receivable,
        deposit_change_micro=-booked[LineKind.PREPAID],
        operator_net_minor=-sum(one.net_minor for one in statements),
        gross_lines_minor=sum(abs(line.billed_minor) for one in statements for line in one.net_lines),
        gross_nets_minor=sum(abs(one.net_minor) for one in statements),
    )


def tax_micro(settled: Iterable[Settled]) -> int:
    """What the operator takes in tax on these statements, less what it pays."""
    return -sum(line.exact_micro for one in settled for line in one.lines if line.kind == LineKind.TAX)


def draft_margin_micro(positions: Positions, settled: Sequence[Settled], currency_digits: int) -> int:
    """Margin of a period from positions alone: what its rounded nets leave after all else that explains them."""
    net_minor = -sum(one.net_minor for one in settled)
    net_micro = net_minor * micro_per_minor(currency_digits)
    beside_micro = operator_amount_micro(positions, LineKind.POOL) + tax_micro(settled) + deposit_change_micro(settled)
    return net_micro - beside_micro + operator_amount_micro(positions, LineKind.MEMBER_RECEIVABLE)


def deposit_change_micro(settled: Iterable[Settled]) -> int:
    """By how much these statements change what partners had paid in before."""
    return -sum(line.exact_micro for one in settled for line in one.lines if line.kind == LineKind.PREPAID)


def operator_amount_micro(positions: Positions, kind: LineKind) -> int:
    """Amount of one of the operator's own positions; 0 where nothing of it was booked."""
    position = positions.get((OPERATOR_ID, kind))
    return 0 if position is None else position.amount_micro

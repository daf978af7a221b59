"""What a partner's money achieved: the figures of a performance report and what of them a partner may know. Pure.

Formulas: the table of report metrics in the design. Who was active elsewhere and whose points were burned where tell
one partner about another, so a partner is given such a figure only when MINIMUM_CELL_MEMBERS members stand behind it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from domain.values import OPERATOR_ID, decimal_from_minor, half_even, micro_per_minor

MINIMUM_CELL_MEMBERS = 20
"""Fewest members behind a figure across partners that a partner is shown."""

RATE_DIGITS = 4
"""Decimals of every rate, rounded half-even once."""

TRAFFIC_GIVEN, TRAFFIC_RECEIVED, MATRIX = "trafficGiven", "trafficReceived", "matrix"


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of one partner, or of all; what is taken back is counted without sign.

    ``sales_minor``: purchases less returns, below zero when more came back than was bought. ``issued`` and ``burned``
    are before reversals and refunds. ``charge_micro``: issue value and fee of awards charged to the partner, positive,
    before reversals; what the operator funds is nobody's charge.
    """

    purchases: int
    sales_minor: int
    issued: int
    reversed: int
    burned: int
    restored: int
    charge_micro: int


@dataclass(frozen=True, slots=True)
class Members:
    """Counts of members, each once: active, active twice or more, newly enrolled, and traffic."""

    active: int
    repeating: int
    new: int
    given: int
    received: int


@dataclass(frozen=True, slots=True)
class Cell:
    """Points of one issuer burned at one redeemer, and the members who did so.

    ``value_micro`` is at the redeemer's reimbursement, ``issue_value_micro`` at the issue prices of the lots.
    """

    issuer_id: int
    redeemer_id: int
    members: int
    points: int
    value_micro: int
    issue_value_micro: int


@dataclass(frozen=True, slots=True)
class ShownCell:
    """A cell of the matrix as the viewer gets it."""

    issuer_id: int
    redeemer_id: int
    points: int
    value_micro: int


@dataclass(frozen=True, slots=True)
class Performance:
    """A report as its viewer may read it; ``suppressed`` names what was withheld for want of members."""

    totals: Totals
    members: Members
    matrix: tuple[ShownCell, ...]
    suppressed: tuple[str, ...]
    currency_digits: int

    @property
    def average_order_minor(self) -> int | None:
        """Sales per purchase, rounded half-even to the minor unit; None without purchases."""
        if not self.totals.purchases:
            return None
        return half_even(self.totals.sales_minor, self.totals.purchases)

    @property
    def frequency(self) -> Decimal | None:
        """Purchases per active member."""
        return rate(self.totals.purchases, self.members.active)

    @property
    def repurchase_rate(self) -> Decimal | None:
        """Members with two purchases or more, of those with one or more."""
        return rate(self.members.repeating, self.members.active)

    @property
    def redemption_rate(self) -> Decimal | None:
        """Points burned of points issued: a flow, so it may exceed one."""
        return rate(self.totals.burned, self.totals.issued)

    @property
    def effective_reward_rate(self) -> Decimal | None:
        """Gross charge of sales; None unless sales are above zero."""
        sales_micro = self.totals.sales_minor * micro_per_minor(self.currency_digits)
        return rate(self.totals.charge_micro, sales_micro)


def rate(numerator: int, denominator: int) -> Decimal | None:
    """A quotient with RATE_DIGITS decimals, rounded half-even; None unless the denominator is above zero."""
    if denominator <= 0:
        return None
    return decimal_from_minor(half_even(numerator * 10**RATE_DIGITS, denominator), RATE_DIGITS)


def performance(
    viewer_id: int, partner_ids: Iterable[int], found: tuple[Totals, Members, Sequence[Cell]], currency_digits: int
) -> Performance:
    """The report as ``viewer_id`` may read it: a partner its own, the operator everything.

    ``partner_ids``: every partner of the coalition. A suppressed number is 0, a suppressed cell is left out.
    """
    totals, members, cells = found
    if viewer_id == OPERATOR_ID:
        shown = tuple(ShownCell(c.issuer_id, c.redeemer_id, c.points, c.value_micro) for c in cells)
        return Performance(totals, members, shown, (), currency_digits)
    suppressed = []
    given, received = members.given, members.received
    if given < MINIMUM_CELL_MEMBERS:
        given = 0
        suppressed.append(TRAFFIC_GIVEN)
    if received < MINIMUM_CELL_MEMBERS:
        received = 0
        suppressed.append(TRAFFIC_RECEIVED)
    others = set(partner_ids) - {viewer_id}
    visible = visible_cells(viewer_id, others, cells)
    across = sum(1 for cell in visible if cell.issuer_id != cell.redeemer_id)
    if across < 2 * len(others):
        # Named also when a cell is missing because it is empty: that nobody came is as telling as that three did.
        suppressed.append(MATRIX)
    counted = Members(members.active, members.repeating, members.new, given, received)
    shown = tuple(_for_partner(viewer_id, cell) for cell in visible)
    return Performance(totals, counted, shown, tuple(suppressed), currency_digits)


def visible_cells(viewer_id: int, others: set[int], cells: Sequence[Cell]) -> list[Cell]:
    """The cells of a partner's row and column that it may see, in the order given.

    Its own points burned at itself are its own total. Of its column it knows the sum, pointsBurned, so a single hidden
    cell would be what the others leave of it: then the smallest other one is hidden too. In a coalition of two there
    is no other, and that sum tells what it tells.
    """
    hidden = {
        (cell.issuer_id, cell.redeemer_id)
        for cell in cells
        if cell.issuer_id != cell.redeemer_id and cell.members < MINIMUM_CELL_MEMBERS
    }
    column = [cell for cell in cells if cell.redeemer_id == viewer_id != cell.issuer_id]
    shown = [cell for cell in column if (cell.issuer_id, viewer_id) not in hidden]
    hidden_points = sum(cell.points for cell in column) - sum(cell.points for cell in shown)
    if shown and hidden_points and len(others) - len(shown) == 1:
        smallest = min(shown, key=lambda cell: (cell.members, cell.issuer_id))
        hidden.add((smallest.issuer_id, viewer_id))
    return [
        cell
        for cell in cells
        if viewer_id in (cell.issuer_id, cell.redeemer_id) and (cell.issuer_id, cell.redeemer_id) not in hidden
    ]


def _for_partner(viewer_id: int, cell: Cell) -> ShownCell:
    # Value by points is a price: what another partner is reimbursed is in its contract and nobody else's business.
    value_micro = cell.value_micro if cell.redeemer_id == viewer_id else cell.issue_value_micro
    return ShownCell(cell.issuer_id, cell.redeemer_id, cell.points, value_micro)

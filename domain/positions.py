"""Which statement lines a movement adds to: the one mapping from rows to lines (SETTLEMENT.md c.2, c.5).

Posting uses it to keep the running positions, the close to recompute them from the rows; the audit compares both.
"""

from enum import StrEnum
from typing import NamedTuple

from domain.commands import MovementKind
from domain.values import OPERATOR_ID


class LineKind(StrEnum):
    """Kind of a statement line; POOL, SUBSIDY and MEMBER_RECEIVABLE are the operator's own and on no statement."""

    ISSUE = "ISSUE"
    SERVICE_FEE = "SERVICE_FEE"
    REIMBURSEMENT = "REIMBURSEMENT"
    EARN_REVERSAL = "EARN_REVERSAL"
    SERVICE_FEE_REFUND = "SERVICE_FEE_REFUND"
    BURN_REVERSAL = "BURN_REVERSAL"
    BREAKAGE_SHARE = "BREAKAGE_SHARE"
    FIXED_FEE = "FIXED_FEE"
    ADJUSTMENT = "ADJUSTMENT"
    PREPAID = "PREPAID"
    TAX = "TAX"
    CARRIED_FORWARD = "CARRIED_FORWARD"
    POOL = "POOL"
    SUBSIDY = "SUBSIDY"
    MEMBER_RECEIVABLE = "MEMBER_RECEIVABLE"


_AWARD_LINES = ((LineKind.ISSUE, "issue_value_micro"), (LineKind.SERVICE_FEE, "service_fee_micro"))
_RETURN_LINES = ((LineKind.EARN_REVERSAL, "issue_value_micro"), (LineKind.SERVICE_FEE_REFUND, "service_fee_micro"))
_BURN_LINES = ((LineKind.REIMBURSEMENT, "reimbursement_micro"),)

MONEY_LINES: dict[MovementKind, tuple[tuple[LineKind, str], ...]] = {
    MovementKind.EARN: _AWARD_LINES,
    MovementKind.EARN_PENDING: (),
    MovementKind.CONFIRM: _AWARD_LINES,
    MovementKind.CANCEL: (),
    MovementKind.EARN_REVERSAL: _RETURN_LINES,
    MovementKind.OVERDRAW: _RETURN_LINES,
    MovementKind.REPAY: ((LineKind.MEMBER_RECEIVABLE, "issue_value_micro"),),
    MovementKind.BURN: _BURN_LINES,
    MovementKind.HOLD: (),
    MovementKind.CAPTURE: _BURN_LINES,
    MovementKind.RELEASE: (),
    MovementKind.BURN_REVERSAL: ((LineKind.BURN_REVERSAL, "reimbursement_micro"),),
    MovementKind.EXPIRE: ((LineKind.BREAKAGE_SHARE, "breakage_share_micro"),),
    MovementKind.TRANSFER_OUT: (),
    MovementKind.TRANSFER_IN: (),
    MovementKind.ADJUST: ((LineKind.SUBSIDY, "issue_value_micro"),),
}
"""Per kind of movement, the lines of its party and the money column that each line sums."""

ENTRY_LINES = {
    "FIXED_FEE": LineKind.FIXED_FEE,
    "ADJUSTMENT": LineKind.ADJUSTMENT,
    "FLOAT_USED": LineKind.PREPAID,
}
"""Kinds of partner entries that stand on a statement, and their line."""

UNTAXED_LINES = frozenset(
    {
        LineKind.PREPAID,
        LineKind.TAX,
        LineKind.CARRIED_FORWARD,
        LineKind.POOL,
        LineKind.SUBSIDY,
        LineKind.MEMBER_RECEIVABLE,
    }
)
"""Lines that no tax is added to: money that was paid, tax itself, and the operator's own."""

WITHOUT_MONEY = frozenset({MovementKind.EARN_PENDING, MovementKind.CANCEL, MovementKind.HOLD, MovementKind.RELEASE})
"""Movements between what is usable and what is pending or held: no money moves."""

OUTSIDE_POOL = WITHOUT_MONEY | {MovementKind.OVERDRAW}
"""Movements that neither add to the points in the pool (available and held) nor take from them."""

OWING = {MovementKind.OVERDRAW: 1, MovementKind.REPAY: -1}
"""Movements that change what members owe, by whether their ``issue_value_micro`` adds to it."""


class MovementSums(NamedTuple):
    """One movement, or the sum of several that share kind, party and prior; money signed as the columns are."""

    kind: MovementKind
    party_id: int
    prior: bool
    entries: int
    points: int
    issue_value_micro: int
    service_fee_micro: int
    reimbursement_micro: int
    breakage_share_micro: int
    pool_value_micro: int
    hash_sum: int

    @property
    def pool_points(self) -> int:
        """By how much the points in the pool change: those that are available or held."""
        return 0 if self.kind in OUTSIDE_POOL else self.points

    @property
    def owed_points(self) -> int:
        """By how much the points that members owe change."""
        return OWING.get(self.kind, 0) * abs(self.points)

    @property
    def receivable_micro(self) -> int:
        """By how much the operator's MEMBER_RECEIVABLE changes."""
        return OWING.get(self.kind, 0) * self.issue_value_micro


class Contribution(NamedTuple):
    """What is added to one position. ``points`` counts the line's points without sign; POOL's and
    those of adjustments are the member's.
    """

    partner_id: int
    kind: LineKind
    entries: int
    points: int
    amount_micro: int
    prior_amount_micro: int
    hash_sum: int


def entry_line(
    partner_id: int, kind: LineKind, of_line: str | None, entries: int, amount_micro: int, hash_sum: int
) -> Contribution:
    """What partner entries add to their line. Those that name a line correct one of a closed statement: prior."""
    return Contribution(partner_id, kind, entries, 0, amount_micro, 0 if of_line is None else amount_micro, hash_sum)


def contributions(sums: MovementSums) -> list[Contribution]:
    """The positions that movements add to: the party's lines, and POOL, which covers every movement.

    Where the operator is the party (a subsidised award, its reversal or expiry) all its money is one SUBSIDY
    position. What members owe more, or less, is MEMBER_RECEIVABLE. ``prior`` says that the movement reverses something
    booked in an earlier period.
    """
    pool = Contribution(
        OPERATOR_ID, LineKind.POOL, sums.entries, sums.pool_points, sums.pool_value_micro, 0, sums.hash_sum
    )
    lines: list[tuple[LineKind, int]] = []
    if sums.party_id != OPERATOR_ID:
        lines = [(kind, getattr(sums, column)) for kind, column in MONEY_LINES[sums.kind]]
    elif MONEY_LINES[sums.kind] and sums.kind != MovementKind.REPAY:
        lines = [(LineKind.SUBSIDY, sum(getattr(sums, column) for _, column in MONEY_LINES[sums.kind]))]
    owed = []
    if sums.kind in OWING:
        figures = (sums.entries, sums.owed_points, sums.receivable_micro, 0, sums.hash_sum)
        owed = [Contribution(OPERATOR_ID, LineKind.MEMBER_RECEIVABLE, *figures)]
    return [
        *(
            Contribution(
                sums.party_id,
                kind,
                sums.entries,
                # Adjustments have both signs: without sign, a sum of several would not be that of each.
                sums.points if sums.kind == MovementKind.ADJUST else abs(sums.points),
                amount_micro,
                amount_micro if sums.prior else 0,
                sums.hash_sum,
            )
            for kind, amount_micro in lines
        ),
        *owed,
        pool,
    ]

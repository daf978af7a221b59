"""The pure arithmetic: rounding once per line, and the identity that ties partners, pool and margin together."""

from hypothesis import given
from hypothesis import strategies as st

from domain.commands import MovementKind
from domain.positions import Contribution, LineKind, MovementSums, entry_line
from domain.values import OPERATOR_ID, micro_per_minor
from settlement.lines import draft_margin_micro, operator_totals, positions_of_movements, settle

POINTS = st.integers(0, 10**9)
PRICE = st.integers(0, 10**9)


@st.composite
def movements(draw: st.DrawFn) -> MovementSums:
    """Any movement that the journal allows: prices, parties and pool values are free, signs as columns have them."""
    kind = draw(st.sampled_from(list(MovementKind)))
    is_burn = kind in (MovementKind.BURN, MovementKind.BURN_REVERSAL)
    party = draw(st.integers(1 if is_burn else 0, 4))
    points = draw(POINTS)
    sign = 1 if kind in (MovementKind.EARN, MovementKind.BURN_REVERSAL) else -1
    pool = sign * points * draw(PRICE)
    is_award = kind in (MovementKind.EARN, MovementKind.EARN_REVERSAL)
    issue = -sign * points * draw(PRICE) if is_award else 0
    fee = -sign * points * draw(PRICE) if is_award and party != OPERATOR_ID else 0
    paid = -sign * points * draw(PRICE) if is_burn else 0
    breakage = -pool if party == OPERATOR_ID else draw(st.integers(0, -pool)) if pool < 0 else 0
    return MovementSums(
        kind,
        party,
        draw(st.booleans()) and kind.endswith("_REVERSAL"),
        1,
        sign * points,
        issue,
        fee,
        paid,
        breakage if kind == MovementKind.EXPIRE else 0,
        pool,
        draw(st.integers(-(2**63), 2**63 - 1)),
    )


def fixed_fee(partner_id: int, fee_micro: int) -> Contribution:
    return Contribution(partner_id, LineKind.FIXED_FEE, 1, 0, -fee_micro, 0, 7)


FEES = st.dictionaries(st.integers(1, 4), st.integers(1, 10**12), max_size=4)
ADJUSTMENTS = st.lists(
    st.builds(
        entry_line,
        st.integers(1, 4),
        st.sampled_from([LineKind.ADJUSTMENT, LineKind.PREPAID]),
        st.sampled_from([None, "ISSUE"]),
        st.just(1),
        st.integers(-(10**12), 10**12),
        st.integers(-(2**63), 2**63 - 1),
    ),
    max_size=6,
)


@given(st.lists(movements(), max_size=30), FEES, ADJUSTMENTS, st.sampled_from([0, 2, 3]))
def test_nets_pool_and_margin_balance_to_the_micro_unit(
    rows: list[MovementSums], fees: dict[int, int], adjustments: list[Contribution], digits: int
) -> None:
    entries = [*(fixed_fee(partner_id, fee) for partner_id, fee in fees.items()), *adjustments]
    positions = positions_of_movements(rows, entries)
    settled = settle(positions, digits)
    totals = operator_totals(rows, entries, settled)
    for kind, micro in (
        (LineKind.ADJUSTMENT, totals.adjustments_micro),
        (LineKind.PREPAID, totals.deposit_change_micro),
    ):
        assert micro == -sum(one.amount_micro for one in adjustments if one.kind == kind)
    net_micro = totals.operator_net_minor * micro_per_minor(digits)
    assert sum(one.net_minor for one in settled) + totals.operator_net_minor == 0
    assert net_micro == totals.pool_change_micro + totals.margin_micro + totals.deposit_change_micro
    assert draft_margin_micro(positions, settled, digits) == totals.margin_micro


@given(st.lists(movements(), max_size=30), st.sampled_from([0, 2, 3]))
def test_each_line_is_rounded_once_and_its_residue_kept(rows: list[MovementSums], digits: int) -> None:
    per_minor = micro_per_minor(digits)
    settled = settle(positions_of_movements(rows, []), digits)
    for one in settled:
        assert one.net_minor == one.due_minor == sum(line.billed_minor for line in one.lines)
        for line in one.lines:
            assert line.billed_minor * per_minor + line.residue_micro == line.exact_micro
            assert 2 * abs(line.residue_micro) <= per_minor
            assert 2 * abs(line.residue_micro) != per_minor or line.billed_minor % 2 == 0


@given(st.lists(movements(), max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[MovementSums], shuffler: object) -> None:
    shuffled = list(rows)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    assert settle(positions_of_movements(shuffled, []), 2) == settle(positions_of_movements(rows, []), 2)


@given(st.lists(movements(), max_size=12), st.integers(1, 5))
def test_exact_lines_scale(rows: list[MovementSums], times: int) -> None:
    once = positions_of_movements(rows, [])
    again = positions_of_movements(rows * times, [])
    assert {key: p.amount_micro * times for key, p in once.items()} == {key: p.amount_micro for key, p in again.items()}


def test_half_a_cent_goes_to_the_even_one() -> None:
    rows = [
        MovementSums(MovementKind.BURN, partner, False, 1, -1, 0, 0, amount, 0, 0, 0)
        for partner, amount in ((1, 5_000), (2, 15_000), (3, 25_000), (4, 25_001))
    ]
    settled = settle(positions_of_movements(rows, []), 2)
    assert [(one.net_minor, one.lines[0].residue_micro) for one in settled] == [
        (0, 5_000),
        (2, -5_000),
        (2, 5_000),
        (3, -4_999),
    ]


def test_an_adjustment_that_names_a_closed_line_is_prior() -> None:
    entries = [
        entry_line(1, LineKind.ADJUSTMENT, of, 1, amount, 0) for of, amount in ((None, 70_000), ("ISSUE", 30_000))
    ]
    (only,) = settle(positions_of_movements([], entries), 2)
    assert [(line.kind, line.entries, line.exact_micro, line.prior_exact_micro) for line in only.lines] == [
        (LineKind.ADJUSTMENT, 2, 100_000, 30_000)
    ]


def test_a_line_of_zero_stands_and_one_without_entries_does_not() -> None:
    rows = [MovementSums(MovementKind.EARN, 1, False, 1, 0, 0, 0, 0, 0, 0, 0)]
    (only,) = settle(positions_of_movements(rows, []), 2)
    assert [(line.kind, line.entries, line.billed_minor) for line in only.lines] == [
        (LineKind.ISSUE, 1, 0),
        (LineKind.SERVICE_FEE, 1, 0),
    ]


def test_efficiency_of_nothing_is_none() -> None:
    assert operator_totals([], [], []).netting_efficiency_ppm is None

"""The report's arithmetic, and what of it a partner may know."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.values import OPERATOR_ID
from settlement.performance import (
    MATRIX,
    MINIMUM_CELL_MEMBERS,
    TRAFFIC_GIVEN,
    TRAFFIC_RECEIVED,
    Cell,
    Members,
    Performance,
    ShownCell,
    Totals,
    performance,
    rate,
    visible_cells,
)

K = MINIMUM_CELL_MEMBERS
NOTHING = Totals(0, 0, 0, 0, 0, 0, 0)
NOBODY = Members(0, 0, 0, 0, 0)


def cell(issuer_id: int, redeemer_id: int, members: int = K, points: int = 100) -> Cell:
    return Cell(issuer_id, redeemer_id, members, points, points * 9_000, points * 10_000)


def report(viewer_id: int, members: Members = NOBODY, cells: tuple[Cell, ...] = (), partners: int = 3) -> Performance:
    return performance(viewer_id, range(1, partners + 1), (NOTHING, members, cells), 2)


def pairs(found: Performance) -> list[tuple[int, int]]:
    return [(each.issuer_id, each.redeemer_id) for each in found.matrix]


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [
        (1, 3, "0.3333"),
        (2, 3, "0.6667"),
        (1, 20_000, "0.0000"),  # half a ten-thousandth goes to the even one
        (3, 20_000, "0.0002"),
        (5, 2, "2.5000"),
        (0, 7, "0.0000"),
        (7, 0, None),
        (7, -1, None),
    ],
)
def test_rates_have_four_decimals_and_no_denominator_no_rate(
    numerator: int, denominator: int, expected: str | None
) -> None:
    found = rate(numerator, denominator)
    assert (None if found is None else format(found, "f")) == expected


@given(st.integers(-(10**15), 10**15), st.integers(1, 10**15))
def test_a_rate_is_the_nearest_ten_thousandth(numerator: int, denominator: int) -> None:
    found = rate(numerator, denominator)
    assert found is not None
    assert abs(int(found.scaleb(4)) * denominator - numerator * 10_000) * 2 <= denominator


def test_figures_follow_from_totals() -> None:
    found = performance(
        OPERATOR_ID, [1], (Totals(4, 1_001, 2_000, 10, 500, 5, 22_000_000), Members(3, 1, 0, 0, 0), ()), 2
    )
    assert (found.average_order_minor, found.frequency, found.repurchase_rate) == (
        250,
        Decimal("1.3333"),
        Decimal("0.3333"),
    )
    # 22.00 on sales of 10.01
    assert (found.redemption_rate, found.effective_reward_rate) == (Decimal("0.2500"), Decimal("2.1978"))


def test_nothing_happened() -> None:
    found = report(OPERATOR_ID)
    assert found.average_order_minor is None
    assert [found.frequency, found.repurchase_rate, found.redemption_rate, found.effective_reward_rate] == [None] * 4


def test_sales_below_zero_have_no_reward_rate_but_an_average() -> None:
    found = performance(OPERATOR_ID, [1], (Totals(1, -350, 0, 0, 0, 0, 1), NOBODY, ()), 2)
    assert (found.effective_reward_rate, found.average_order_minor) == (None, -350)


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 0), (K - 1, 0), (K, K), (K + 1, K + 1)])
def test_traffic_shows_from_twenty_members_on(count: int, shown: int) -> None:
    for members, name in (
        (Members(9, 9, 9, count, K), TRAFFIC_GIVEN),
        (Members(9, 9, 9, K, count), TRAFFIC_RECEIVED),
    ):
        found = report(1, members)
        assert {found.members.given, found.members.received} == {shown, K}
        assert found.suppressed == ((name, MATRIX) if not shown else (MATRIX,))
        # A partner's own totals, however few, are its own.
        assert (found.members.active, found.members.repeating, found.members.new) == (9, 9, 9)
        operators = report(OPERATOR_ID, members)
        assert (operators.members, operators.suppressed) == (members, ())


def test_a_partner_sees_its_row_and_column_from_twenty_members_on() -> None:
    cells = (
        cell(1, 1, members=1),
        cell(1, 2),
        cell(1, 3, members=K - 1),
        cell(2, 1),
        cell(2, 3),
        cell(3, 1),
        cell(3, 3),
    )
    found = report(1, cells=cells)
    assert pairs(found) == [(1, 1), (1, 2), (2, 1), (3, 1)]
    assert MATRIX in found.suppressed
    everything = report(OPERATOR_ID, cells=cells)
    assert pairs(everything) == [(each.issuer_id, each.redeemer_id) for each in cells]


def test_a_full_matrix_is_not_named_as_suppressed() -> None:
    cells = tuple(cell(i, r) for i in (1, 2, 3) for r in (1, 2, 3))
    found = report(1, Members(K, K, K, K, K), cells)
    assert pairs(found) == [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]
    assert found.suppressed == ()


def test_a_single_hidden_cell_of_the_column_takes_the_smallest_other_with_it() -> None:
    """What was burned at a partner is its own total: less the cells shown, it would tell the hidden one."""
    cells = (cell(2, 1, members=3), cell(3, 1, members=K + 5), cell(4, 1, members=K + 1))
    found = report(1, cells=cells, partners=4)
    assert pairs(found) == [(3, 1)]
    # Two hidden ones hide each other, and an empty column hides nothing.
    assert pairs(report(1, cells=(cell(2, 1, members=3), cell(3, 1)), partners=4)) == [(3, 1)]
    assert pairs(report(1, cells=(cell(3, 1), cell(4, 1)), partners=4)) == [(3, 1), (4, 1)]
    # In a coalition of two what was burned of others' points is the other's, whatever is hidden.
    assert pairs(report(1, cells=(cell(1, 1, members=2), cell(2, 1, members=3)), partners=2)) == [(1, 1)]


def test_a_row_has_no_known_total_and_hides_its_small_cells_alone() -> None:
    cells = (cell(1, 2, members=3), cell(1, 3), cell(1, 4))
    assert pairs(report(1, cells=cells, partners=4)) == [(1, 3), (1, 4)]


def test_value_never_tells_another_partners_price() -> None:
    cells = (cell(1, 1), cell(1, 2), cell(2, 1), cell(3, 1))
    assert report(1, cells=cells).matrix == (
        ShownCell(1, 1, 100, 900_000),
        ShownCell(1, 2, 100, 1_000_000),  # what it paid for them, not what partner 2 gets
        ShownCell(2, 1, 100, 900_000),
        ShownCell(3, 1, 100, 900_000),
    )
    assert {each.value_micro for each in report(OPERATOR_ID, cells=cells).matrix} == {900_000}


CELLS = st.dictionaries(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 2 * K), st.integers(1, 500)),
)


@given(CELLS, st.integers(1, 5))
def test_no_shown_or_derivable_cell_has_fewer_members(
    drawn: dict[tuple[int, int], tuple[int, int]], viewer_id: int
) -> None:
    cells = [cell(*key, *drawn[key]) for key in sorted(drawn)]
    others = {1, 2, 3, 4, 5} - {viewer_id}
    shown = visible_cells(viewer_id, others, cells)
    assert all(viewer_id in (each.issuer_id, each.redeemer_id) for each in shown)
    assert all(each.members >= K or each.issuer_id == each.redeemer_id for each in shown)
    column = [each for each in cells if each.redeemer_id == viewer_id != each.issuer_id]
    seen = {each.issuer_id for each in shown if each.redeemer_id == viewer_id != each.issuer_id}
    left_over = sum(each.points for each in column if each.issuer_id not in seen)
    assert not left_over or len(others - seen) >= 2
    # Nothing is hidden without a reason: at most one cell more than those that are too small.
    small = sum(1 for each in column if each.members < K)
    assert len(column) - len(seen) <= small + 1
    assert {each for each in cells if each.issuer_id == each.redeemer_id == viewer_id} <= set(shown)

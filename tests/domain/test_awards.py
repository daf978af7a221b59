"""What a purchase earns, and what its budget grants: pure arithmetic, at each limit and one point beside it."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.awards import (
    Award,
    RatedLine,
    Returned,
    award_kept,
    decide_awards,
    eligible_minor,
    requested_awards,
    rule_points,
)
from domain.errors import RefusalCode, Refused
from domain.terms import BudgetPlan, EarnRule, Terms
from domain.values import POINTS_MAX

JANUARY = date(2017, 1, 1)
PARTNER, OPERATOR = 7, 0
PRICE = 11_000


def a_rule(
    code: str = "base",
    rate_micro: int = 1_000_000,
    *,
    max_points: int | None = None,
    categories: tuple[str, ...] = (),
    products: tuple[str, ...] = (),
) -> EarnRule:
    return EarnRule(1, PARTNER, code, JANUARY, None, rate_micro, max_points, list(categories), list(products))


def terms(issue_price_micro: int = 10_000, service_fee_micro: int = 1_000) -> Terms:
    return Terms(1, PARTNER, JANUARY, None, issue_price_micro, service_fee_micro, 9_000, 0, 0)


def plan(on_limit: str) -> BudgetPlan:
    return BudgetPlan(1, PARTNER, JANUARY, None, True, 0, 0, on_limit, "CREDIT_CURRENT", None, "POSTPAID")


def line(sku: str | None, category: str | None, amount_minor: int) -> RatedLine:
    return RatedLine(sku, category, 1_000, amount_minor)


BASE, BONUS = a_rule(), a_rule("bonus")


# ---------------------------------------------------------------- points of a purchase


@pytest.mark.parametrize(
    ("amount_minor", "rate_micro", "digits", "points"),
    [
        (10_050, 1_000_000, 2, 100),
        (10_099, 1_000_000, 2, 100),
        (99, 1_000_000, 2, 0),
        (100, 1_000_000, 2, 1),
        (10_050, 1, 2, 0),
        (100_000_000, 1, 2, 1),
        (1_234, 333_333, 2, 4),
        (1_234, 500_000, 0, 617),
        (1_234, 500_000, 3, 0),
        (0, 10**12, 2, 0),
    ],
)
def test_points_are_floored_once(amount_minor: int, rate_micro: int, digits: int, points: int) -> None:
    assert rule_points(a_rule(rate_micro=rate_micro), amount_minor, digits) == points


def test_lines_are_summed_before_the_floor() -> None:
    lines = [line("a", None, 150), line("b", None, 150)]

    assert requested_awards([BASE], 300, lines, 2) == [(BASE, 3)]


def test_the_cap_comes_after_the_floor() -> None:
    capped = a_rule(max_points=50)

    assert [rule_points(capped, amount, 2) for amount in (4_999, 5_000, 5_099, 5_100, 10_000)] == [49, 50, 50, 50, 50]
    assert rule_points(a_rule(max_points=0), 10_000, 2) == 0


BASKET = [line("milk", "dairy", 500), line("wine", "alcohol", 1_500), line("gift", None, 3_000), line(None, None, 100)]


@pytest.mark.parametrize(
    ("rule", "eligible"),
    [
        (a_rule(), 5_100),
        (a_rule(categories=("alcohol",)), 3_600),
        (a_rule(products=("gift",)), 2_100),
        (a_rule(categories=("alcohol", "dairy"), products=("gift",)), 100),
        (a_rule(categories=("alcohol",), products=("wine",)), 3_600),
        (a_rule(categories=("Alcohol",)), 5_100),
    ],
)
def test_exclusions_leave_out_lines_by_product_or_category(rule: EarnRule, eligible: int) -> None:
    assert eligible_minor(rule, 5_100, BASKET, Returned()) == eligible


def test_without_lines_nothing_can_be_excluded() -> None:
    assert eligible_minor(a_rule(categories=("alcohol",)), 5_100, None, Returned()) == 5_100


def test_a_purchase_earns_at_most_a_billion_points() -> None:
    everything = a_rule(rate_micro=1_000_000_000)

    assert requested_awards([everything], POINTS_MAX // 10, None, 2) == [(everything, POINTS_MAX)]
    with pytest.raises(Refused) as refused:
        requested_awards([everything, a_rule("bonus")], POINTS_MAX // 10, None, 2)
    assert (refused.value.code, refused.value.field) == (RefusalCode.AMOUNT_INVALID, "amount")


# ---------------------------------------------------------------- what the budget grants

ASKED = [(BASE, 100), (BONUS, 50)]
FULL = [Award(BASE, 100, 100, PARTNER), Award(BONUS, 50, 50, PARTNER)]
DECLINED = None


def decided(on_limit: str, available_micro: int) -> list[Award] | None:
    """The awards, or None where the whole purchase is declined."""
    try:
        return decide_awards(ASKED, PARTNER, terms(), plan(on_limit), available_micro)
    except Refused as refused:
        return DECLINED if refused.code == RefusalCode.BUDGET_EXHAUSTED else []


def granted(base: int, bonus: int, base_funder: int = PARTNER, bonus_funder: int = PARTNER) -> list[Award]:
    return [Award(BASE, 100, base, base_funder), Award(BONUS, 50, bonus, bonus_funder)]


@pytest.mark.parametrize("on_limit", ["DECLINE", "PARTIAL", "BASE_ONLY", "OPERATOR_FUNDED", "OVERDRAFT"])
@pytest.mark.parametrize("available_micro", [150 * PRICE, 150 * PRICE + 1, 10**18])
def test_what_fits_is_granted_in_full(on_limit: str, available_micro: int) -> None:
    assert decided(on_limit, available_micro) == FULL


@pytest.mark.parametrize(
    ("on_limit", "available_micro", "awards"),
    [
        ("DECLINE", 150 * PRICE - 1, DECLINED),
        ("DECLINE", 0, DECLINED),
        ("OVERDRAFT", 150 * PRICE - 1, DECLINED),
        ("PARTIAL", 150 * PRICE - 1, granted(100, 49)),
        ("PARTIAL", 100 * PRICE, granted(100, 0)),
        ("PARTIAL", 100 * PRICE - 1, granted(99, 0)),
        ("PARTIAL", PRICE, granted(1, 0)),
        ("PARTIAL", PRICE - 1, granted(0, 0)),
        ("PARTIAL", 0, granted(0, 0)),
        ("PARTIAL", -5 * PRICE, granted(0, 0)),
        ("BASE_ONLY", 150 * PRICE - 1, granted(100, 0)),
        ("BASE_ONLY", 100 * PRICE, granted(100, 0)),
        ("BASE_ONLY", 100 * PRICE - 1, DECLINED),
        ("OPERATOR_FUNDED", 150 * PRICE - 1, granted(100, 50, PARTNER, OPERATOR)),
        ("OPERATOR_FUNDED", 100 * PRICE, granted(100, 50, PARTNER, OPERATOR)),
        ("OPERATOR_FUNDED", 100 * PRICE - 1, granted(100, 50, OPERATOR, PARTNER)),
        ("OPERATOR_FUNDED", 50 * PRICE - 1, granted(100, 50, OPERATOR, OPERATOR)),
        ("OPERATOR_FUNDED", -1, granted(100, 50, OPERATOR, OPERATOR)),
    ],
)
def test_each_behaviour_at_its_limit(on_limit: str, available_micro: int, awards: list[Award] | None) -> None:
    assert decided(on_limit, available_micro) == awards


def test_points_without_price_need_a_plan_but_no_money() -> None:
    free = terms(0, 0)

    for on_limit in ("DECLINE", "PARTIAL", "BASE_ONLY", "OPERATOR_FUNDED", "OVERDRAFT"):
        assert decide_awards(ASKED, PARTNER, free, plan(on_limit), 0) == FULL
        assert decide_awards(ASKED, PARTNER, free, plan(on_limit), -1) == FULL
    with pytest.raises(Refused, match="no marketing budget"):
        decide_awards(ASKED, PARTNER, free, None, 0)


def test_without_a_plan_every_award_is_declined() -> None:
    with pytest.raises(Refused) as refused:
        decide_awards(ASKED, PARTNER, terms(), None, 10**18)
    assert refused.value.code == RefusalCode.BUDGET_EXHAUSTED


def test_a_purchase_of_no_points_needs_no_plan() -> None:
    assert decide_awards([(BASE, 0)], PARTNER, terms(), None, 0) == [Award(BASE, 0, 0, PARTNER)]
    assert decide_awards([], PARTNER, terms(), None, 0) == []


@given(
    st.lists(st.integers(min_value=0, max_value=10_000), max_size=5),
    st.integers(min_value=0, max_value=50_000),
    st.integers(min_value=-(10**9), max_value=10**9),
    st.sampled_from(["DECLINE", "PARTIAL", "BASE_ONLY", "OPERATOR_FUNDED", "OVERDRAFT"]),
)
def test_nothing_that_is_granted_costs_more_than_there_is(
    points: list[int], price_micro: int, available_micro: int, on_limit: str
) -> None:
    asked = [(a_rule("base" if number == 0 else f"bonus-{number}"), asking) for number, asking in enumerate(points)]
    try:
        awards = decide_awards(asked, PARTNER, terms(price_micro, 0), plan(on_limit), available_micro)
    except Refused:
        return
    cost_micro = price_micro * sum(award.granted_points for award in awards if award.funder_id == PARTNER)

    assert cost_micro <= max(available_micro, 0)
    assert [(award.rule, award.requested_points) for award in awards] == asked
    assert all(0 <= award.granted_points <= award.requested_points for award in awards)


# ---------------------------------------------------------------- what stays after a return


@pytest.mark.parametrize(
    ("returned_minor", "kept"),
    [(0, 50), (4_999, 50), (5_000, 50), (5_001, 49), (9_900, 1), (9_901, 0), (10_000, 0)],
)
def test_the_cap_applies_again_to_what_is_kept(returned_minor: int, kept: int) -> None:
    assert award_kept(a_rule(max_points=50), 50, 10_000, None, Returned(returned_minor), 2) == kept


@pytest.mark.parametrize(("returned_minor", "kept"), [(0, 30), (7_000, 30), (7_001, 29), (10_000, 0)])
def test_an_award_that_was_cut_is_first_given_up_where_it_was_not_granted(returned_minor: int, kept: int) -> None:
    assert award_kept(BASE, 30, 10_000, None, Returned(returned_minor), 2) == kept


def test_a_purchase_without_a_rule_keeps_nothing() -> None:
    assert award_kept(None, 0, 10_000, None, Returned(), 2) == 0


def test_an_amount_returned_without_lines_reduces_the_eligible_part_in_proportion() -> None:
    no_wine = a_rule(categories=("alcohol",))

    # 36.00 of 51.00 are eligible; of the 34.00 that stay, 36 x 34 / 51 = 24.00.
    assert eligible_minor(no_wine, 5_100, BASKET, Returned(1_700)) == 2_400
    # One cent more: 36 x 33.99 / 51 = 23.9929…, floored to the cent.
    assert eligible_minor(no_wine, 5_100, BASKET, Returned(1_701)) == 2_399
    # The wine came back first: 36.00 are kept, all eligible; of those 17.00 come back.
    wine_back = Returned().plus(0, [line("wine", "alcohol", 1_500)])
    assert eligible_minor(no_wine, 5_100, BASKET, wine_back) == 3_600
    assert eligible_minor(no_wine, 5_100, BASKET, wine_back.plus(1_700, ())) == 1_900

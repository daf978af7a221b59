"""The arithmetic of campaigns: splits that sum, and returns in any order that end at nothing and never give points."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.awards import NOTHING_RETURNED, RatedLine, Returned
from domain.campaigns import Purchase, campaign_points, granted_of, parts_kept, parts_of
from domain.terms import Campaign, EarnRule
from domain.values import largest_remainder

PPM = 1_000_000
BASE = EarnRule(1, 1, "base", date(2017, 1, 1), None, 1_500_000, None, ["tobacco"], [])


def a_campaign(
    shares: tuple[int, ...] = (PPM,),
    *,
    multiplier: int | None = None,
    bonus: int | None = None,
    min_amount: int = 0,
    rate: int | None = None,
    categories: tuple[str, ...] = (),
    max_points: int | None = None,
) -> Campaign:
    """A campaign with these shares, of funders 1, 2, 3 and so on."""
    day = date(2017, 1, 1)
    funding = tuple(enumerate(shares, start=1))
    gives = (multiplier, bonus, min_amount, rate, list(categories), list[str](), max_points)
    return Campaign(-1, "c", "C", day, day, None, *gives, funding, None)


shares = st.lists(st.integers(1, 100), min_size=1, max_size=5).map(
    lambda weights: tuple(largest_remainder(PPM - 10_000 * len(weights), weights))
).map(lambda parts: tuple(part + 10_000 for part in parts))  # fmt: skip
categories = st.sampled_from(["wine", "milk", "tobacco", None])
rated = st.lists(
    st.builds(RatedLine, st.none(), categories, st.just(1000), st.integers(0, 20_000)), min_size=1, max_size=4
)


@st.composite
def campaigns(draw: st.DrawFn) -> Campaign:
    split = draw(shares)
    most = draw(st.none() | st.integers(0, 500))
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return a_campaign(split, multiplier=draw(st.integers(PPM + 1, 5 * PPM)), max_points=most)
    if kind == 1:
        return a_campaign(
            split, bonus=draw(st.integers(1, 2_000)), min_amount=draw(st.integers(0, 200)) * PPM, max_points=most
        )
    only = draw(st.sampled_from([(), ("wine",), ("wine", "milk")]))
    return a_campaign(split, rate=draw(st.integers(0, 5 * PPM)), categories=only, max_points=most)


@st.composite
def purchases(draw: st.DrawFn) -> Purchase:
    lines = draw(st.none() | rated)
    minor = draw(st.integers(0, 50_000)) if lines is None else sum(line.amount_minor for line in lines)
    return Purchase(draw(st.sampled_from([BASE, None])), minor, lines, 2)


@given(st.integers(0, 10**9), st.lists(st.integers(1, PPM), min_size=1, max_size=6))
def test_a_split_sums_to_the_whole_and_no_part_is_a_point_off(total: int, weights: list[int]) -> None:
    parts = largest_remainder(total, weights)

    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)


def test_ties_go_to_whose_code_comes_first() -> None:
    assert parts_of(a_campaign((600_000, 400_000)), 1_001) == [601, 400]
    assert parts_of(a_campaign((500_000, 500_000)), 7) == [4, 3]
    assert parts_of(a_campaign((250_000, 250_000, 500_000)), 1) == [0, 0, 1]
    assert parts_of(a_campaign((333_334, 333_333, 333_333)), 2) == [1, 1, 0]


@given(campaigns(), purchases(), st.data())
def test_returns_in_any_order_give_back_each_part_exactly_once(
    campaign: Campaign, purchase: Purchase, data: st.DataObject
) -> None:
    whole = campaign_points(campaign, purchase, NOTHING_RETURNED)
    granted = [data.draw(st.integers(0, part)) for part in parts_of(campaign, whole)]
    returned, left, back = NOTHING_RETURNED, list(granted), [0] * len(granted)
    while returned.total_minor < purchase.amount_minor:
        returned = a_return(purchase, returned, data)
        kept = campaign_points(campaign, purchase, returned)
        now = [min(both) for both in zip(granted, parts_kept(campaign, whole, kept), strict=True)]
        steps = [was - still for was, still in zip(left, now, strict=True)]
        assert min(steps) >= 0, "a return gave points"
        back = [sum(both) for both in zip(back, steps, strict=True)]
        assert sum(now) <= kept
        left = now
    if purchase.amount_minor:
        assert back == granted
        assert left == [0] * len(granted)


def a_return(purchase: Purchase, returned: Returned, data: st.DataObject) -> Returned:
    """One more return: of an amount, or of a part of some line; sometimes of all that is left."""
    left = purchase.amount_minor - returned.total_minor
    if purchase.lines is None or data.draw(st.booleans()):
        return returned.plus(data.draw(st.integers(1, left) | st.just(left)), ())
    key = data.draw(st.sampled_from(sorted({line.key for line in purchase.lines}, key=str)))
    bought = sum(line.amount_minor for line in purchase.lines if line.key == key)
    most = min(left, bought - returned.lines.get(key, (0, 0))[1])
    if most <= 0:
        return returned.plus(left, ())
    return returned.plus(0, [RatedLine(*key, 0, data.draw(st.integers(1, most)))])


@given(shares, st.integers(0, 3_000), st.data())
def test_what_is_kept_depends_on_the_total_alone_and_only_shrinks(
    split: tuple[int, ...], whole: int, data: st.DataObject
) -> None:
    campaign = a_campaign(split, bonus=1)
    kept = data.draw(st.integers(0, whole))

    parts = parts_kept(campaign, whole, kept)
    assert parts == [
        min(column) for column in zip(*(parts_of(campaign, n) for n in range(kept, whole + 1)), strict=True)
    ]
    assert parts_kept(campaign, whole, whole) == parts_of(campaign, whole)
    assert parts_kept(campaign, whole, 0) == [0] * len(split)


def test_a_smaller_total_that_would_give_a_funder_more_does_not() -> None:
    paradox = a_campaign((428_571, 428_571, 142_858), bonus=1)

    assert (parts_of(paradox, 11), parts_of(paradox, 10), parts_of(paradox, 9)) == ([5, 5, 1], [4, 4, 2], [4, 4, 1])
    assert (parts_kept(paradox, 11, 10), parts_kept(paradox, 11, 9)) == ([4, 4, 1], [4, 4, 1])
    assert parts_kept(paradox, 10, 10) == [4, 4, 2]


def test_a_bonus_is_for_what_is_kept() -> None:
    campaign = a_campaign(bonus=50, min_amount=30 * PPM)
    purchase = Purchase(None, 4_000, None, 2)

    assert [campaign_points(campaign, purchase, Returned(minor)) for minor in (0, 1_000, 1_001, 4_000)] == [
        50,
        50,
        0,
        0,
    ]
    always = a_campaign(bonus=50)
    assert [campaign_points(always, purchase, Returned(minor)) for minor in (0, 3_999, 4_000)] == [50, 50, 0]


def test_a_multiplier_counts_what_the_base_rule_counts() -> None:
    lines = [RatedLine("a", "milk", 1000, 999), RatedLine("b", "tobacco", 1000, 5_000)]
    purchase = Purchase(BASE, 5_999, lines, 2)

    # floor(9.99 x 1.5) = 14 base points, floor(14 x 0.25) = 3 more.
    assert campaign_points(a_campaign(multiplier=1_250_000), purchase, NOTHING_RETURNED) == 3
    assert campaign_points(a_campaign(multiplier=3 * PPM, max_points=20), purchase, NOTHING_RETURNED) == 20
    assert campaign_points(a_campaign(multiplier=2 * PPM), purchase._replace(base_rule=None), NOTHING_RETURNED) == 0


def test_points_on_listed_lines_need_lines() -> None:
    listed, anything = a_campaign(rate=2 * PPM, categories=("wine",)), a_campaign(rate=2 * PPM)
    purchase = Purchase(BASE, 1_000, None, 2)

    assert campaign_points(listed, purchase, NOTHING_RETURNED) == 0
    assert campaign_points(anything, purchase, NOTHING_RETURNED) == 20
    lines = (RatedLine("a", "wine", 1000, 700), RatedLine("b", None, 1000, 300))
    assert campaign_points(listed, purchase._replace(lines=lines), NOTHING_RETURNED) == 14
    assert campaign_points(anything, purchase._replace(lines=lines), NOTHING_RETURNED) == 20


@pytest.mark.parametrize(
    ("on_limit", "available", "granted"),
    [
        ("DECLINE", 100, 10), ("DECLINE", 99, 0), ("BASE_ONLY", 99, 0), ("OVERDRAFT", 99, 0), ("PARTIAL", 99, 9),
        ("PARTIAL", 9, 0), ("PARTIAL", -50, 0), ("OPERATOR_FUNDED", 100, 10), ("OPERATOR_FUNDED", 99, None),
    ],
)  # fmt: skip
def test_what_a_part_s_budget_carries(on_limit: str, available: int, granted: int | None) -> None:
    assert granted_of(10, 10, on_limit, available) == granted


def test_points_without_price_need_no_money() -> None:
    assert [granted_of(10, 0, on_limit, -1) for on_limit in ("DECLINE", "PARTIAL", "OPERATOR_FUNDED")] == [10] * 3

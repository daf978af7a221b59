"""Partial returns in any order: they take back exactly what was granted, and nothing twice."""

from dataclasses import dataclass
from datetime import date

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.awards import LineKey, RatedLine, Returned, award_kept, eligible_minor, match_returned_lines, rule_points
from domain.errors import RefusalCode, Refused
from domain.terms import EarnRule

DIGITS = 2
SKUS = ["milk", "wine", "gift", None]
CATEGORIES = ["dairy", "alcohol", None]


@dataclass(frozen=True)
class Purchase:
    """A purchase with its rules and what each of them granted, perhaps less than it asked for."""

    amount_minor: int
    lines: tuple[RatedLine, ...] | None
    awards: tuple[tuple[EarnRule, int], ...]

    def kept(self, returned: Returned) -> list[int]:
        return [
            award_kept(rule, points, self.amount_minor, self.lines, returned, DIGITS) for rule, points in self.awards
        ]


@st.composite
def purchases(draw: st.DrawFn) -> Purchase:
    lines = None
    if draw(st.booleans()):
        one = st.builds(
            RatedLine,
            st.sampled_from(SKUS),
            st.sampled_from(CATEGORIES),
            st.integers(0, 5_000),
            st.integers(0, 50_000),
        )
        lines = tuple(draw(st.lists(one, min_size=1, max_size=6)))
        amount_minor = sum(line.amount_minor for line in lines)
    else:
        amount_minor = draw(st.integers(0, 200_000))
    rule = st.builds(
        EarnRule,
        st.just(1),
        st.just(1),
        st.just("rule"),
        st.just(date(2017, 1, 1)),
        st.none(),
        st.integers(0, 5_000_000),
        st.none() | st.integers(0, 2_000),
        st.lists(st.sampled_from(["dairy", "alcohol"]), max_size=2),
        st.lists(st.sampled_from(["milk", "gift"]), max_size=2),
    )
    awards = []
    for one_rule in draw(st.lists(rule, min_size=1, max_size=3)):
        requested = rule_points(one_rule, eligible_minor(one_rule, amount_minor, lines, Returned()), DIGITS)
        awards.append((one_rule, draw(st.integers(0, requested) | st.just(requested))))
    return Purchase(amount_minor, lines, tuple(awards))


def kept_lines(purchase: Purchase, returned: Returned) -> dict[LineKey, tuple[int, int]]:
    kept: dict[LineKey, tuple[int, int]] = {}
    for line in purchase.lines or ():
        quantity, amount = kept.get(line.key, (0, 0))
        kept[line.key] = (quantity + line.quantity_milli, amount + line.amount_minor)
    for key, (quantity, amount) in returned.lines.items():
        kept[key] = (kept[key][0] - quantity, kept[key][1] - amount)
    return kept


@st.composite
def returns(draw: st.DrawFn, purchase: Purchase) -> list[Returned]:
    """Single returns, each an amount or some lines, that together bring everything back."""
    total, single = Returned(), []
    for _ in range(draw(st.integers(0, 6))):
        left_minor = purchase.amount_minor - total.total_minor
        lines = kept_lines(purchase, total)
        by_lines: bool = draw(st.booleans())
        if lines and by_lines:
            key = draw(st.sampled_from(sorted(lines, key=str)))
            quantity, amount = lines[key]
            line = RatedLine(*key, draw(st.integers(0, quantity)), draw(st.integers(0, min(amount, left_minor))))
            one = Returned().plus(0, match_returned_lines(purchase.lines or (), total, [line]))
        else:
            one = Returned(draw(st.integers(0, left_minor)))
        total = merged([total, one])
        single.append(one)
    return [*single, Returned(purchase.amount_minor - total.total_minor)]


def merged(single: list[Returned]) -> Returned:
    total = Returned()
    for one in single:
        lines = [RatedLine(*key, quantity, amount) for key, (quantity, amount) in one.lines.items()]
        total = total.plus(one.amount_minor, lines)
    return total


@given(st.data())
def test_any_partial_returns_sum_exactly_to_what_was_granted(data: st.DataObject) -> None:
    purchase = data.draw(purchases())
    single = data.draw(returns(purchase))
    before = purchase.kept(Returned())
    taken_back = [0] * len(before)

    for number in range(len(single)):
        after = purchase.kept(merged(single[: number + 1]))
        steps = [was - now for was, now in zip(before, after, strict=True)]
        assert min(steps) >= 0
        taken_back = [sum(both) for both in zip(taken_back, steps, strict=True)]
        before = after

    assert taken_back == [points for _, points in purchase.awards]


@given(st.data())
def test_the_order_of_returns_does_not_matter(data: st.DataObject) -> None:
    purchase = data.draw(purchases())
    single = data.draw(returns(purchase))[:-1]
    assume(len(single) > 1)
    shuffled = data.draw(st.permutations(single))

    assert merged(single) == merged(shuffled)
    assert purchase.kept(merged(single)) == purchase.kept(merged(shuffled))


@given(purchases(), st.data())
def test_whoever_returns_in_steps_keeps_as_much_as_who_returns_at_once(purchase: Purchase, data: st.DataObject) -> None:
    whole_minor = data.draw(st.integers(0, purchase.amount_minor))
    part_minor = data.draw(st.integers(0, whole_minor))

    steps = Returned().plus(part_minor, ()).plus(whole_minor - part_minor, ())
    assert purchase.kept(steps) == purchase.kept(Returned(whole_minor))


# ---------------------------------------------------------------- which line comes back

BOUGHT = [
    RatedLine("milk", "dairy", 2_000, 300),
    RatedLine("wine", "alcohol", 1_000, 900),
    RatedLine("wine", "gift", 1_000, 950),
    RatedLine("milk", "dairy", 1_000, 150),
]


def back(sku: str | None, category: str | None, quantity_milli: int, amount_minor: int) -> RatedLine:
    return RatedLine(sku, category, quantity_milli, amount_minor)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (back("milk", "dairy", 3_000, 450), back("milk", "dairy", 3_000, 450)),
        (back("milk", None, 1_000, 150), back("milk", "dairy", 1_000, 150)),
        (back(None, "dairy", 1_000, 150), back("milk", "dairy", 1_000, 150)),
        (back("wine", "gift", 0, 1), back("wine", "gift", 0, 1)),
        (back(None, "alcohol", 1_000, 900), back("wine", "alcohol", 1_000, 900)),
    ],
)
def test_a_returned_line_is_found_by_what_names_it_alone(asked: RatedLine, found: RatedLine) -> None:
    assert match_returned_lines(BOUGHT, Returned(), [asked]) == [found]


@pytest.mark.parametrize(
    "asked",
    [
        back("wine", None, 1_000, 900),  # two lines fit
        back(None, None, 1_000, 150),
        back("beer", None, 1_000, 100),
        back("milk", "alcohol", 1_000, 100),
        back("milk", "dairy", 3_001, 450),
        back("milk", "dairy", 3_000, 451),
    ],
)
def test_a_line_that_was_not_bought_so_is_refused(asked: RatedLine) -> None:
    good = back("wine", "gift", 0, 1)
    with pytest.raises(Refused) as refused:
        match_returned_lines(BOUGHT, Returned(), [good, asked])
    assert (refused.value.code, refused.value.field) == (RefusalCode.EXCEEDS_ORIGINAL, "lines.1")


def test_a_line_without_names_names_no_named_line_even_where_there_is_but_one() -> None:
    with pytest.raises(Refused):
        match_returned_lines(BOUGHT[:1], Returned(), [back(None, None, 1_000, 150)])


def test_one_return_may_name_a_line_twice_but_not_more_than_is_kept() -> None:
    half = back("milk", "dairy", 1_500, 225)

    assert match_returned_lines(BOUGHT, Returned(), [half, half]) == [half, half]
    with pytest.raises(Refused):
        match_returned_lines(BOUGHT, Returned(), [half, half, back("milk", "dairy", 0, 1)])
    with pytest.raises(Refused):
        match_returned_lines(BOUGHT, Returned().plus(0, [half]), [half, back("milk", "dairy", 1, 0)])


def test_a_basket_without_names_returns_without_names() -> None:
    bought = [back(None, None, 1_000, 500)]

    assert match_returned_lines(bought, Returned(), [back(None, None, 500, 250)]) == [back(None, None, 500, 250)]

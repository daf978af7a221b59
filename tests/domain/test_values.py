"""Amounts and roundings: whole numbers in, whole numbers out."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.errors import RefusalCode, Refused
from domain.values import (
    AMOUNT_MAX_UNITS,
    amount_minor,
    decimal_from_micro,
    decimal_from_minor,
    half_even,
    micro_per_minor,
    minor_from_micro,
    scaled,
)

WHOLE = st.integers(min_value=-(10**30), max_value=10**30)
DIGITS = st.integers(min_value=0, max_value=4)


@given(WHOLE, st.integers(min_value=1, max_value=10**12))
@example(5, 10)
@example(15, 10)
@example(-5, 10)
@example(-15, 10)
def test_half_even_is_the_nearest_whole_number_and_even_at_ties(numerator: int, denominator: int) -> None:
    assert half_even(numerator, denominator) == round(Fraction(numerator, denominator))
    assert type(half_even(numerator, denominator)) is int


@pytest.mark.parametrize(
    ("micro", "digits", "minor"),
    [
        (222_216_000, 2, 22_222),
        (27_777_000, 2, 2_778),
        (5_000, 2, 0),
        (15_000, 2, 2),
        (-15_000, 2, -2),
        (-25_000, 2, -2),
        (500_000, 0, 0),
        (1_500_000, 0, 2),
        (500, 3, 0),
        (1_500, 3, 2),
        (50, 4, 0),
    ],
)
def test_money_is_billed_half_even(micro: int, digits: int, minor: int) -> None:
    assert minor_from_micro(micro, digits) == minor


@pytest.mark.parametrize(("digits", "micro"), [(0, 1_000_000), (2, 10_000), (3, 1_000), (4, 100)])
def test_a_minor_unit_in_micro_units(digits: int, micro: int) -> None:
    assert micro_per_minor(digits) == micro
    assert type(micro_per_minor(digits)) is int


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15), DIGITS)
def test_scaled_is_exact_or_nothing(amount: Decimal, digits: int) -> None:
    exact = Fraction(amount) * 10**digits
    found = scaled(amount, digits)

    if exact.denominator == 1 and len(amount.as_tuple().digits) <= 60:
        assert found == exact
        assert type(found) is int
    else:
        assert found is None


@pytest.mark.parametrize("text", ["NaN", "-NaN", "sNaN", "Infinity", "-Infinity", "1E+999999", "1E-999999", "0.001"])
def test_scaled_takes_no_number_that_it_cannot_hold(text: str) -> None:
    assert scaled(Decimal(text), 2) is None


@pytest.mark.parametrize(
    ("text", "minor"),
    [("0", 0), ("-0", 0), ("0E-40", 0), ("0E+40", 0), ("1.10", 110), ("1.100", 110), ("1E2", 10_000), ("12E-1", 120)],
)
def test_scaled_reads_the_value_and_not_the_spelling(text: str, minor: int) -> None:
    assert scaled(Decimal(text), 2) == minor


@given(st.integers(min_value=0, max_value=AMOUNT_MAX_UNITS * 10**4), DIGITS)
def test_every_amount_in_range_is_taken_and_shown_again(minor: int, digits: int) -> None:
    minor = min(minor, AMOUNT_MAX_UNITS * 10**digits)
    shown = decimal_from_minor(minor, digits)

    assert -int(shown.as_tuple().exponent) == digits
    assert amount_minor(shown, digits, "amount") == minor


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("-0.01", 2),
        ("1000000000000.01", 2),
        ("1000000000001", 0),
        ("0.001", 2),
        ("1.5", 0),
        ("0.0001", 3),
        ("0.00001", 4),
        ("NaN", 2),
        ("Infinity", 2),
        ("1E+25", 2),
        ("1E+5000", 2),
        ("1" * 61, 2),
    ],
)
def test_other_amounts_are_refused_by_the_name_of_their_field(text: str, digits: int) -> None:
    with pytest.raises(Refused) as refused:
        amount_minor(Decimal(text), digits, "lines.3.amount")
    assert (refused.value.code, refused.value.field) == (RefusalCode.AMOUNT_INVALID, "lines.3.amount")


@pytest.mark.parametrize(("text", "digits"), [("1000000000000", 0), ("1000000000000.00", 2), ("1000000000000.0000", 4)])
def test_the_largest_amount_is_taken(text: str, digits: int) -> None:
    assert amount_minor(Decimal(text), digits, "amount") == AMOUNT_MAX_UNITS * 10**digits


@pytest.mark.parametrize("text", ["0", "-0.01", "1000000000000.01"])
def test_where_nothing_is_none_either_the_refusal_says_so(text: str) -> None:
    with pytest.raises(Refused, match=r"must be more than 0 and at most 1000000000000$"):
        amount_minor(Decimal(text), 2, "amount.amount", is_positive=True)
    assert amount_minor(Decimal("0.01"), 2, "amount.amount", is_positive=True) == 1


@given(st.integers(min_value=-(2**63), max_value=2**63))
def test_micro_units_are_shown_with_six_decimals(micro: int) -> None:
    shown = decimal_from_micro(micro)

    assert shown.as_tuple().exponent == -6
    assert Fraction(shown) == Fraction(micro, 1_000_000)

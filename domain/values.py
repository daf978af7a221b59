"""Points and money: whole numbers with their units in the name, and every rounding of the platform.

Points are whole numbers. Money is integer micro-units (1e-6 of the programme currency) inside, and integer minor
units (cents, yen, fils) where a till or a statement speaks. Nothing here is, or becomes, a binary fraction.
"""

from collections.abc import Sequence
from decimal import Context, Decimal, Rounded

from domain.errors import RefusalCode, Refused

OPERATOR_ID = 0
"""The operator where a partner, funder or party id stands."""

OPERATOR_CODE = "operator"
"""How the operator is called where partners are called by their codes; no partner may have it."""

NO_STORE_ID = 0
"""The store of a command that named none."""

POINTS_MAX = 10**9
"""Most points that one command may move."""

AMOUNT_MAX_UNITS = 10**12
"""Largest amount of one command, in whole units of the currency."""

EXPONENT_MAX = 2 * len(str(AMOUNT_MAX_UNITS))
"""Far beyond that amount: what is larger still is not even scaled."""

FIGURES_MAX = 60
"""Most figures that a caller's number may have; more than the largest amount with its decimals ever needs."""

EXACT = Context(prec=FIGURES_MAX, traps=[Rounded])
"""Arithmetic that refuses to lose a figure, and so a number with too many of them."""

MICRO_DIGITS = 6
MICRO_PER_UNIT = 10**MICRO_DIGITS


def half_even(numerator: int, denominator: int) -> int:
    """The whole number nearest to ``numerator / denominator``, ties to the even one (``denominator`` > 0)."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2 == 1):
        return quotient + 1
    return quotient


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` split in proportion to the weights: parts that sum to it exactly (SETTLEMENT.md c.1, rounding rule 4).

    What the floors leave goes to the largest remainders, one each; ties to whoever stands first.
    """
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda place: -(total * weights[place] % whole))
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts


def micro_per_minor(currency_digits: int) -> int:
    """How many micro-units one minor unit has: 10,000 for a currency with two decimals."""
    return int(10 ** (MICRO_DIGITS - currency_digits))


def minor_from_micro(amount_micro: int, currency_digits: int) -> int:
    """Billed amount of an exact one: rounded once, half-even (SETTLEMENT.md c.1, rounding rule 2)."""
    return half_even(amount_micro, micro_per_minor(currency_digits))


def scaled(amount: Decimal, digits: int) -> int | None:
    """``amount`` x 10^digits as a whole number, or None when it has more decimals than that or is not finite."""
    if not amount.is_finite():
        return None
    if not amount:
        return 0
    if amount.adjusted() > EXPONENT_MAX:
        return None
    try:
        shifted = EXACT.scaleb(amount, digits)
    except Rounded:
        return None
    whole = int(shifted)
    return whole if whole == shifted else None


def amount_minor(amount: Decimal, currency_digits: int, field: str, *, is_positive: bool = False) -> int:
    """A caller's amount in minor units, checked: finite, within range, no finer than the currency, not negative.

    ``is_positive``: nor 0. Raises Refused(AMOUNT_INVALID) naming ``field``.
    """
    minor = scaled(amount, currency_digits)
    if minor is None:
        message = f"the amount must be a number with at most {currency_digits} decimals"
        raise Refused(RefusalCode.AMOUNT_INVALID, message, field)
    if not is_positive <= minor <= AMOUNT_MAX_UNITS * 10**currency_digits:
        bounds = "more than 0 and at most" if is_positive else "between 0 and"
        message = f"the amount must be {bounds} {AMOUNT_MAX_UNITS}"
        raise Refused(RefusalCode.AMOUNT_INVALID, message, field)
    return minor


def decimal_from_minor(minor: int, currency_digits: int) -> Decimal:
    """Minor units as a decimal with exactly the currency's decimals."""
    return Decimal(minor).scaleb(-currency_digits) if currency_digits else Decimal(minor)


def decimal_from_micro(micro: int) -> Decimal:
    """Micro-units as a decimal with exactly six decimals."""
    return Decimal(micro).scaleb(-MICRO_DIGITS)

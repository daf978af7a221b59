"""Reading a till's amounts and basket lines into whole numbers, and storing lines as text."""

import json
from collections.abc import Sequence

from domain.awards import RatedLine
from domain.commands import Amount, BasketLine
from domain.errors import RefusalCode, Refused
from domain.members import is_clean_text
from domain.terms import Programme
from domain.values import amount_minor, scaled

LINES_MAX = 1000
LINE_TEXT_MAX_CHARACTERS = 100
QUANTITY_DIGITS = 3
QUANTITY_MAX_MILLI = 10**12


def checked_amount(amount: Amount, programme: Programme, field: str, *, is_positive: bool = False) -> int:
    """A command's money in minor units of the programme's currency; ``is_positive``: more than nothing.

    Raises Refused(CURRENCY_MISMATCH, AMOUNT_INVALID).
    """
    if amount.currency != programme.currency:
        message = f"amounts are in {programme.currency} here"
        raise Refused(RefusalCode.CURRENCY_MISMATCH, message, f"{field}.currency")
    return amount_minor(amount.value, programme.currency_digits, f"{field}.amount", is_positive=is_positive)


def rated_lines(lines: Sequence[BasketLine], programme: Programme) -> tuple[RatedLine, ...]:
    """Basket lines in whole numbers. Raises Refused naming the line at fault."""
    if len(lines) > LINES_MAX:
        raise Refused(RefusalCode.INPUT_INVALID, f"a basket has at most {LINES_MAX} lines", "lines")
    return tuple(_rated_line(line, programme, f"lines.{number}") for number, line in enumerate(lines))


def _rated_line(line: BasketLine, programme: Programme, field: str) -> RatedLine:
    for name in ("sku", "category"):
        value = getattr(line, name)
        if value is not None and not is_clean_text(value, LINE_TEXT_MAX_CHARACTERS):
            message = f"a {name} has 1 to {LINE_TEXT_MAX_CHARACTERS} printable characters"
            raise Refused(RefusalCode.INPUT_INVALID, message, f"{field}.{name}")
    quantity_milli = scaled(line.quantity, QUANTITY_DIGITS)
    if quantity_milli is None or not 0 <= quantity_milli <= QUANTITY_MAX_MILLI:
        message = f"a quantity is a number from 0 with at most {QUANTITY_DIGITS} decimals"
        raise Refused(RefusalCode.AMOUNT_INVALID, message, f"{field}.quantity")
    return RatedLine(line.sku, line.category, quantity_milli, checked_amount(line.amount, programme, f"{field}.amount"))


def lines_text(lines: Sequence[RatedLine] | None) -> str | None:
    """Lines as stored with the command: compact JSON, the same bytes for the same lines."""
    if lines is None:
        return None
    rows = [[line.sku, line.category, line.quantity_milli, line.amount_minor] for line in lines]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def lines_from_text(stored: str | None) -> tuple[RatedLine, ...] | None:
    """Lines as they were rated, from their stored text."""
    return None if stored is None else tuple(RatedLine(*row) for row in json.loads(stored))

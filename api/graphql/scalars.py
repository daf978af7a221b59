"""The contract's scalars: strict about the lexical form only; sign, range and scale are refusals of the commands."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NewType

import strawberry
from graphql import FloatValueNode, GraphQLError, IntValueNode, StringValueNode, ValueNode, print_ast
from strawberry.types.scalar import ScalarDefinition

Points = NewType("Points", int)
"""Whole points, signed where the field says so; exact in every client up to 2^53-1."""

POINTS_LIMIT = 2**53 - 1
DECIMAL_CHARACTERS_MAX = 100

_DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?\Z")
_INTEGER = re.compile(r"-?[0-9]+\Z")
_DATE_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?P<fraction>\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})\Z", re.ASCII
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)


def points_value(value: object) -> Points:
    """Points from JSON: an integer and nothing that merely looks like one."""
    if type(value) is not int:
        message = "Points are a whole number such as 250, without quotes, decimals or exponent."
        raise GraphQLError(message)
    if abs(value) > POINTS_LIMIT:
        raise GraphQLError(f"Points lie between -{POINTS_LIMIT} and {POINTS_LIMIT}.")
    return Points(value)


def decimal_value(value: object) -> Decimal:
    """An exact decimal from JSON: a string, or an integer; a JSON fraction may have lost digits on its way."""
    if type(value) is int:
        value = str(value)
    elif type(value) is float:
        message = 'A JSON number with a fraction is not exact: send the amount as a string such as "12.50".'
        raise GraphQLError(message)
    if not isinstance(value, str) or len(value) > DECIMAL_CHARACTERS_MAX or not _DECIMAL.match(value):
        raise GraphQLError('A Decimal is a string of digits such as "12.50": no exponent, separators or spaces.')
    return Decimal(value)


def date_time_value(value: object) -> datetime:
    """An instant from RFC 3339 text. Fractions finer than a microsecond are cut off."""
    form = 'A DateTime is RFC 3339 text with an offset, such as "2017-03-14T17:05:00+01:00".'
    match = _DATE_TIME.match(value) if isinstance(value, str) else None
    if match is None or not isinstance(value, str):
        raise GraphQLError(form)
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise GraphQLError(f"{form} This one does not exist.") from None


def date_value(value: object) -> date:
    """A calendar day from text like 2017-03-14."""
    form = 'A Date is text such as "2017-03-14".'
    if not isinstance(value, str) or not _DATE.match(value):
        raise GraphQLError(form)
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise GraphQLError(f"{form} This one does not exist.") from None


def points_text(value: object) -> int:
    """Points as sent: a JSON integer. Raises TypeError for anything else, so that a bug cannot send a fraction."""
    if type(value) is not int or abs(value) > POINTS_LIMIT:
        raise TypeError("points must be a whole number within 2^53-1")
    return value


def decimal_text(value: object) -> str:
    """A decimal as sent: plain notation, never an exponent."""
    if not isinstance(value, Decimal):
        raise TypeError("amounts must be Decimal")
    return format(value, "f")


def date_time_text(value: object) -> str:
    """An instant as sent: in UTC, with Z."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError("instants must be aware")
    return value.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def date_text(value: object) -> str:
    """A day as sent."""
    if not isinstance(value, date) or isinstance(value, datetime):
        raise TypeError("days must be dates")
    return value.isoformat()


def _literal(parse: Callable[[object], Any]) -> Callable[..., Any]:
    """Reads a literal of a document by the rules for JSON."""

    def parse_literal(node: ValueNode, _variables: Mapping[str, Any] | None = None) -> Any:
        if isinstance(node, StringValueNode):
            return parse(node.value)
        if isinstance(node, IntValueNode) and _INTEGER.match(node.value) and len(node.value) <= DECIMAL_CHARACTERS_MAX:
            return parse(int(node.value))
        if isinstance(node, FloatValueNode):
            return parse(float(node.value))
        return parse(print_ast(node) if isinstance(node, IntValueNode) else None)

    return parse_literal


def _scalar(
    name: str, description: str, url: str | None, serialize: Callable[[object], object], parse: Callable[[object], Any]
) -> ScalarDefinition:
    return strawberry.scalar(
        name=name,
        description=description,
        specified_by_url=url,
        serialize=serialize,
        parse_value=parse,
        parse_literal=_literal(parse),
    )


SCALARS: dict[object, ScalarDefinition] = {
    Points: _scalar(
        "Points",
        "Loyalty points: a JSON integer, never a fraction or a string, between -(2^53-1) and 2^53-1. Signs are seen"
        " from the member's side: negative points leave the member's account.",
        None,
        points_text,
        points_value,
    ),
    Decimal: _scalar(
        "Decimal",
        'An exact decimal number, sent and received as a string in plain notation, such as "12.50"; an integer is'
        " accepted too. A JSON number with a fraction is refused because it may have lost digits.",
        None,
        decimal_text,
        decimal_value,
    ),
    datetime: _scalar(
        "DateTime",
        'An instant as RFC 3339 text; what you send must carry an offset ("2017-03-14T17:05:00+01:00"), what you'
        ' receive is in UTC ("2017-03-14T16:05:00Z").',
        "https://scalars.graphql.org/andimarek/date-time.html",
        date_time_text,
        date_time_value,
    ),
    date: _scalar(
        "Date",
        'A calendar day of the programme\'s time zone, such as "2017-03-14".',
        "https://scalars.graphql.org/andimarek/local-date.html",
        date_text,
        date_value,
    ),
}
"""Python types that stand for the contract's scalars."""

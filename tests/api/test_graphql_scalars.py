"""The scalars' lexical forms, as JSON and as literals."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from graphql import GraphQLError, GraphQLScalarType, parse_const_value

from api.graphql.schema import schema


def scalar(name: str) -> GraphQLScalarType:
    found = schema._schema.type_map[name]
    assert isinstance(found, GraphQLScalarType)
    return found


def coerced(name: str, value: Any) -> Any:
    return scalar(name).coerce_input_value(value)


def from_literal(name: str, literal: str) -> Any:
    parse_literal = scalar(name).parse_literal
    assert parse_literal is not None
    return parse_literal(parse_const_value(literal))


@pytest.mark.parametrize("value", [0, 1, -1, 2**53 - 1, -(2**53 - 1)])
def test_points_are_whole_numbers(value: int) -> None:
    assert coerced("Points", value) == value
    assert from_literal("Points", str(value)) == value
    assert scalar("Points").coerce_output_value(value) == value


@pytest.mark.parametrize("value", [True, False, 1.0, 1.5, "5", "", None, [1], {}, 2**53, -(2**53), 10**30])
def test_points_are_nothing_else(value: Any) -> None:
    with pytest.raises(GraphQLError, match="Points"):
        coerced("Points", value)


@pytest.mark.parametrize(
    "literal", ["1.0", "1e2", '"5"', "true", "null", "FIVE", "[1]", "{a: 1}", "9007199254740992", "1" * 5000]
)
def test_points_literals_are_nothing_else(literal: str) -> None:
    with pytest.raises(GraphQLError, match="Points"):
        from_literal("Points", literal)


@pytest.mark.parametrize("value", [1.0, "1", None, Decimal(1), 2**53])
def test_points_are_never_sent_as_anything_else(value: Any) -> None:
    with pytest.raises(TypeError):
        scalar("Points").coerce_output_value(value)


@pytest.mark.parametrize(
    ("value", "decimal"),
    [
        ("12.50", "12.50"),
        ("-0.000001", "-0.000001"),
        ("+3", "3"),
        ("007", "7"),
        (12, "12"),
        (-3, "-3"),
        ("9" * 100, "9" * 100),
    ],
)
def test_decimals_are_digits(value: Any, decimal: str) -> None:
    assert str(coerced("Decimal", value)) == decimal


@pytest.mark.parametrize(
    "value",
    [
        12.5,
        1.0,
        True,
        None,
        "",
        " 1",
        "1 ",
        "1,50",
        "1.",
        ".5",
        "1e3",
        "NaN",
        "Infinity",
        "-",
        "0x10",
        "1_000",
        "٣",
        "1\n",
        "9" * 101,
        [],
    ],
)
def test_decimals_are_nothing_else(value: Any) -> None:
    with pytest.raises(GraphQLError, match="string"):
        coerced("Decimal", value)


def test_decimal_literals() -> None:
    assert from_literal("Decimal", '"12.50"') == Decimal("12.50")
    assert from_literal("Decimal", "12") == Decimal(12)
    for literal in ("12.50", "1e3", "true", "null", "1" * 5000):
        with pytest.raises(GraphQLError, match="string"):
            from_literal("Decimal", literal)


@pytest.mark.parametrize(
    ("value", "text"),
    [("1E+3", "1000"), ("0E-6", "0.000000"), ("1E-7", "0.0000001"), ("12.50", "12.50"), ("-0.10", "-0.10")],
)
def test_decimals_are_sent_in_plain_notation(value: str, text: str) -> None:
    assert scalar("Decimal").coerce_output_value(Decimal(value)) == text


@pytest.mark.parametrize(
    ("value", "instant"),
    [
        ("2017-03-15T12:00:00Z", datetime(2017, 3, 15, 12, tzinfo=UTC)),
        ("2017-03-15t12:00:00z", datetime(2017, 3, 15, 12, tzinfo=UTC)),
        ("2017-03-15T12:00:00.5+01:00", datetime(2017, 3, 15, 11, 0, 0, 500_000, tzinfo=UTC)),
        ("2017-03-15T12:00:00.1234567-03:30", datetime(2017, 3, 15, 15, 30, 0, 123_456, tzinfo=UTC)),
    ],
)
def test_instants_carry_an_offset(value: str, instant: datetime) -> None:
    assert coerced("DateTime", value) == instant
    assert from_literal("DateTime", f'"{value}"') == instant


@pytest.mark.parametrize(
    "value",
    [
        "2017-03-15T12:00:00",
        "2017-03-15",
        "2017-03-15T12:00Z",
        "2017-03-15 12:00:00Z",
        "2017-02-30T12:00:00Z",
        "2017-03-15T24:00:00Z",
        "2017-03-15T12:00:60Z",
        "2017-03-15T12:00:00+0100",
        "2017-03-15T12:00:00+99:00",
        "20170315T120000Z",
        "0001-01-01T00:00:00+01:00",
        "2017-03-15T12:00:00Z\n",
        1489579200,
        None,
        True,
    ],
)
def test_instants_are_nothing_else(value: Any) -> None:
    with pytest.raises(GraphQLError, match="DateTime is RFC 3339"):
        coerced("DateTime", value)


def test_instants_are_sent_in_utc() -> None:
    instant = datetime.fromisoformat("2017-03-15T12:00:00.250000+01:00")
    assert scalar("DateTime").coerce_output_value(instant) == "2017-03-15T11:00:00.250000Z"
    with pytest.raises(TypeError):
        scalar("DateTime").coerce_output_value(datetime(2017, 3, 15))  # noqa: DTZ001 (the point of the test)

"""How types of the schema are written down: a description for everything, scopes where they are needed."""

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar, cast

import strawberry

from api.graphql.scopes import SCOPES, RequiresScopes, in_words

Resolver = TypeVar("Resolver", bound=Callable[..., Any])


def described_field(description: str) -> Callable[[Resolver], Resolver]:
    """Makes a method a field with that description."""
    return cast("Callable[[Resolver], Resolver]", strawberry.field(description=description))


def guarded_field(coordinate: str, description: str) -> Callable[[Resolver], Resolver]:
    """Makes a method a field of SCOPES: its directive, and its description with the scopes."""
    requirement = SCOPES[coordinate]
    made = strawberry.field(
        description=f"{description} Needs scope {in_words(requirement)}.",
        directives=[RequiresScopes(scopes=[list(alternative) for alternative in requirement])],
    )
    return cast("Callable[[Resolver], Resolver]", made)


def described_enum(enum: type[Enum], description: str, values: dict[str, str]) -> None:
    """Makes an enum one of the schema, with a description for every value by its name."""
    made: Any = strawberry.enum(enum, description=description)
    for value in made.__strawberry_definition__.values:
        value.description = values[value.name]

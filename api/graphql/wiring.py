"""Takes strawberry out of the running path: fields are resolved, and inputs built, by graphql-core directly.

Strawberry makes an Info, a chain of wrappers and a generic conversion of arguments for every field; none of it is
used here. Every resolver of this package is a function of (source, info, **arguments by Python name), where ``info``
is graphql-core's own and only its ``context`` is used. The schema that clients see is untouched.
"""

from collections.abc import Callable
from enum import Enum
from operator import attrgetter
from typing import Any, cast

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    Undefined,
)
from strawberry.types.field import StrawberryField

DEFINITION = "strawberry-definition"


def wire(schema: GraphQLSchema) -> None:
    """Rewires every type of our own in the schema, in place."""
    for graphql_type in schema.type_map.values():
        if DEFINITION not in graphql_type.extensions:
            continue
        if isinstance(graphql_type, GraphQLObjectType):
            _wire_object(graphql_type)
        elif isinstance(graphql_type, GraphQLInputObjectType):
            _wire_input(graphql_type)
        elif isinstance(graphql_type, GraphQLEnumType):
            _wire_enum(graphql_type)
        elif isinstance(graphql_type, GraphQLUnionType):
            _wire_abstract(graphql_type, list(graphql_type.types))
        elif isinstance(graphql_type, GraphQLInterfaceType):
            _wire_abstract(graphql_type, schema.get_possible_types(graphql_type))


def _wire_object(graphql_type: GraphQLObjectType) -> None:
    graphql_type.is_type_of = None
    for field in graphql_type.fields.values():
        definition: StrawberryField = field.extensions[DEFINITION]
        field.resolve = _resolver(definition)
        for argument in field.args.values():
            argument.out_name = argument.extensions[DEFINITION].python_name
            if argument.default_value is None:  # left out: the function's own default, and none in the schema
                argument.default_value = Undefined


def _resolver(definition: StrawberryField) -> Callable[..., Any]:
    resolver = definition.base_resolver
    if resolver is None:
        get = attrgetter(definition.python_name)
        return lambda source, _info: get(source)
    function: Any = resolver.wrapped_func
    if resolver.info_parameter is not None:
        return cast("Callable[..., Any]", function)
    return lambda source, _info, **arguments: function(source, **arguments)


def _wire_input(graphql_type: GraphQLInputObjectType) -> None:
    definition = graphql_type.extensions[DEFINITION]
    absent = dict.fromkeys((field.python_name for field in definition.fields), None)
    for field in graphql_type.fields.values():
        field.out_name = field.extensions[DEFINITION].python_name
        if field.default_value is None:
            field.default_value = Undefined
    build = definition.origin
    graphql_type.is_one_of = definition.is_one_of

    def built(value: dict[str, Any]) -> Any:
        return build(**{**absent, **value})

    graphql_type.out_type = built  # type: ignore[method-assign]


def _wire_enum(graphql_type: GraphQLEnumType) -> None:
    names: dict[Any, str] = {}
    for name, value in graphql_type.values.items():
        names[value.value] = name
        member = graphql_type.extensions[DEFINITION].wrapped_cls(value.value)
        assert isinstance(member, Enum)
        names[member] = name

    def coerced(output_value: Any) -> str:
        return names[output_value]

    graphql_type.coerce_output_value = coerced  # type: ignore[method-assign]


def _wire_abstract(graphql_type: GraphQLUnionType | GraphQLInterfaceType, possible: Any) -> None:
    names = {each.extensions[DEFINITION].origin: each.name for each in possible}
    graphql_type.resolve_type = lambda value, _info, _type: names[type(value)]

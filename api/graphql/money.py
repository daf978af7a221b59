"""Money, pages and the refusal: the small types that every noun uses."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Generic, NamedTuple, TypeVar

import strawberry

from api.graphql.context import Context, Info, bad_input
from api.graphql.fields import described_field
from domain import commands
from domain.terms import Programme
from domain.values import decimal_from_micro, decimal_from_minor

NodeType = TypeVar("NodeType")


@strawberry.type(description="An amount of money.")
class Money:
    """An amount in the programme's currency."""

    amount: Decimal = strawberry.field(
        description="The amount in whole units of the currency; billed amounts have the currency's decimals, exact"
        " ones six."
    )
    currency: str = strawberry.field(description="ISO 4217 code; one deployment has one currency.")


@strawberry.input(description="An amount of money that you send.")
class MoneyInput:
    """An amount as a till sends it; checked when the command is decided."""

    amount: Decimal = strawberry.field(
        description="The amount in whole units of the currency, zero or more where the field says nothing else, with no"
        " more decimals than the currency"
        " has (else AMOUNT_INVALID)."
    )
    currency: str = strawberry.field(
        description="ISO 4217 code; must be the programme's currency (else CURRENCY_MISMATCH)."
    )

    def as_amount(self) -> commands.Amount:
        """The domain's value of it."""
        return commands.Amount(self.amount, self.currency)


def money_from_minor(minor: int, programme: Programme) -> Money:
    """Money of an amount in minor units, with the currency's decimals."""
    return Money(amount=decimal_from_minor(minor, programme.currency_digits), currency=programme.currency)


def money_from_micro(micro: int, programme: Programme) -> Money:
    """Money of an exact amount, with six decimals."""
    return Money(amount=decimal_from_micro(micro), currency=programme.currency)


@strawberry.interface(description="Anything that can be read again by its id alone.")
class Node:
    """Relay's interface; every type of it resolves its own id."""

    @described_field("Opaque id; a member's or transaction's differs per partner. Keep it as it is.")
    def id(self, info: Info) -> strawberry.ID:
        """The id under which the viewer knows the thing."""
        raise NotImplementedError


class CursorKey(NamedTuple):
    """Where an item stands in its list: the kind of list and the key by which it is ordered."""

    kind: str
    key: int | tuple[int, ...]

    def sealed(self, context: Context) -> str:
        """The cursor as the viewer gets it: keys are ids of ours, which must not join two viewers' data."""
        numbers = self.key if isinstance(self.key, tuple) else (self.key,)
        return context.services.ids.encode(context.viewer_id, f"{self.kind}Cursor", *numbers)


@strawberry.type(description="Where a page ends and whether there is more.")
class PageInfo:
    """Relay's page info, for reading forwards."""

    first: strawberry.Private[CursorKey | None]
    last: strawberry.Private[CursorKey | None]
    has_next_page: bool = strawberry.field(description="Whether further items follow this page.")
    has_previous_page: bool = strawberry.field(description="Whether items precede this page: true with after.")

    @described_field("Cursor of the page's first item; null when the page is empty. Lists are read forwards only.")
    def start_cursor(self, info: Info) -> str | None:
        """Cursor of the page's first item."""
        return None if self.first is None else self.first.sealed(info.context)

    @described_field("Pass it as after to read the next page; null when the page is empty.")
    def end_cursor(self, info: Info) -> str | None:
        """Cursor of the page's last item."""
        return None if self.last is None else self.last.sealed(info.context)


@strawberry.type(description="One item of a page.")
class Edge(Generic[NodeType]):
    """An item with the cursor after which the next page begins."""

    at: strawberry.Private[CursorKey]
    node: NodeType = strawberry.field(description="The item.")

    @described_field("Pass it as after to read what follows this item.")
    def cursor(self, info: Info) -> str:
        """Cursor of the item."""
        return self.at.sealed(info.context)


@strawberry.type(description="One page of a list.")
class Connection(Generic[NodeType]):
    """A page of a list, read forwards by keyset cursors."""

    edges: list[Edge[NodeType]] = strawberry.field(description="The items with their cursors.")
    nodes: list[NodeType] = strawberry.field(description="The items alone.")
    page_info: PageInfo = strawberry.field(description="Where the page ends and whether there is more.")


def cursor_key(context: Context, kind: str, after: str | None) -> int | None:
    """The key in a cursor of that kind; None without a cursor. Raises BAD_USER_INPUT for any other text."""
    numbers = cursor_numbers(context, kind, after, 1)
    return None if numbers is None else numbers[0]


def cursor_numbers(context: Context, kind: str, after: str | None, count: int) -> tuple[int, ...] | None:
    """The key of so many numbers in a cursor of that kind; as ``cursor_key``."""
    if after is None:
        return None
    numbers = context.services.ids.decode(context.viewer_id, f"{kind}Cursor", after)
    if numbers is None or len(numbers) != count:
        raise bad_input("after must be a cursor of this list, as pageInfo.endCursor gave it to you", "after")
    return numbers


def connection_of(
    kind: str, size: int, after: str | None, found: Sequence[tuple[int | tuple[int, ...], NodeType]]
) -> Connection[NodeType]:
    """A page of at most ``size`` of what was found after a cursor, as (key, node); one more: there is a next page."""
    edges = [Edge(at=CursorKey(kind, key), node=node) for key, node in found[:size]]
    return Connection(
        edges=edges,
        nodes=[edge.node for edge in edges],
        page_info=PageInfo(
            first=edges[0].at if edges else None,
            last=edges[-1].at if edges else None,
            has_next_page=len(found) > size,
            # What the cursor points to comes before this page, if nothing else does.
            has_previous_page=after is not None,
        ),
    )


First = Annotated[
    int | None,
    strawberry.argument(description="Items per page, 1 to 100; 20 when left out. Else error BAD_USER_INPUT."),
]
After = Annotated[
    str | None,
    strawberry.argument(description="Cursor after which the page begins; leave it out for the first page."),
]

"""Reversals that were sent before what they reverse, and wait for it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import strawberry

from api.graphql.context import Context, Info, page_size
from api.graphql.fields import described_enum, described_field, guarded_field
from api.graphql.money import After, Connection, First, connection_of, cursor_key
from api.graphql.partners import Partner, known_partner
from api.graphql.transactions import Transaction, TransactionKind
from domain import commands, reading
from domain.errors import RefusalCode


class ParkedState(StrEnum):
    """What became of a parked reversal."""

    WAITING = "WAITING"
    POSTED = "POSTED"
    REFUSED = "REFUSED"
    EXPIRED = "EXPIRED"


described_enum(
    ParkedState,
    "What became of a reversal that was sent before its original.",
    {
        "WAITING": "Its original did not arrive yet.",
        "POSTED": "Its original arrived, and was reversed at once.",
        "REFUSED": "Its original arrived, but could not be reversed so: see refusalCode. Send a reversal that can.",
        "EXPIRED": "Its original did not arrive within the programme's back-dating limit.",
    },
)


@strawberry.type(
    description="A reversal that was sent before its original. Nothing moved yet: it is posted when the original"
    " arrives, or given up at expiresAt."
)
class ParkedReversal:
    """A reversal that waits, and what became of it."""

    row: strawberry.Private[commands.ParkedReversal]

    @described_field("Who sent it.")
    async def partner(self, info: Info) -> Partner:
        """The sender."""
        return await known_partner(info.context, self.row.partner_id)

    @described_field("The key of the reversal: the transaction has it once it is posted.")
    def idempotency_key(self) -> str:
        """The key."""
        return self.row.key

    @described_field("The key under which the original will come, if it was named so.")
    def original_key(self) -> str | None:
        """The original's key."""
        return self.row.original_key

    @described_field("The reference that the original will have, if it was named so.")
    def reference(self) -> str | None:
        """The original's reference."""
        return self.row.reference

    @described_field("With reference: what the original is.")
    def kind(self) -> TransactionKind | None:
        """The original's kind."""
        return None if self.row.kind is None else TransactionKind(self.row.kind.value)

    @described_field("What became of it.")
    def state(self) -> ParkedState:
        """The state."""
        return ParkedState(self.row.state)

    @described_field("Why its original could not be reversed so; null unless it is REFUSED.")
    def refusal_code(self) -> RefusalCode | None:
        """The code of the refusal."""
        return None if self.row.refusal_code is None else RefusalCode(self.row.refusal_code)

    @described_field("The reversal as booked; null until it is.")
    async def transaction(self, info: Info) -> Transaction | None:
        """The stored command."""
        if self.row.command_id is None:
            return None
        row = await info.context.loaders.transactions.load(self.row.command_id)
        return None if row is None else Transaction(row=row)

    @described_field("When the goods came back, or the burn was refunded.")
    def occurred_at(self) -> datetime:
        """Business time."""
        return self.row.occurred_at

    @described_field("When it was parked.")
    def recorded_at(self) -> datetime:
        """When it arrived."""
        return self.row.recorded_at

    @described_field("From when on its original cannot be accepted any more.")
    def expires_at(self) -> datetime:
        """When it is given up."""
        return self.row.expires_at

    @described_field("Whether this key was parked before; then nothing changed now.")
    def replayed(self) -> bool:
        """Whether it was parked before."""
        return self.row.replayed


@strawberry.input(description="Which parked reversals to list; conditions that you leave out do not limit.")
class ParkedReversalFilter:
    """Conditions on parked reversals."""

    state: ParkedState | None = strawberry.field(description="Only those in this state.")
    original_key: str | None = strawberry.field(description="Only those of the original with this key.")
    reference: str | None = strawberry.field(description="Only those of the original with this reference.")


def parked_conditions(context: Context, given: ParkedReversalFilter | None) -> dict[str, Any]:
    """Conditions of reading.PARKED_CONDITIONS for a filter."""
    conditions: dict[str, Any] = {} if context.is_operator else {"partner": context.viewer_id}
    for name in ("state", "original_key", "reference"):
        if given is not None and getattr(given, name) is not None:
            conditions[name] = getattr(given, name)
    return conditions


@strawberry.type
class ParkedQueries:
    """Query fields about parked reversals."""

    @guarded_field(
        "Query.parkedReversals",
        "Reversals that you sent before their originals (everybody's for an operator), latest first.",
    )
    async def parked_reversals(
        self,
        info: Info,
        filter: Annotated[
            ParkedReversalFilter | None, strawberry.argument(description="Which ones; all of them when left out.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[ParkedReversal]:
        """A page of parked reversals."""
        context, size = info.context, page_size(first)
        conditions = parked_conditions(context, filter)
        before = cursor_key(context, "ParkedReversal", after)
        if before is not None:
            conditions["before"] = before
        async with context.services.database.reading(context.viewer_id) as connection:
            rows = await reading.parked_page(connection, conditions, size + 1)
        return connection_of("ParkedReversal", size, after, [(row.id, ParkedReversal(row=row)) for row in rows])

"""What proves a close: its certificate, invariant by invariant."""

import strawberry

from api.graphql.fields import described_field
from settlement.checks import Check


@strawberry.type(description="One invariant of the ledger, as checked at the close.")
class InvariantCheck:
    """Result of one invariant."""

    number: int = strawberry.field(description="Number of the invariant, 1 to 19.")
    name: str = strawberry.field(description="What must hold.")
    holds: bool = strawberry.field(description="Whether it holds.")
    detail: str = strawberry.field(
        description="What was found; empty for a partner, since it holds figures of the coalition."
    )


@strawberry.type(description="What proves a close: a hash over everything in it, chained to the period before.")
class Certificate:
    """The certificate of a closed period."""

    checked: strawberry.Private[tuple[Check, ...]]
    sha256: str = strawberry.field(
        description="SHA-256, in hex, over the canonical bytes of statements and position hashes, and previous."
    )
    previous: str | None = strawberry.field(description="sha256 of the period closed before; null for the first one.")

    @described_field("Every invariant with its result.")
    def checks(self) -> list[InvariantCheck]:
        """The invariants by number."""
        return [
            InvariantCheck(number=each.number, name=each.name, holds=each.holds, detail=each.detail)
            for each in self.checked
        ]

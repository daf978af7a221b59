"""Points that a partner leaves behind, as its final statement tells them."""

from decimal import Decimal

import strawberry

from api.graphql.scalars import Points
from domain.values import decimal_from_micro
from settlement.lines import Outstanding


@strawberry.type(
    description="Points that a partner paid for and that members still have, available or held, when it is gone: they"
    " stay usable at all others."
)
class OutstandingPoints:
    """What a final statement leaves behind."""

    points: Points = strawberry.field(description="How many there are.")
    value: Decimal = strawberry.field(description="What they are worth in the reward pool, exactly; six decimals.")


def outstanding_points(outstanding: Outstanding) -> OutstandingPoints:
    """The schema's value of them."""
    return OutstandingPoints(points=Points(outstanding.points), value=decimal_from_micro(outstanding.value_micro))

"""Who is asking, as the platform sees it."""

from datetime import date, datetime
from enum import StrEnum

import strawberry

from api.graphql.context import Info
from api.graphql.fields import described_enum, described_field
from api.graphql.limits import BODY_BYTES_MAX, COST_MAX, DEPTH_MAX, MANY_MAX, PAGE_MAX
from api.graphql.partners import Partner, known_partner


class ViewerKind(StrEnum):
    """Whose client it is."""

    PARTNER = "PARTNER"
    OPERATOR = "OPERATOR"


described_enum(
    ViewerKind,
    "Whose client is asking.",
    {
        "PARTNER": "A partner's: sees what is its own.",
        "OPERATOR": "The operator's: sees every partner, and cannot earn, burn or reverse.",
    },
)


@strawberry.type(description="What one request may hold.")
class Limits:
    """The API's limits."""

    page_size: int = strawberry.field(default=PAGE_MAX, description="Largest first of a list.")
    earn_many: int = strawberry.field(
        default=MANY_MAX,
        description="Most purchases of one earnMany, burns of one burnMany or reversals of one reverseMany.",
    )
    body_bytes: int = strawberry.field(default=BODY_BYTES_MAX, description="Largest body of a request, in bytes.")
    depth: int = strawberry.field(default=DEPTH_MAX, description="Most levels of a document.")
    cost: int = strawberry.field(
        default=COST_MAX,
        description="Most fields that a document may resolve, each counted once per item of the lists around it.",
    )


@strawberry.type(description="What holds for the whole coalition.")
class Programme:
    """The programme, as far as a till needs it."""

    name: str = strawberry.field(description="Its name.")
    currency: str = strawberry.field(description="The one currency of all its amounts, by its ISO 4217 code.")
    timezone: str = strawberry.field(description="The time zone of its days and periods, by its IANA name.")
    issue_ends: date | None = strawberry.field(
        description="Last day, in its time zone, on which points are issued; null while no end is set."
    )
    burn_ends: date | None = strawberry.field(
        description="Last day on which points are burned: what is left then expires; null while no end is set."
    )


@strawberry.type(description="Who is asking: the client behind the token.")
class Viewer:
    """The principal of the request."""

    @described_field("Whose client it is.")
    def kind(self, info: Info) -> ViewerKind:
        """Partner or operator."""
        return ViewerKind.OPERATOR if info.context.is_operator else ViewerKind.PARTNER

    @described_field("The client's id.")
    def client_id(self, info: Info) -> str:
        """The OAuth client."""
        return info.context.principal.client_id

    @described_field("The partner for which the client acts; null for the operator's.")
    async def partner(self, info: Info) -> Partner | None:
        """The client's partner."""
        context = info.context
        return None if context.is_operator else await known_partner(context, context.viewer_id)

    @described_field("What the token allows, by name.")
    def scopes(self, info: Info) -> list[str]:
        """The token's scopes, with those that every operator client has."""
        return sorted(info.context.scopes)

    @described_field("When the token ends: ask for the next one before.")
    def token_expires_at(self, info: Info) -> datetime:
        """End of the token."""
        return info.context.principal.expires_at

    @described_field("What holds for the whole coalition; null before its file was applied.")
    async def programme(self, info: Info) -> Programme | None:
        """The programme."""
        configuration = await info.context.services.configuration.current()
        if configuration is None:
            return None
        held = configuration.programme
        return Programme(
            name=held.name,
            currency=held.currency,
            timezone=held.timezone,
            issue_ends=held.issue_ends,
            burn_ends=held.burn_ends,
        )

    @described_field("What one request may hold.")
    def limits(self) -> Limits:
        """The API's limits."""
        return Limits()


@strawberry.type
class ViewerQueries:
    """Query fields about the viewer."""

    @described_field("Who is asking, and what the token allows. Needs a token, and no scope.")
    def viewer(self) -> Viewer:
        """The viewer."""
        return Viewer()

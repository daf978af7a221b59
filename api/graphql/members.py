"""Members as a viewer may see them: without recorded consent, the id, the balance, and what the viewer supplied."""

import json
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import strawberry

from api.graphql.context import Context, Info, bad_input, page_size
from api.graphql.fields import described_enum, described_field, guarded_field
from api.graphql.ids import plain_number
from api.graphql.money import (
    After,
    Connection,
    First,
    Money,
    Node,
    connection_of,
    cursor_key,
)
from api.graphql.partners import Partner, partner_by_id
from api.graphql.scalars import Points
from domain import commands, reading
from domain.members import normalised
from domain.terms import Programme
from domain.values import decimal_from_minor, micro_per_minor

if TYPE_CHECKING:
    from api.graphql.pools import Pool

READ_ALL_IDENTIFIERS = "members:admin"
NO_ID = -1
"""Stands for an id that names nothing, where None would mean that none was given."""


class MemberState(StrEnum):
    """Whether a member takes part."""

    ACTIVE = "ACTIVE"
    CLOSED = "CLOSED"


described_enum(
    MemberState,
    "Whether a member takes part.",
    {"ACTIVE": "The member earns and burns.", "CLOSED": "The account is closed (MEMBER_CLOSED)."},
)


class IdentifierKind(StrEnum):
    """What an identifier is."""

    CARD = "card"
    EMAIL = "email"
    PHONE = "phone"


described_enum(
    IdentifierKind,
    "What kind of identifier it is.",
    {
        "CARD": "A card number or app id: an opaque string.",
        "EMAIL": "An e-mail address, in lower case.",
        "PHONE": "A phone number in E.164 form.",
    },
)


class Channel(StrEnum):
    """How a customer was served."""

    STORE = "STORE"
    WEB = "WEB"
    APP = "APP"
    PHONE = "PHONE"
    OTHER = "OTHER"


described_enum(
    Channel,
    "How the customer was served.",
    {
        "STORE": "At a till.",
        "WEB": "In a web shop.",
        "APP": "In an app.",
        "PHONE": "By phone.",
        "OTHER": "In another way.",
    },
)


class Sex(StrEnum):
    """A member's sex, as stated."""

    FEMALE = "FEMALE"
    MALE = "MALE"
    OTHER = "OTHER"


described_enum(
    Sex,
    "A member's sex, as stated by the member.",
    {"FEMALE": "Female.", "MALE": "Male.", "OTHER": "Neither of the two."},
)


@strawberry.input(description="Which member: exactly one of the fields.", one_of=True)
class MemberRef:
    """A member by the viewer's id or by an identifier as typed."""

    id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="The member's id as your own queries gave it; other partners' differ."
    )
    card: str | None = strawberry.field(default=strawberry.UNSET, description="Card number or app id, exactly.")
    email: str | None = strawberry.field(default=strawberry.UNSET, description="E-mail address; case is ignored.")
    phone: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Phone number; one without country code is read in the programme's region.",
    )

    def key(self, context: Context) -> int | tuple[str, str] | None:
        """The member's id or normalised identifier; None when it can name nobody."""
        if self.id:
            numbers = context.services.ids.decode(context.viewer_id, "Member", self.id)
            return numbers[0] if numbers is not None and len(numbers) == 1 else None
        configuration = context.services.configuration.held
        if configuration is None:
            return None  # no programme, no members
        for kind in IdentifierKind:
            raw = getattr(self, kind.value)
            if raw:
                return normalised(kind.value, raw, configuration.programme.region)
        return None

    def as_ref(self, context: Context) -> commands.MemberRef:
        """The domain's value of it."""
        key = self.key(context)
        return commands.MemberRef(key) if isinstance(key, int) else commands.MemberRef(identifier=key)


@strawberry.input(description="What you know about a new member; all of it optional, nothing decides about points.")
class MemberAttributesInput:
    """Demographics at enrolment; stored with the member, shown to the operator only."""

    birth_year: int | None = strawberry.field(description="Year of birth, such as 1980; from 1900 on.")
    sex: Sex | None = strawberry.field(description="As the member states it.")
    household_size: int | None = strawberry.field(description="How many people live in the household, 1 to 99.")
    postal_area: str | None = strawberry.field(description="The first characters of the postal code, or a region.")
    age_band: str | None = strawberry.field(description='An age range such as "35-44", where no year is known.')
    income_band: str | None = strawberry.field(description="An income range, as your own data groups it.")

    def as_pairs(self) -> tuple[tuple[str, str], ...]:
        """The given attributes as (name, text), by name."""
        return tuple((name, str(getattr(self, name))) for name in ATTRIBUTE_NAMES if getattr(self, name) is not None)


ATTRIBUTE_NAMES = ("age_band", "birth_year", "household_size", "income_band", "postal_area", "sex")
WHOLE_NUMBERS = {"birth_year", "household_size"}


@strawberry.type(description="What is known about a member; every field may be missing.")
class MemberAttributes:
    """Demographics as stored."""

    birth_year: int | None = strawberry.field(description="Year of birth.")
    sex: Sex | None = strawberry.field(description="As the member stated it.")
    household_size: int | None = strawberry.field(description="How many people live in the household.")
    postal_area: str | None = strawberry.field(description="The first characters of the postal code, or a region.")
    age_band: str | None = strawberry.field(description="An age range.")
    income_band: str | None = strawberry.field(description="An income range.")


def attributes_from(stored: str) -> MemberAttributes:
    """Attributes from their stored JSON; names of an importer that the schema does not have are left out."""
    known: dict[str, str] = json.loads(stored)
    values: dict[str, Any] = {
        name: (int(known[name]) if name in WHOLE_NUMBERS else known[name]) if name in known else None
        for name in ATTRIBUTE_NAMES
    }
    return MemberAttributes(**values)


@strawberry.type(description="Something by which a member is found.")
class MemberIdentifier:
    """One identifier in its normal form."""

    kind: IdentifierKind = strawberry.field(description="What it is.")
    value: str = strawberry.field(description="Its normal form.")


@strawberry.type(description="The points that a member loses next, unless they are burned before.")
class Expiring:
    """The next expiry of an account."""

    points: Points = strawberry.field(description="How many points expire then, positive.")
    at: datetime = strawberry.field(description="From this instant on they can no longer be burned.")


class PointWorth(NamedTuple):
    """What turns points into what they are worth to a member."""

    point_value_micro: int
    currency: str
    currency_digits: int

    def of(self, points: int) -> Money:
        """Points x point value, floored to the minor unit, never the reimbursement (DESIGN.md section 12, item 7)."""
        minor = points * self.point_value_micro // micro_per_minor(self.currency_digits)
        return Money(amount=decimal_from_minor(minor, self.currency_digits), currency=self.currency)


def worth_in(programme: Programme) -> PointWorth:
    """The worth of a point in a programme."""
    return PointWorth(programme.point_value_micro, programme.currency, programme.currency_digits)


@strawberry.type(description="A member's points. Expired points are never counted.")
class Balance:
    """Points of one account, and what they are worth to the member."""

    account_id: strawberry.Private[int]
    worth: strawberry.Private[PointWorth]
    available: Points = strawberry.field(
        description="Points that can be burned now. Negative where the programme lets members owe points of returned"
        " goods that they had spent: nothing can be burned until later points have paid them back."
    )
    pending: Points = strawberry.field(description="Points awarded but not confirmed yet.")
    held: Points = strawberry.field(description="Points reserved by an authorization.")

    @described_field("What the available points are worth to the member when burned, rounded down.")
    def value(self) -> Money:
        """The available points in money."""
        return self.worth.of(self.available)

    @described_field("The next points to expire; null when no open points expire.")
    async def expiring_next(self, info: Info) -> Expiring | None:
        """The earliest expiry of open lots, as of now."""
        expiry = await info.context.loaders.expiries.load(self.account_id)
        return None if expiry is None else Expiring(points=Points(expiry.points), at=expiry.at)


def balance_of(view: commands.BalanceView, worth: PointWorth) -> Balance:
    """The schema's value of a balance."""
    return Balance(
        account_id=view.account_id,
        worth=worth,
        available=Points(view.available),
        pending=Points(view.pending),
        held=Points(view.held),
    )


@strawberry.type(
    description="A person who collects points at every partner. Without the member's recorded consent a partner sees"
    " the id, the balance, and the identifiers that it supplied itself."
)
class Member(Node):
    """A member as the viewer may see it."""

    row: strawberry.Private[reading.MemberRow]

    @described_field("Opaque id of the member; every partner sees another one.")
    def id(self, info: Info) -> strawberry.ID:
        """The viewer's id of the member."""
        context = info.context
        return strawberry.ID(context.services.ids.encode(context.viewer_id, "Member", self.row.id))

    @described_field("The member's points as of now.")
    def balance(self) -> Balance:
        """The balance that was read with the member."""
        row = self.row
        return balance_of(row.balance, PointWorth(row.point_value_micro, row.currency, row.currency_digits))

    @described_field("When the member was enrolled.")
    def enrolled_at(self) -> datetime:
        """The instant of enrolment."""
        return self.row.enrolled_at

    @described_field("Whether the member takes part.")
    def state(self) -> MemberState:
        """The member's state."""
        return MemberState(self.row.state)

    @guarded_field(
        "Member.identifiers",
        "The identifiers that you supplied; every identifier for an operator with members:admin.",
    )
    async def identifiers(self, info: Info) -> list[MemberIdentifier]:
        """The identifiers that the viewer may see."""
        context = info.context
        loaders = context.loaders
        if not context.is_operator:
            found = await loaders.own_identifiers.load(self.row.id)
        elif READ_ALL_IDENTIFIERS in context.scopes:
            found = await loaders.identifiers.load(self.row.id)
        else:
            found = []
        return [MemberIdentifier(kind=IdentifierKind(kind), value=value) for kind, value in found]

    @guarded_field(
        "Member.attributes",
        "Demographics given at enrolment: for an operator with members:admin, else null.",
    )
    def attributes(self, info: Info) -> MemberAttributes | None:
        """Demographics, for the operator."""
        context = info.context
        if not context.is_operator or READ_ALL_IDENTIFIERS not in context.scopes or self.row.attributes is None:
            return None
        return attributes_from(self.row.attributes)

    @guarded_field(
        "Member.acquiredBy",
        "The partner that enrolled the member: for that partner and the operator, else null.",
    )
    async def acquired_by(self, info: Info) -> Partner | None:
        """The acquisition source."""
        context = info.context
        if not context.may_see(self.row.partner_id):
            return None
        return await partner_by_id(context, self.row.partner_id)

    @guarded_field("Member.pool", "The household whose account the member shares; null where it has one of its own.")
    async def pool(self, info: Info) -> Annotated["Pool", strawberry.lazy("api.graphql.pools")] | None:
        """The member's pool."""
        from api.graphql.pools import Pool

        pool_id = await info.context.loaders.pools_of_members.load(self.row.id)
        return None if pool_id is None else Pool(pool_id=pool_id)


@strawberry.input(description="Which members to list; conditions that you leave out do not limit.")
class MemberFilter:
    """Conditions on members."""

    state: MemberState | None = strawberry.field(description="Only members in this state.")
    enrolled_from: datetime | None = strawberry.field(description="Only members enrolled at or after this instant.")
    enrolled_to: datetime | None = strawberry.field(description="Only members enrolled before this instant.")
    partner_id: strawberry.ID | None = strawberry.field(
        description="Only members whom this partner enrolled; a partner may name itself only."
    )


def member_conditions(context: Context, given: MemberFilter | None) -> dict[str, Any]:
    """Conditions of reading.MEMBER_CONDITIONS for a filter. Raises BAD_USER_INPUT for another partner's members."""
    conditions: dict[str, Any] = {}
    if not context.is_operator:
        conditions["dealt_with"] = context.viewer_id
    if given is None:
        return conditions
    for name in ("state", "enrolled_from", "enrolled_to"):
        if getattr(given, name) is not None:
            conditions[name] = getattr(given, name)
    if given.partner_id is not None:
        conditions["partner"] = filter_partner(context, given.partner_id)
    return conditions


def filter_partner(context: Context, given: strawberry.ID) -> int:
    """The partner id of a filter. Raises BAD_USER_INPUT for an id that is none, or another partner's."""
    partner_id = plain_number("Partner", given)
    if partner_id is None or not context.may_see(partner_id):
        raise bad_input("partnerId must be your own partner's id; an operator may name any partner", "partnerId")
    return partner_id


@strawberry.type
class MemberQueries:
    """Query fields about members."""

    @guarded_field("Query.member", "The member with an id or identifier; null when there is none.")
    async def member(
        self,
        info: Info,
        by: Annotated[MemberRef, strawberry.argument(description="Which member.")],
    ) -> Member | None:
        """One member."""
        context = info.context
        key = by.key(context)
        row = None if key is None else await context.services.members.find(key)
        return None if row is None else Member(row=row)

    @guarded_field(
        "Query.members", "Members who have dealt with you (all members for an operator), latest enrolment first."
    )
    async def members(
        self,
        info: Info,
        filter: Annotated[
            MemberFilter | None, strawberry.argument(description="Which members; all of them when left out.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[Member]:
        """A page of members."""
        context, size = info.context, page_size(first)
        conditions = member_conditions(context, filter)
        before = cursor_key(context, "Member", after)
        if before is not None:
            conditions["before"] = before
        async with context.services.database.reading(context.viewer_id) as connection:
            rows = await reading.members_page(connection, conditions, size + 1, context.services.clock())
        return connection_of("Member", size, after, [(row.id, Member(row=row)) for row in rows])

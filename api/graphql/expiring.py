"""Whose points expire next, as a list to write notices from."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import strawberry

from api.graphql.context import Context, Info, page_size
from api.graphql.fields import described_field, guarded_field
from api.graphql.members import Expiring, Member
from api.graphql.money import After, Connection, First, connection_of, cursor_numbers
from api.graphql.scalars import Points
from domain.expiry_notices import Notice, NoticeKey, expiring_page

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
KIND = "ExpiringPoints"


@strawberry.type(description="A member who loses points soon, unless they are burned before.")
class ExpiringPoints:
    """One line of the notice list."""

    notice: strawberry.Private[Notice]

    @described_field("Whose points they are; a household's points are listed with each of its members.")
    async def member(self, info: Info) -> Member | None:
        """The member, as the viewer may see it."""
        row = await info.context.loaders.members.find(self.notice.key.member_id)
        return None if row is None else Member(row=row)

    @described_field("How many points expire before the date that was asked about, positive.")
    def points(self) -> Points:
        """The sum of the expiries."""
        return Points(self.notice.points)

    @described_field("Which points expire when, earliest first.")
    def expiries(self) -> list[Expiring]:
        """Points by instant."""
        return [Expiring(points=Points(expiry.points), at=expiry.at) for expiry in self.notice.expiries]


@strawberry.type
class ExpiringQueries:
    """The query field of the notice list."""

    @guarded_field(
        "Query.expiringPoints",
        "Members who have dealt with you (all members for an operator) and whose points expire before a date, soonest"
        " first. Points that are held do not expire and are not counted.",
    )
    async def expiring_points(
        self,
        info: Info,
        before: Annotated[datetime, strawberry.argument(description="Points that expire before this instant.")],
        first: First = None,
        after: After = None,
    ) -> Connection[ExpiringPoints]:
        """A page of members."""
        context, size = info.context, page_size(first)
        key = _key(context, after)
        async with context.services.database.reading(context.viewer_id) as connection:
            notices = await expiring_page(
                connection,
                context.services.clock(),
                before,
                after=key,
                limit=size + 1,
                dealt_with=None if context.is_operator else context.viewer_id,
            )
        found = [(_numbers(notice.key), ExpiringPoints(notice=notice)) for notice in notices]
        return connection_of(KIND, size, after, found)


def _numbers(key: NoticeKey) -> tuple[int, int, int]:
    return ((key.at - EPOCH) // MICROSECOND, key.account_id, key.member_id)


def _key(context: Context, after: str | None) -> NoticeKey | None:
    numbers = cursor_numbers(context, KIND, after, 3)
    return None if numbers is None else NoticeKey(EPOCH + numbers[0] * MICROSECOND, numbers[1], numbers[2])

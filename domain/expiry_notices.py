"""Whose points expire next: a page at a time, for notices to members before it is too late."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.reading import MEMBER_CONDITIONS, Expiry


class NoticeKey(NamedTuple):
    """Where a member stands in the list: when the account's next points expire, the account, the member."""

    at: datetime
    account_id: int
    member_id: int


class Notice(NamedTuple):
    """A member whose points expire: what goes when, earliest first, and where the list goes on."""

    key: NoticeKey
    expiries: tuple[Expiry, ...]

    @property
    def points(self) -> int:
        """All that goes."""
        return sum(expiry.points for expiry in self.expiries)


# In the order of the index on accounts, so that a page costs what it shows however many accounts there are. What the
# account knows of its next expiry is a lower bound: the lots say what is true, and an account without any is left out.
NOTICES_SQL = """
    SELECT a.next_expires_at, a.id, m.id, due.points, due.at
      FROM account AS a
      JOIN member AS m ON m.account_id = a.id AND m.state = 'ACTIVE'
     CROSS JOIN LATERAL (
        SELECT array_agg(each.points ORDER BY each.at) AS points, array_agg(each.at ORDER BY each.at) AS at
          FROM (SELECT sum(l.remaining)::bigint AS points,
                       least(coalesce(l.grace_until, l.expires_at), points_end()) AS at
                  FROM lot AS l
                 WHERE l.account_id = a.id AND l.remaining > 0
                   AND coalesce(l.grace_until, l.expires_at) > past_instant(:now)
                   AND least(coalesce(l.grace_until, l.expires_at), points_end()) < :before
                 GROUP BY 2) AS each) AS due
     WHERE a.next_expires_at < CASE WHEN points_end() < :before THEN 'infinity' ELSE :before END
       AND due.points IS NOT NULL {conditions}
     ORDER BY a.next_expires_at, a.id, m.id LIMIT :limit
"""
AFTER_SQL = """AND a.next_expires_at >= :after_at
       AND (a.next_expires_at, a.id, m.id) > (:after_at, :after_account, :after_member)"""


@cache
def _query(*, is_first: bool, is_partner: bool) -> TextClause:
    conditions = ["" if is_first else AFTER_SQL, f"AND {MEMBER_CONDITIONS['dealt_with']}" if is_partner else ""]
    return text(NOTICES_SQL.format(conditions=" ".join(conditions)))


async def expiring_page(
    connection: AsyncConnection,
    now: datetime,
    before: datetime,
    *,
    after: NoticeKey | None,
    limit: int,
    dealt_with: int | None = None,
) -> Sequence[Notice]:
    """Active members with points that expire after ``now`` and before ``before``, soonest first.

    With ``dealt_with`` only members who have dealt with that partner. A household's points are listed with each of its
    members; held points are not listed, as they do not expire while they are held.
    """
    parameters: dict[str, Any] = {"now": now, "before": before, "limit": limit}
    if after is not None:
        parameters |= {"after_at": after.at, "after_account": after.account_id, "after_member": after.member_id}
    if dealt_with is not None:
        parameters["dealt_with"] = dealt_with
    query = _query(is_first=after is None, is_partner=dealt_with is not None)
    return [
        Notice(NoticeKey(at, account_id, member_id), tuple(map(Expiry, points, instants)))
        for at, account_id, member_id, points, instants in await connection.execute(query, parameters)
    ]

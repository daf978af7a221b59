"""The notice list for the command line: whose points expire before a day."""

from datetime import date, timedelta
from typing import Any, NamedTuple

from api.graphql.ids import IdCodec, load_installation_secret
from api.runtime import Runtime
from domain.expiry_notices import Notice, NoticeKey, expiring_page
from domain.periods import local_midnight
from domain.values import OPERATOR_ID

PAGE_MEMBERS = 500
INSTANT = timedelta(microseconds=1)


class NoticeList(NamedTuple):
    """Members as expiringPoints shows them to the operator; ``is_cut``: there are more than were asked for."""

    rows: list[dict[str, Any]]
    is_cut: bool


async def list_expiring(runtime: Runtime, before: date, first: int) -> NoticeList:
    """The ``first`` members with points whose last local day is before that one, soonest first.

    Raises ConfigurationError before the first ``coalition apply``.
    """
    configuration = await runtime.programme_configuration()
    ids = IdCodec(await load_installation_secret(runtime.database))
    # Points whose last day is the one before expire at the very instant that begins this day.
    now, end = runtime.clock(), local_midnight(before, configuration.programme.zone) + INSTANT
    found: list[Notice] = []
    after: NoticeKey | None = None
    while len(found) <= first:
        # A page of its own transaction: a long list holds up no vacuum.
        async with runtime.database.reading(OPERATOR_ID) as connection:
            page = await expiring_page(connection, now, end, after=after, limit=PAGE_MEMBERS)
        if not page:
            break
        found += page
        after = page[-1].key
    return NoticeList([_described(notice, ids) for notice in found[:first]], len(found) > first)


def _described(notice: Notice, ids: IdCodec) -> dict[str, Any]:
    return {
        "member": {"id": ids.encode(OPERATOR_ID, "Member", notice.key.member_id)},
        "points": notice.points,
        "expiries": [{"points": expiry.points, "at": expiry.at.isoformat()} for expiry in notice.expiries],
    }

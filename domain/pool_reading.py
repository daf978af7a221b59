"""Reading pools: who is in one, as far as a viewer may know of its members."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.reading import OWN_COMMANDS_SQL
from domain.values import OPERATOR_ID


class PlaceRow(NamedTuple):
    """A member's place in a pool."""

    member_id: int
    role: str
    burn_limit: int | None
    since: datetime


POOLS_OF_MEMBERS_SQL = text(
    "SELECT member_id, pool_id FROM pool_member WHERE member_id = ANY(:ids) AND ended_by IS NULL"
)
POOLS_OF_COMMANDS_SQL = text(
    "SELECT c.id, s.pool_id FROM unnest(CAST(:ids AS bigint[])) AS c (id)"
    " JOIN pool_member AS s ON s.command_id = c.id OR s.ended_by = c.id"
)
PLACES_SQL = text(
    f"""
    SELECT s.pool_id, s.member_id, s.role, s.burn_limit, s.since
      FROM pool_member AS s
     WHERE s.pool_id = ANY(:ids) AND s.ended_by IS NULL
       AND (CAST(:viewer AS integer) = {OPERATOR_ID}
            OR EXISTS (SELECT FROM ({OWN_COMMANDS_SQL.format(member="s.member_id")}) AS own
                         JOIN command AS c ON c.account_id = own.account_id AND c.member_id = own.id
                                          AND c.partner_id = :viewer))
     ORDER BY s.pool_id, s.since, s.command_id
    """  # noqa: S608 (constants of this application)
)


async def pools_of_members(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, int]:
    """Pool ids by the ids of members who are in one."""
    rows = await connection.execute(POOLS_OF_MEMBERS_SQL, {"ids": list(ids)})
    return {member_id: pool_id for member_id, pool_id in rows}  # noqa: C416 (a row is no pair to mypy)


async def pools_of_commands(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, int]:
    """Pool ids by the ids of the commands that changed who is in them."""
    rows = await connection.execute(POOLS_OF_COMMANDS_SQL, {"ids": list(ids)})
    return {command_id: pool_id for command_id, pool_id in rows}  # noqa: C416 (a row is no pair to mypy)


async def places_of_pools(
    connection: AsyncConnection, pool_ids: Sequence[int], viewer_id: int
) -> dict[int, list[PlaceRow]]:
    """Who is in these pools, longest there first; to a partner only members who have dealt with it."""
    found: dict[int, list[PlaceRow]] = {}
    for pool_id, *place in await connection.execute(PLACES_SQL, {"ids": list(pool_ids), "viewer": viewer_id}):
        found.setdefault(pool_id, []).append(PlaceRow(*place))
    return found

"""What a member of a household's pool may still burn today."""

from collections.abc import Sequence

from sqlalchemy import text

from domain.batch import Batch, Member
from domain.commands import Authorize, Burn, Command
from domain.database import BatchConnection
from domain.errors import RefusalCode, Refused
from domain.lots import Hold
from domain.periods import local_date, local_midnight

# Gross of refunds: what is given back counts as burned until tomorrow, so that a limit cannot be turned over. What an
# authorization set aside and gave back was never burned.
BURNED_TODAY_SQL = text(
    """
    SELECT c.member_id, sum(c.points - coalesce(h.released, 0))::bigint FROM command AS c
      LEFT JOIN hold AS h ON h.account_id = c.account_id AND h.id = c.id
     WHERE c.account_id = ANY(CAST(:accounts AS bigint[])) AND c.member_id = ANY(CAST(:members AS bigint[]))
       AND c.kind IN ('BURN', 'AUTHORIZATION') AND c.recorded_at >= :since
     GROUP BY c.member_id
    """
)


async def load_burned_today(connection: BatchConnection, batch: Batch, commands: Sequence[Command]) -> None:
    """Step 6: what limited members burned since local midnight; no statement where nobody is limited."""
    limited = [member for member in batch.members.values() if member.burn_limit is not None]
    if not limited or not any(isinstance(command, Burn | Authorize) for command in commands):
        return
    programme = batch.configuration.programme
    since = local_midnight(local_date(batch.clock.recorded_at, programme.zone), programme.zone)
    accounts, members = [member.account_id for member in limited], [member.id for member in limited]
    rows = await connection.execute(BURNED_TODAY_SQL, {"accounts": accounts, "members": members, "since": since})
    batch.burned_today = {member_id: int(points) for member_id, points in rows.all()}


def check_burn_limit(batch: Batch, member: Member, points: int) -> None:
    """Raises Refused(LIMIT_EXCEEDED) where the member's pool lets it burn less than that today."""
    if member.burn_limit is None:
        return
    left = max(member.burn_limit - batch.burned_today.get(member.id, 0), 0)
    if points > left:
        message = f"the member may burn {member.burn_limit} points of the pool in a day, {left} are left today"
        raise Refused(RefusalCode.LIMIT_EXCEEDED, message, "points")


def note_burn(batch: Batch, member: Member, points: int) -> None:
    """Counts what a limited member burned, or had set aside, for later commands of the batch."""
    if member.burn_limit is not None:
        batch.burned_today[member.id] = batch.burned_today.get(member.id, 0) + points


def note_release(batch: Batch, hold: Hold, points: int) -> None:
    """What a hold of today gives back was never burned: for later commands of the batch, and for who times it out."""
    member, zone = batch.members.get(hold.member_id), batch.configuration.programme.zone
    is_counted = member is not None and member.account_id == hold.account_id and hold.member_id in batch.burned_today
    if is_counted and local_date(hold.recorded_at, zone) == local_date(batch.clock.recorded_at, zone):
        batch.burned_today[hold.member_id] -= points

"""Dates with which something ends: kept from changing what they ended, and from ending what was done since."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.endings import programme_final_id
from domain.periods import Calendar, local_date, local_midnight
from domain.terms import Configuration, Partner, Programme
from partners.coalition_file import PartnerSection, ProgrammeSection
from partners.plan import Plan

LAST_NOT_OPEN_SQL = text("SELECT coalesce(max(id), 0) FROM period WHERE state <> 'OPEN'")
# A row's period is that of its recording: never before the one in which it happened, but for a till whose clock is
# minutes ahead over midnight.
USES_AFTER_SQL = text(
    """
    SELECT count(*) FROM command
     WHERE period_id >= :first_period AND kind = ANY(CAST(:kinds AS text[])) AND occurred_at >= :since
       AND (CAST(:partner_id AS integer) IS NULL OR partner_id = :partner_id)
    """
)


async def refusals_of_endings(
    connection: AsyncConnection, current: Configuration, plan: Plan, now: datetime
) -> list[str]:
    """A line per date of an end that the plan may not set or change; nobody may post meanwhile."""
    last_not_open: int = (await connection.execute(LAST_NOT_OPEN_SQL)).scalar_one()
    calendar = current.programme.calendar
    today = local_date(now, calendar.zone)
    refusals = []
    if plan.programme is not None and {"issue_ends", "burn_ends"} & plan.programme.values.keys():
        new_programme = plan.programme.new
        assert new_programme is not None
        refused = [*_programme_refusals(current.programme, new_programme, last_not_open, today)]
        for day, kinds, what in (
            (new_programme.issue_ends, ["EARN"], "issue_ends"),
            (new_programme.burn_ends, ["BURN", "AUTHORIZATION"], "burn_ends"),
        ):
            if not refused and day is not None and what in plan.programme.values:
                refused += await _uses_after(connection, None, day, calendar, kinds, what)
        refusals += [f"programme: {refusal}" for refusal in refused]
    for change in plan.partners:
        if not {"leaves_on", "run_off_until"} & change.values.keys() or change.new is None:
            continue
        refused = [*_partner_refusals(change.old, change.new, calendar, last_not_open, today)]
        if not refused and change.old is not None and change.new.leaves_on is not None:
            kinds = ["EARN", "BURN", "AUTHORIZATION"]
            refused += await _uses_after(connection, change.old.id, change.new.leaves_on, calendar, kinds, "leaves_on")
        refusals += [f"{change.subject}: {refusal}" for refusal in refused]
    return refusals


def _partner_refusals(
    old: Partner | None, new: PartnerSection, calendar: Calendar, last_not_open: int, today: date
) -> Iterator[str]:
    if old is not None and old.leaves_on is not None and old.run_off_until is not None:
        if calendar.ordinal(old.run_off_until) <= last_not_open:
            label = calendar.label(calendar.ordinal(old.run_off_until))
            yield f"its final statement is that of {label}: leaves_on and run_off_until stay as they are"
            return
        if old.has_left(today) and (new.leaves_on is None or new.leaves_on > old.leaves_on):
            yield f"it left on {old.leaves_on}: to take part again it needs a code of its own"
        if today > old.run_off_until and new.run_off_until != old.run_off_until:
            yield f"its run-off ended on {old.run_off_until}, which stays so"
    moved = {
        "leaves_on": (None if old is None else old.leaves_on, new.leaves_on),
        "run_off_until": (None if old is None else old.run_off_until, new.run_off_until),
    }
    for key, (before, after) in moved.items():
        if after is not None and after != before and calendar.ordinal(after) <= last_not_open:
            label = calendar.label(calendar.ordinal(after))
            yield f"{key} = {after} lies in {label}, which is closed: take a later day"


def _programme_refusals(old: Programme, new: ProgrammeSection, last_not_open: int, today: date) -> Iterator[str]:
    calendar = old.calendar
    last_id = programme_final_id(old)
    if last_id is not None and last_id <= last_not_open:
        yield f"its last statements are those of {calendar.label(last_id)}: issue_ends and burn_ends stay as they are"
        return
    for key in ("issue_ends", "burn_ends"):
        before, after = getattr(old, key), getattr(new, key)
        if before is not None and today > before and after != before:
            yield f"{key} = {before} is over, and stays so"
        elif after is not None and after != before and calendar.ordinal(after) <= last_not_open:
            label = calendar.label(calendar.ordinal(after))
            yield f"{key} = {after} lies in {label}, which is closed: take a later day"
    if new.burn_ends is not None and new.burn_ends != old.burn_ends and new.burn_ends < today:
        yield f"burn_ends = {new.burn_ends} is over: members must be able to burn what they have"


async def _uses_after(
    connection: AsyncConnection,
    partner_id: int | None,
    last_day: date,
    calendar: Calendar,
    kinds: list[str],
    key: str,
) -> list[str]:
    """What happened after that last day, at the partner or (None) at any."""
    parameters = {
        "partner_id": partner_id,
        "since": local_midnight(last_day + timedelta(days=1), calendar.zone),
        "first_period": calendar.ordinal(last_day) - 1,
        "kinds": kinds,
    }
    uses: int = (await connection.execute(USES_AFTER_SQL, parameters)).scalar_one()
    if uses == 0:
        return []
    what = "purchase or burn" if uses == 1 else "purchases or burns"
    return [f"{uses} {what} happened after {key} = {last_day}: take a later day"]

"""Sweeping: booking for an account what is due by itself, and finding the accounts of which something is due.

What the system does by itself is derived from the state under the locks, so that a sweep is safe to repeat, to run
twice at once, and to be killed: whatever was committed is not due any more, and whatever was not is due again.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import text

from domain.batch import Batch, LastUse, Member
from domain.batch_clock import END_OF_TIME
from domain.burning import expire_past_lots
from domain.commands import Sweep, Swept
from domain.confirming import confirm_due, due_awards
from domain.database import BatchConnection, Database
from domain.holding import time_out_due
from domain.lapsing import LAPSED_SOURCES, cancel_lapsed, load_gone
from domain.transferring import pass_on
from domain.values import OPERATOR_ID


class _SweepCause(NamedTuple):
    """A ``burning.Cause``."""

    member_id: int
    recorded_at: datetime
    period_id: int


def decide_sweep(batch: Batch, command: Sweep) -> Swept:
    """Books what is due of the account at the clock's reading; answers what that was."""
    account = batch.accounts.get(command.account_id)
    last = batch.last_uses.get(command.account_id)
    if account is None or last is None:
        return Swept(command.account_id)  # nobody ever had it
    now = batch.clock.recorded_at
    cause = _SweepCause(last.member_id, now, batch.clock.booking(now).period_id)
    timed_out = time_out_due(batch, account, now)
    confirmed_points = [award.open_points for award in due_awards(batch, account, cause.period_id, now)]
    confirm_due(batch, account, cause.period_id, now)
    lapsed_points = cancel_lapsed(batch, account, cause)
    # After it, so that what is confirmed too late to be of use expires with the rest.
    instant = batch.clock.expiry_instant(now)
    past = [lot.remaining for lot in account.lots if lot.remaining and lot.is_past(instant)]
    expire_past_lots(batch, account, cause, instant)
    # What was known of the next expiry is a lower bound: where it was too early, nothing is booked and it is put right.
    account.note_next_expiry()
    if last.is_left:
        pass_on(batch, cause, account, last.member_now, now)
    return Swept(
        command.account_id,
        expired_lots=len(past),
        expired_points=sum(past),
        confirmed_awards=len(confirmed_points),
        confirmed_points=sum(confirmed_points),
        timed_out_holds=timed_out,
        lapsed_awards=len(lapsed_points),
        lapsed_points=sum(lapsed_points),
    )


# An account that no command names is a household's new one, or belongs to who was enrolled before there were commands.
LAST_USES_SQL = text(
    """
    SELECT asked.account_id, last.member_id, k.id, k.account_id, k.state, k.merged_into,
           NOT EXISTS (SELECT FROM member AS u WHERE u.account_id = asked.account_id AND u.merged_into IS NULL)
      FROM unnest(CAST(:accounts AS bigint[])) AS asked (account_id)
     CROSS JOIN LATERAL (SELECT coalesce(
        (SELECT member_id FROM command AS c WHERE c.account_id = asked.account_id ORDER BY c.id DESC LIMIT 1),
        (SELECT min(id) FROM member WHERE account_id = asked.account_id)) AS member_id) AS last
      JOIN member AS m ON m.id = last.member_id
      JOIN member AS k ON k.id = coalesce(m.merged_into, m.id)
    """
)


async def load_last_uses(connection: BatchConnection, account_ids: Collection[int]) -> dict[int, LastUse]:
    """Steps 0 and 6: who used these accounts last; an account may be a household's, or nobody's any more."""
    rows = await connection.execute(LAST_USES_SQL, {"accounts": list(account_ids)})
    return {
        account_id: LastUse(member_id, Member(*member_now), is_left)
        for account_id, member_id, *member_now, is_left in rows.all()
    }


# ---------------------------------------------------------------- finding what is due

DUE_SOURCES = (
    "SELECT next_expires_at AS due_at, id AS account_id FROM account WHERE next_expires_at <= :past",
    """SELECT release_at AS due_at, account_id FROM pending_award
        WHERE release_at <= :now AND open_points > 0 AND NOT waits_for_payment""",
    "SELECT expires_at AS due_at, account_id FROM hold WHERE state = 'OPEN' AND expires_at <= :past",
    *LAPSED_SOURCES,
)
"""Where something may be due: each answers (since when, account) and has an index in that order."""

PAGE_SQL = """
    (SELECT due_at, account_id FROM ({source}) AS source
      WHERE due_at >= :after_at AND (due_at > :after_at OR account_id > :after_id)
      ORDER BY due_at, account_id LIMIT :first)
"""
DUE_SQL = text(
    "SELECT due_at, account_id FROM ("  # noqa: S608 (constants of this module)
    + " UNION ALL ".join(PAGE_SQL.format(source=source) for source in DUE_SOURCES)
    + ") AS due ORDER BY due_at, account_id LIMIT :first"
)


class Due(NamedTuple):
    """An account of which something is due since then."""

    due_at: datetime
    account_id: int


NOTHING_YET = Due(datetime(1, 1, 1, tzinfo=UTC), 0)
"""Where the first page begins."""


async def due_accounts(database: Database, now: datetime, after: Due, first: int) -> list[Due]:
    """The next ``first`` accounts with something due by ``now``, longest due first; one may come twice.

    Paged by when it was due, not by account: each page is the beginning of an index, however much is due.
    """
    parameters = {"now": now, "after_at": after.due_at, "after_id": after.account_id, "first": first}
    async with database.reading(OPERATOR_ID) as connection:
        gone = await load_gone(connection, now)
        parameters |= gone._asdict() | {"past": END_OF_TIME if OPERATOR_ID in gone.gone_ids else now}
        return [Due(*row) for row in (await connection.execute(DUE_SQL, parameters)).all()]

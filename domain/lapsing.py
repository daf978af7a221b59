"""Pending awards that can no longer become usable, because who pays for them is gone: they are cancelled, uncharged."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.batch import Batch, CommandInput
from domain.burning import Cause
from domain.commands import CommandKind, CommandRow
from domain.confirming import cancel
from domain.endings import final_period_id, lapses
from domain.ledger import fingerprint
from domain.lots import Account, PendingAward
from domain.terms import PAID_FIRST, PARTNER_SQL, PROGRAMME_SQL, Partner, Programme
from domain.values import OPERATOR_ID

LAPSE_KEY = "system:lapse:{}"
"""Key of the command that cancels what lapsed of a purchase, by its first such award: it cannot be booked twice."""


def cancel_lapsed(batch: Batch, account: Account, cause: Cause) -> list[int]:
    """Cancels what lapsed of the account, a command per purchase, in the name of the partner where that was.

    A return of no goods: what comes back of the purchase later takes no points any more, and none are missing. Answers
    the points of each award that lapsed.
    """
    lapsed = [
        award
        for award in account.awards
        if award.open_points and lapses(batch.configuration, award, cause.period_id, cause.recorded_at)
    ]
    lapsed_points = [award.open_points for award in lapsed]
    for _, group in groupby(sorted(lapsed, key=attrgetter("command_id", "id")), key=attrgetter("command_id")):
        awards = list(group)
        row = _command_row(batch, awards, cause)
        print_ = fingerprint(
            kind=row.kind,
            member_id=row.member_id,
            store_id=row.store_id,
            reference=row.reference,
            amount_minor=row.amount_minor,
            reverses_id=row.reverses_id,
            occurred_at=row.occurred_at,
        )
        batch.new_commands.append((row, CommandInput(print_, reference_unique=False)))
        for award in awards:
            cancel(batch, row, award, award.open_points)
    return lapsed_points


def _command_row(batch: Batch, awards: Sequence[PendingAward], cause: Cause) -> CommandRow:
    first = awards[0]
    return CommandRow(
        id=next(batch.new_ids),
        partner_id=first.partner_id,
        key=LAPSE_KEY.format(first.id),
        kind=CommandKind.REVERSAL,
        account_id=first.account_id,
        member_id=first.member_id,
        store_id=first.store_id,
        reference=first.reference,
        channel=None,
        amount_minor=0,
        points=None,
        reverses_id=first.command_id,
        reason=None,
        declined_points=0,
        occurred_at=cause.recorded_at,
        recorded_at=cause.recorded_at,
        period_id=cause.period_id,
        moved_points=-sum(award.open_points for award in awards),
    )


class Gone(NamedTuple):
    """Partners whose final period has ended, and when it did; the parameters of LAPSED_SOURCES."""

    gone_ids: list[int]
    gone_since: list[datetime]


LAPSED_SOURCES = (
    """SELECT p.release_at AS due_at, p.account_id
         FROM unnest(CAST(:gone_ids AS integer[]), CAST(:gone_since AS timestamptz[])) AS gone (id, since)
         JOIN pending_award AS p ON p.funder_id = gone.id AND p.open_points > 0
        WHERE p.waits_for_payment OR p.release_at >= gone.since""",
    # As ``endings.waits_for_partner`` says.
    f"""SELECT p.release_at AS due_at, p.account_id
         FROM unnest(CAST(:gone_ids AS integer[])) AS gone (id)
         JOIN partner AS q ON q.id = gone.id
         JOIN pending_award AS p ON p.partner_id = q.id AND p.open_points > 0 AND p.waits_for_payment
        WHERE q.risk = '{PAID_FIRST}' OR p.funder_id IN ({OPERATOR_ID}, q.id)""",  # noqa: S608 (constants)
)
"""Where lapsed awards are, as ``domain.sweeping.DUE_SOURCES``."""


async def load_gone(connection: AsyncConnection, now: datetime) -> Gone:
    """The partners with which everything is settled by now."""
    found = Gone([], [])
    programmes = [Programme(*row) for row in await connection.execute(PROGRAMME_SQL)]
    partners = [Partner(*row) for row in await connection.execute(PARTNER_SQL)]
    for programme in programmes:
        ended_at = programme.burn_ends_at
        if ended_at is not None and ended_at <= now:
            # Everybody is, the operator too.
            everybody = [OPERATOR_ID, *(partner.id for partner in partners)]
            return Gone(everybody, [ended_at] * len(everybody))
        for partner in partners:
            last_id = final_period_id(programme, partner)
            since = None if last_id is None else programme.calendar.span(last_id).closes_at
            if since is not None and since <= now:
                found.gone_ids.append(partner.id)
                found.gone_since.append(since)
    return found

"""Whether a partner may issue, burn or settle when something happened: suspended ones may not, nor those that left.

What is raised is Refused(PARTNER_SUSPENDED, PARTNER_LEFT, PROGRAMME_ENDED, REVERSAL_WINDOW_OVER).
"""

from datetime import datetime, timedelta

from domain.batch import Batch
from domain.commands import CommandRow
from domain.endings import final_period_id, has_ended, programme_final_id
from domain.errors import RefusalCode, Refused
from domain.periods import local_date


def check_issues(batch: Batch, partner_id: int, occurred_at: datetime) -> None:
    """Raises Refused where the partner issued no points then."""
    refused = issue_refusal(batch, partner_id, occurred_at)
    if refused is not None:
        raise refused


def issue_refusal(batch: Batch, partner_id: int, occurred_at: datetime) -> Refused | None:
    """Why the partner issued no points then; None where it did."""
    programme = batch.configuration.programme
    if programme.issue_ends is not None and (
        local_date(occurred_at, programme.zone) > programme.issue_ends or _is_over(batch)
    ):
        message = f"the programme issued points until {programme.issue_ends}"
        return Refused(RefusalCode.PROGRAMME_ENDED, message)
    return _not_taking_part(batch, partner_id, occurred_at) or _run_off_over(batch, partner_id, occurred_at)


def check_takes_part(batch: Batch, partner_id: int, occurred_at: datetime) -> None:
    """Raises Refused: for what moves no money, such as an enrolment or a transfer."""
    refused = _not_taking_part(batch, partner_id, occurred_at)
    if refused is not None:
        raise refused


def check_burns(batch: Batch, partner_id: int, occurred_at: datetime) -> None:
    """Raises Refused where no points were burned, or held for it, at the partner."""
    may_suspended = batch.partner(partner_id).suspended_burns == "ALLOW"
    refused = _not_taking_part(batch, partner_id, occurred_at, may_suspended=may_suspended)
    refused = refused or _run_off_over(batch, partner_id, occurred_at)
    if refused is not None:
        raise refused


def check_captures(batch: Batch, partner_id: int, occurred_at: datetime) -> None:
    """Raises Refused where the partner may not burn what it authorized before.

    A hold is a promise that was made while the partner took part, so that it may be captured until the end of the
    run-off, and unless the partner's policy says otherwise while it is suspended.
    """
    partner = batch.partner(partner_id)
    if partner.state != "ACTIVE" and partner.suspended_burns == "REFUSE":
        message = "the partner is suspended: what it holds can be voided, not captured"
        raise Refused(RefusalCode.PARTNER_SUSPENDED, message)
    check_settles(batch, partner_id, occurred_at)


def check_settles(batch: Batch, partner_id: int, occurred_at: datetime) -> None:
    """Raises Refused where nothing is settled with the partner any more: its run-off is over.

    Returns, refunds and payments of what was bought before ask no more than this: suspension never blocks them.
    """
    refused = _run_off_over(batch, partner_id, occurred_at)
    if refused is not None:
        raise refused


def check_reversal_window(batch: Batch, original: CommandRow, occurred_at: datetime) -> None:
    """Raises Refused(REVERSAL_WINDOW_OVER) where its contract takes no reversal of the original any more.

    The window is that of the partner's terms when the original happened, and ends with a local day. What history tells
    was accepted then.
    """
    terms = batch.configuration.terms_at(original.partner_id, original.occurred_at)
    if terms is None or terms.reversal_days is None or batch.clock.is_history:
        return
    zone = batch.configuration.programme.zone
    last_day = local_date(original.occurred_at, zone) + timedelta(days=terms.reversal_days)
    if local_date(occurred_at, zone) > last_day:
        message = f"the contract took reversals of it until {last_day}: ask the operator for an adjustment"
        raise Refused(RefusalCode.REVERSAL_WINDOW_OVER, message, "occurredAt")


def _not_taking_part(
    batch: Batch, partner_id: int, occurred_at: datetime, *, may_suspended: bool = False
) -> Refused | None:
    programme = batch.configuration.programme
    if programme.burn_ends is not None and (
        local_date(occurred_at, programme.zone) > programme.burn_ends or _is_over(batch)
    ):
        return Refused(RefusalCode.PROGRAMME_ENDED, f"points could be burned until {programme.burn_ends}")
    partner = batch.partner(partner_id)
    if partner.state != "ACTIVE" and not may_suspended:
        message = "the partner is suspended: it can neither issue nor take points"
        return Refused(RefusalCode.PARTNER_SUSPENDED, message)
    # Hot: nearly no partner ever leaves.
    if partner.leaves_on is not None and partner.has_left(local_date(occurred_at, batch.configuration.programme.zone)):
        message = f"the partner left the coalition: it issued and took points until {partner.leaves_on}"
        return Refused(RefusalCode.PARTNER_LEFT, message)
    return None


def _is_over(batch: Batch) -> bool:
    """Whether the last points are past by now; in historical import nothing is too late."""
    return not batch.clock.is_history and has_ended(batch.configuration.programme, batch.clock.recorded_at)


def _run_off_over(batch: Batch, partner_id: int, occurred_at: datetime) -> Refused | None:
    programme = batch.configuration.programme
    programme_id = programme_final_id(programme)
    if programme_id is not None and batch.clock.booking(occurred_at).period_id > programme_id:
        message = f"the programme ended on {programme.burn_ends}, and everything is settled: ask the operator"
        return Refused(RefusalCode.PROGRAMME_ENDED, message)
    partner = batch.partner(partner_id)
    if partner.run_off_until is None:
        return None
    last_id = final_period_id(batch.configuration.programme, partner)
    # Also what happened in time is too late once it would stand on a statement after the final one.
    is_late = last_id is not None and batch.clock.booking(occurred_at).period_id > last_id
    if not is_late and local_date(occurred_at, batch.configuration.programme.zone) <= partner.run_off_until:
        return None
    message = f"the partner left, and its run-off ended on {partner.run_off_until}: ask the operator"
    return Refused(RefusalCode.PARTNER_LEFT, message)

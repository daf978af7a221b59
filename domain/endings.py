"""When things end: from dates of leaving to the period of the final statement, and what lapses with it. Pure."""

from datetime import datetime

from domain.lots import PendingAward
from domain.terms import PAID_FIRST, Configuration, Partner, Programme
from domain.values import OPERATOR_ID


def final_period_id(programme: Programme, partner: Partner) -> int | None:
    """Ordinal of the period with whose statement everything with the partner is settled; None: it stays.

    It is the one in which the run-off ends, so that all that comes back until then stands on it; at the latest that in
    which the points of the whole programme are past.
    """
    own_id = None if partner.run_off_until is None else programme.calendar.ordinal(partner.run_off_until)
    last_id = programme_final_id(programme)
    return last_id if own_id is None else own_id if last_id is None else min(own_id, last_id)


def programme_final_id(programme: Programme) -> int | None:
    """Ordinal of the period in which the last points are past; None: the programme goes on."""
    return None if programme.burn_ends_at is None else programme.calendar.containing(programme.burn_ends_at)


def has_ended(programme: Programme, instant: datetime) -> bool:
    """Whether no points are burned any more then."""
    return programme.burn_ends_at is not None and programme.burn_ends_at <= instant


def is_settled_out(configuration: Configuration, partner_id: int, period_id: int) -> bool:
    """Whether what is booked in that period comes after the partner's final statement."""
    last_id = final_period_id(configuration.programme, configuration.partners[partner_id])
    return last_id is not None and period_id > last_id


def is_settled_as_leaver(configuration: Configuration, partner_id: int, period_id: int) -> bool:
    """Whether what is booked in that period comes after the partner's own run-off was settled.

    The end of the programme alone is not asked: what its points leave when they are past is shared by contract, however
    late somebody books it.
    """
    run_off_until = configuration.partners[partner_id].run_off_until
    return run_off_until is not None and period_id > configuration.programme.calendar.ordinal(run_off_until)


def lapses(configuration: Configuration, award: PendingAward, period_id: int, instant: datetime) -> bool:
    """Whether a pending award can no longer become usable then: nobody is left to pay for it, or to take its points.

    What was due before that is confirmed however late it is found. What waits for the money of the purchase's partner
    waits in vain once that is gone and settled; a bonus that waits for its funder's money alone does not.
    """
    programme = configuration.programme
    if has_ended(programme, instant):
        assert programme.burn_ends_at is not None
        return award.waits_for_payment or award.release_at >= programme.burn_ends_at
    if waits_for_partner(configuration, award) and is_settled_out(configuration, award.partner_id, period_id):
        return True
    if award.funder_id == OPERATOR_ID or not is_settled_out(configuration, award.funder_id, period_id):
        return False
    last_id = final_period_id(programme, configuration.partners[award.funder_id])
    assert last_id is not None
    return award.waits_for_payment or award.release_at >= programme.calendar.span(last_id).closes_at


def waits_for_partner(configuration: Configuration, award: PendingAward) -> bool:
    """Whether it waits for the money of the purchase's partner, and not for that of a bonus's funder alone."""
    is_bonus = award.funder_id not in (OPERATOR_ID, award.partner_id)
    return award.waits_for_payment and not (is_bonus and configuration.partners[award.partner_id].risk != PAID_FIRST)

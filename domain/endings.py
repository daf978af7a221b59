"""When partners end: from dates of leaving to the period of the final statement, and what lapses with it. Pure."""

from domain.lots import PendingAward
from domain.terms import Configuration, Partner, Programme


def final_period_id(programme: Programme, partner: Partner) -> int | None:
    """Ordinal of the period with whose statement everything with the partner is settled; None: it stays.

    It is the one in which the run-off ends, so that all that comes back until then stands on it.
    """
    return None if partner.run_off_until is None else programme.calendar.ordinal(partner.run_off_until)


def is_settled_out(configuration: Configuration, partner_id: int, period_id: int) -> bool:
    """Whether what is booked in that period comes after the partner's final statement."""
    last_id = final_period_id(configuration.programme, configuration.partners[partner_id])
    return last_id is not None and period_id > last_id


def lapses(configuration: Configuration, award: PendingAward, period_id: int) -> bool:
    """Whether a pending award can no longer become usable when that period has come: nobody is left to pay for it.

    What was due before the end of its funder's final period is confirmed however late that is found. What waits for a
    payment that only a partner which is gone could confirm, waits in vain.
    """
    if award.waits_for_payment and is_settled_out(configuration, award.partner_id, period_id):
        return True
    funder = configuration.partners.get(award.funder_id)
    last_id = None if funder is None else final_period_id(configuration.programme, funder)
    if last_id is None or period_id <= last_id:
        return False
    return award.waits_for_payment or award.release_at >= configuration.programme.calendar.span(last_id).closes_at

"""When partners end: from their dates of leaving to the period of the final statement. Pure."""

from domain.terms import Partner, Programme


def final_period_id(programme: Programme, partner: Partner) -> int | None:
    """Ordinal of the period with whose statement everything with the partner is settled; None: it stays.

    It is the one in which the run-off ends, so that all that comes back until then stands on it.
    """
    return None if partner.run_off_until is None else programme.calendar.ordinal(partner.run_off_until)

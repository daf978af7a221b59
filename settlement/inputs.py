"""Inputs that several commands of the settlement share, checked."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.baskets import checked_amount
from domain.commands import Amount
from domain.errors import RefusalCode, Refused
from domain.terms import Configuration, Programme, load_configuration
from domain.values import micro_per_minor

# Keys of other tables may still be checked against the row: only who settles with the same partner waits.
LOCK_PARTNER_SQL = text("SELECT id FROM partner WHERE id = :id FOR NO KEY UPDATE")


async def lock_partner(connection: AsyncConnection, partner_id: int) -> None:
    """Lets one transaction at a time settle with the partner: what is left of its statements stays as it is read."""
    await connection.execute(LOCK_PARTNER_SQL, {"id": partner_id})


async def known_configuration(connection: AsyncConnection) -> Configuration:
    """The configuration. Raises Refused(TERMS_MISSING) before the first ``coalition apply``."""
    configuration = await load_configuration(connection)
    if configuration is None:
        raise Refused(RefusalCode.TERMS_MISSING, "no coalition has been applied yet")
    return configuration


def known_partner(configuration: Configuration, partner_id: int | None) -> int:
    """The partner's id. Raises Refused(INPUT_INVALID) where there is none."""
    if partner_id not in configuration.partners:
        raise Refused(RefusalCode.INPUT_INVALID, "there is no such partner", "partnerId")
    return partner_id


def positive_minor(amount: Amount, programme: Programme) -> int:
    """An amount of more than nothing, in minor units. Raises Refused(AMOUNT_INVALID, CURRENCY_MISMATCH)."""
    return checked_amount(amount, programme, "amount", is_positive=True)


def signed_micro(amount: Amount, programme: Programme) -> int:
    """An amount of either sign but not nothing, in micro-units. Raises Refused(AMOUNT_INVALID, CURRENCY_MISMATCH)."""
    minor = checked_amount(Amount(amount.value.copy_abs(), amount.currency), programme, "amount")
    if minor == 0:
        message = "the amount must not be 0: positive credits, negative debits the partner"
        raise Refused(RefusalCode.AMOUNT_INVALID, message, "amount.amount")
    return (-minor if amount.value.is_signed() else minor) * micro_per_minor(programme.currency_digits)


def labelled_period(programme: Programme, label: str) -> int:
    """Ordinal of the period with that label. Raises Refused(STATEMENT_NOT_FOUND)."""
    period_id = programme.calendar.labelled(label)
    if period_id is None:
        message = f'a statement is named by its period\'s label, such as "{programme.calendar.label_example}"'
        raise Refused(RefusalCode.STATEMENT_NOT_FOUND, message, "label")
    return period_id

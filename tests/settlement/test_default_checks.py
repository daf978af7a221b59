"""Invariant 16 names what was changed of a default, a write-off, a recovery, or booked without approval."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from domain.database import Database
from domain.errors import RefusalCode
from settlement.closing import close_period
from settlement.verifying import verify
from settlement.writing import write_entry
from tests.conftest import run_as_superuser
from tests.settlement.four_eyes import approve, rows, write_off
from tests.settlement.secured import MAY, MILLION, check_16, declare, default, pays, refused
from tests.settlement.test_defaults import IN_JUNE, IN_MAY, At
from tests.settlement.worked_example import Example

Tamper = Callable[[str], Awaitable[None]]


@pytest.mark.parametrize("kind", ["BAD_DEBT", "DEPOSIT_USED"])
async def test_an_entry_that_nobody_approved_is_named_and_stops_the_close(
    database: Database, at: At, two_months: Example, kind: str
) -> None:
    """Its hash is right: it was written by what writes all of them."""
    await pays(database, IN_MAY, "-2.00", key="part")
    async with database.posting() as connection:
        entry_id, _ = await write_entry(connection, MAY, IN_MAY, (2, kind, None, 7 * MILLION, None))
    report = await verify(database, at(IN_JUNE))
    assert {one.number for one in report.checks if not one.holds} == {16}
    holds, detail = await check_16(database)
    named = f"partner entry {entry_id} ({kind}, partner 2) is not what an approved proposal says"
    account_of_it = (
        "partner 2: its account in the books is -343000000 micro-units, its statements leave -350000000 open"
    )
    assert not holds
    assert detail == f"{named}; {account_of_it}"
    found = await refused(close_period(database, at(IN_JUNE), "2017-05", "close-3"))
    assert (found.code, named in found.message) == (RefusalCode.AUDIT_FAILED, True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "UPDATE partner_default SET bad_debt_micro = bad_debt_micro - 1, owed_micro = owed_micro - 1",
            "is not what default",
        ),
        (
            "UPDATE partner_default SET deposit_micro = deposit_micro - 1, bad_debt_micro = bad_debt_micro + 1",
            "is not what default",
        ),
        ("UPDATE partner_default SET partner_id = 1", "is not what default"),
        (
            "UPDATE partner_default SET offset_micro = offset_micro + 1, owed_micro = owed_micro + 1",
            "of partner 2 is not what an approved proposal says",
        ),
        ("UPDATE partner_default SET period_id = 24207", "of partner 2 is not what an approved proposal says"),
        ("DELETE FROM default_offset", "of partner 2 is not what an approved proposal says"),
        ("UPDATE default_offset SET partner_id = 1", "of partner 2 is not what an approved proposal says"),
        ("UPDATE proposal SET state = 'REJECTED' WHERE kind = 'DEFAULT'", "is not what an approved proposal says"),
        ("UPDATE proposal SET amount_micro = 1 WHERE kind = 'DEFAULT'", "is not what an approved proposal says"),
        ("UPDATE proposal SET partner_id = 1 WHERE kind = 'DEFAULT'", "is not what an approved proposal says"),
        ("DELETE FROM partner_default", "is approved, and nothing was done"),
        ("DELETE FROM partner_entry WHERE kind = 'DEPOSIT_USED'", "of partner 2: no entry books it"),
        ("DELETE FROM recovery", "(BAD_DEBT, partner 2) is not what an approved proposal says"),
        ("UPDATE recovery SET amount_micro = 1", "is not what recovery by payment"),
        ("UPDATE recovery SET payment_id = 1", "(BAD_DEBT, partner 2) is not what recovery by payment 1 says"),
        ("DELETE FROM payment", "0 recovered"),
        ("DELETE FROM adjustment WHERE kind = 'BAD_DEBT'", "partner 1) is not what an approved proposal says"),
        ("UPDATE adjustment SET amount_micro = 1 WHERE kind = 'BAD_DEBT'", "is not what write-off"),
        ("UPDATE proposal SET amount_micro = 1 WHERE kind = 'WRITE_OFF'", "is not what an approved proposal says"),
    ],
)
async def test_a_default_changed_behind_the_application_is_named(
    database: Database, two_months: Example, tamper: Tamper, change: str, says: str
) -> None:
    await declare(database, IN_MAY, (await default(database, IN_MAY)).proposal)
    await pays(database, IN_MAY, "-2.00", key="late")
    await approve(database, IN_MAY, await write_off(database, IN_MAY, 1, "2017-03", "78.00"))
    holds, detail = await check_16(database)
    assert holds, detail
    await tamper(change)
    holds, detail = await check_16(database)
    assert not holds
    assert says in detail, detail


async def test_the_database_keeps_defaults_whole(database: Database, database_url: URL, two_months: Example) -> None:
    await declare(database, IN_MAY, (await default(database, IN_MAY)).proposal)
    await pays(database, IN_MAY, "-2.00", key="late")
    proposal = (await default(database, IN_MAY, 1, key="x-9")).proposal
    forged = """
        INSERT INTO partner_default (proposal_id, period_id, partner_id, owed_micro, offset_micro, deposit_micro,
                                     bad_debt_micro, deposit_entry_id, declared_at)
        SELECT {}, 24206, {}, {}, 0, {}, 0, (SELECT max(id) FROM partner_entry), '2017-05-20'
    """
    with pytest.raises(DBAPIError, match="deposit of partner 2: 1 taken of 0"):
        await rows(database, forged.format(proposal.id, 2, 1, 1))
    # Whoever asks, the owner of the tables included.
    for change in (
        "UPDATE partner_default SET declared_at = declared_at",
        "DELETE FROM default_offset",
        "UPDATE recovery SET amount_micro = 1",
        "UPDATE deposit_payment SET amount_micro = 1",
    ):
        with pytest.raises(DBAPIError, match="append"):
            await run_as_superuser(database_url, change)

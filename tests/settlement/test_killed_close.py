"""kill -9 in each of a close's three transactions, with tax, a minimum and payments: the next close finds it all."""

import asyncio
import signal
import sys

import pytest
from sqlalchemy import URL, text

from domain.database import Database
from domain.values import OPERATOR_ID
from settlement.closing import close_period
from settlement.payments import record_payment
from settlement.reading import statements_of_periods
from settlement.verifying import verify
from tests.settlement.rows import noon
from tests.settlement.test_closing import At
from tests.settlement.test_payments import MARCH, PAID
from tests.settlement.test_taxes import with_rates
from tests.settlement.worked_example import Example

WRITTEN = ("statement", "statement_line", "statement_tax")


@pytest.mark.parametrize(
    ("step", "left", "fees"), [("start", "OPEN", 0), ("audit", "CLOSING", 3), ("finish", "CLOSING", 3)]
)
async def test_a_close_that_is_killed_is_done_again_whole(
    database: Database, database_url: URL, at: At, booked_march: Example, step: str, left: str, fees: int
) -> None:
    await with_rates(database)
    async with database.posting() as connection:
        await connection.execute(text("UPDATE programme SET minimum_settlement_micro = 20000000"))
    url = database_url.render_as_string(hide_password=False)
    close = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.settlement.killed_close", url, "2017-03", noon(2017, 4, 1).isoformat(), step
    )
    assert await close.wait() == -signal.SIGKILL
    async with database.posting() as connection:
        assert (await connection.execute(text("SELECT state FROM period WHERE label = '2017-03'"))).scalar() == left
        entries = await connection.execute(text("SELECT kind, count(*) FROM partner_entry GROUP BY 1"))
        assert {row[0]: row[1] for row in entries} == ({"FIXED_FEE": fees} if fees else {})
        for table in WRITTEN:
            assert (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar() == 0
    closed = await close_period(database, at(noon(2017, 4, 2)), "2017-03", "again")
    assert not closed.replayed
    found = {one.partner_id: one for one in (await statements_of_periods(database, OPERATOR_ID, [MARCH]))[MARCH]}
    # The worked example's nets with the tax of test_taxes; C's -14.21 are too little to be paid.
    assert [(one.net_minor, one.due_minor, one.carried_on_minor) for one in found.values()] == [
        (-110_992, -110_992, 0), (-45_200, -45_200, 0), (-1_421, 0, -1_421),
    ]  # fmt: skip
    await record_payment(database, at(noon(2017, 4, 20)), PAID)
    assert (await verify(database, at(noon(2017, 4, 20)))).holds

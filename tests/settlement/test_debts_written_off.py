"""A member's debt is written off by four eyes, also when the programme has ended: no receivable is left."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from api.debtors import DebtList, list_debtors
from api.outstanding import describe_outstanding
from api.runtime import Runtime
from domain.database import Database
from domain.errors import RefusalCode
from domain.values import OPERATOR_ID
from settlement.closing import close_period
from settlement.reading import period_figures
from settlement.verifying import verify
from tests.domain.books import check_books
from tests.domain.coalitions import Day, coalition, partner
from tests.domain.test_adjusting import approval, proposed
from tests.domain.tills import MARCH, Till, till_on

FUEL = {"issue_price": "0.010500", "service_fee": "0.001200", "reimbursement": "0.009200"}
ENDING = coalition(
    partner("grocer", starts="2017-03-01"),
    partner("fuel", starts="2017-03-01", terms=FUEL),
    claw_back="negative_balance",
    issue_ends=Day("2017-04-10"),
    burn_ends=Day("2017-04-20"),
)
BOOKS = "SELECT book, sum(amount)::bigint FROM ledger_entry WHERE unit = 'MONEY' GROUP BY 1 HAVING sum(amount) <> 0"
OWED = "SELECT coalesce(sum(owed), 0)::bigint, (SELECT coalesce(sum(open_points), 0)::bigint FROM debt) FROM account"


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    """100 points of the grocer, burned at the fuel station, and goods of 90 returned: the member owes 90 points."""
    async with till_on(database, ENDING) as opened:
        await opened.enrolled("card-1", "card-2")
        await opened.accept(opened.purchase("k1", "100.00"))
        await opened.accept(opened.burn("b1", 100, partner="fuel"))
        await opened.accept(opened.reversal("v1", "k1", amount="90.00"))
        yield opened


async def test_what_is_owed_when_the_programme_has_ended_is_written_off(till: Till) -> None:
    till.clock.to(2017, 4, 25)
    assert dict(await till.rows(BOOKS))["MEMBER_RECEIVABLE"] == -900_000
    runtime = Runtime(till.database, till.cache, till.clock)
    worth = {"amount": "0.900000", "currency": "EUR"}
    [debt] = (await list_debtors(runtime, 10)).rows
    assert (debt["points"], debt["value"], debt["since"]) == (90, worth, "2017-03-15T12:00:00+00:00")
    [listed] = await describe_outstanding(runtime, None)
    assert (listed["partner"], listed["available"], listed["owed"], listed["receivable"]) == ("grocer", 0, 90, worth)
    # Points for somebody who owes nothing, or more than is owed, are issued: that has ended.
    for points, card in ((1, "card-2"), (91, "card-1")):
        more = await proposed(till, points, card=card, key=f"p-{card}")
        await till.refuse(approval(till, more, key=f"a-{card}"), RefusalCode.PROGRAMME_ENDED)
    # By the fuel station's terms, at 0.0105: a part first, then the rest.
    for number, points in enumerate((30, 60)):
        proposal = await proposed(till, points, partner="fuel", key=f"p-{number}")
        posted = await till.accept(approval(till, proposal, key=f"a-{number}"))
        assert (posted.balance.available, posted.replayed) == (-60 * (1 - number), False)
        assert (await till.accept(approval(till, proposal, key=f"a-{number}"))).replayed
    assert await till.rows(OWED) == [(0, 0)]
    assert await till.rows(
        "SELECT kind, points, issue_value_micro, pool_value_micro FROM transaction WHERE period_id > :id ORDER BY id",
        id=MARCH,
    ) == [
        ("ADJUST", 30, -315_000, 315_000),
        ("REPAY", -30, 300_000, -315_000),
        ("ADJUST", 60, -630_000, 630_000),
        ("REPAY", -60, 600_000, -630_000),
    ]
    assert await list_debtors(runtime, 10) == DebtList([], is_cut=False)
    assert await describe_outstanding(runtime, None) == []
    books = dict(await till.rows(BOOKS))
    assert ("POOL" in books, "MEMBER_RECEIVABLE" in books) == (False, False)
    assert await till.rows("SELECT sum(remaining) FROM lot") == [(0,)]

    till.clock.now += timedelta(days=10)
    for label in ("2017-03", "2017-04"):
        await close_period(till.database, till.clock, label, f"close-{label}")
    april = (await period_figures(till.database, [MARCH + 1]))[MARCH + 1]
    # The operator's loss is its subsidy: 0.945, of which 0.045 is the spread between the two prices.
    assert (april.pool_change_micro, april.margin_micro, april.receivable_change_micro) == (0, -900_000, -900_000)
    assert (await verify(till.database, till.clock)).holds
    await check_books(till.database)


async def test_while_points_are_issued_more_than_is_owed_may_be_given(till: Till) -> None:
    proposal = await proposed(till, 100)
    posted = await till.accept(approval(till, proposal))
    assert posted.balance.available == 10
    assert await till.rows(OWED) == [(0, 0)]
    assert await till.rows("SELECT partner_id FROM command WHERE kind = 'REPAYMENT'") == [(OPERATOR_ID,)]
    assert (await verify(till.database, till.clock)).holds

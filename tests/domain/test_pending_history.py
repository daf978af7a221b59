"""Pending points in historical import (``--booking occurred``): what is due is as of each row, as expiry is."""

from datetime import UTC, datetime

from domain.commands import ConfirmPayment, OriginalRef
from domain.errors import RefusalCode
from tests.domain.coalitions import coalition, partner
from tests.domain.conftest import OpenTill
from tests.domain.test_pending import FOURTEEN_DAYS, PRICE, balance, budget_of
from tests.domain.test_sweeping import due, swept
from tests.domain.tills import APRIL, MARCH, queue_on

JANUARY = MARCH - 2
FEBRUARY = MARCH - 1
NOW = datetime(2017, 4, 20, 12, tzinfo=UTC)
CONFIRMED = "SELECT period_id, points, occurred_at FROM transaction WHERE kind = 'CONFIRM' ORDER BY id"


def day(month: int, number: int) -> datetime:
    return datetime(2017, month, number, 12, tzinfo=UTC)


async def test_a_burn_of_the_file_confirms_what_was_due_when_it_happened(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS, at=NOW, is_history=True)
    await till.accept_all([till.purchase("k1", "10.00", at=day(1, 5)), till.purchase("k2", "20.00", at=day(1, 28))])
    # However long ago it is by now, on 10 January nothing was usable.
    await till.refuse(till.burn("b0", 1, partner="fuel", at=day(1, 10)), RefusalCode.INSUFFICIENT_POINTS, "points")

    await till.accept(till.burn("b1", 10, partner="fuel", at=day(2, 3)))

    assert await balance(till) == (0, 20)
    assert await till.rows(CONFIRMED) == [(FEBRUARY, 10, datetime(2017, 1, 19, 23, tzinfo=UTC))]
    assert await budget_of(till, period_id=JANUARY) == (10 * PRICE, 20 * PRICE)


async def test_what_no_row_confirmed_is_confirmed_and_booked_by_the_first_sweep(open_till: OpenTill) -> None:
    till = await open_till(FOURTEEN_DAYS, at=NOW, is_history=True)
    await till.accept_all([till.purchase("k", "10.00", at=day(1, 5)), till.purchase("new", "7.00", at=day(4, 18))])
    async with queue_on(till.database, till.configuration, at=NOW) as live:
        live.members = till.members
        assert len(await due(live)) == 1
        assert (await swept(live)).confirmed_points == 10
        assert await due(live) == []
    assert await till.rows(CONFIRMED) == [(APRIL, 10, datetime(2017, 1, 19, 23, tzinfo=UTC))]
    assert await balance(till) == (10, 7)


async def test_returns_and_payments_of_the_file(open_till: OpenTill) -> None:
    text = coalition(partner("grocer", terms={"pending_days": 14}, risk="PAID_FIRST"), partner("fuel"))
    till = await open_till(text, at=NOW, is_history=True)
    await till.accept(till.purchase("k", "30.00", at=day(1, 5)))
    await till.accept(till.reversal("r1", "k", amount="10.00", at=day(1, 8)))
    early = ConfirmPayment(till.id_of("grocer"), "p", OriginalRef(key="k"), day(1, 9))
    assert (await till.accept(early)).points == 0
    await till.accept(till.purchase("k2", "5.00", at=day(1, 6)))
    late = ConfirmPayment(till.id_of("grocer"), "p2", OriginalRef(key="k2"), day(3, 1))
    assert (await till.accept(late)).points == 5
    # Nobody confirmed the first purchase before its second return, so that this one cancels too.
    await till.accept(till.reversal("r2", "k", amount="10.00", at=day(2, 20)))
    await till.accept(till.burn("b", 15, at=day(3, 2)))
    assert await till.rows("SELECT kind, period_id, points FROM transaction WHERE points <> 0 ORDER BY id") == [
        ("EARN_PENDING", JANUARY, 30),
        ("CANCEL", JANUARY, -10),
        ("EARN_PENDING", JANUARY, 5),
        ("CONFIRM", MARCH, 5),
        ("CANCEL", FEBRUARY, -10),
        ("CONFIRM", MARCH, 10),
        ("BURN", MARCH, -15),
    ]

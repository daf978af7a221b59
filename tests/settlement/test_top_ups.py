"""Money paid into a float: a block and a deposit, once per key; what was drawn of it, the statement credits."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from domain.errors import RefusalCode, Refused
from settlement.closing import close_period
from settlement.reading import lines_of_statements, statements_of_periods
from settlement.top_ups import TopUp, top_up_budget
from tests.domain.books import contents
from tests.domain.coalitions import Day, coalition, partner
from tests.domain.conftest import OpenTill, open_till
from tests.domain.floats import PRICE, failing, float_of, paid_in, prepaid, top_up
from tests.domain.tills import MARCH, Till, window_of

__all__ = ["open_till"]

BLOCKS = "SELECT amount_micro, used_micro, bank_reference, note FROM float_block ORDER BY occurred_at, id"
BOOKS = "SELECT book, party_id, sum(amount)::bigint FROM ledger_entry WHERE unit = 'MONEY' GROUP BY 1, 2 ORDER BY 1, 2"


async def refused(till: Till, payment: TopUp) -> tuple[RefusalCode, str | None]:
    """Why a payment is refused, after which every table is as before."""
    before = await contents(till.database)
    with pytest.raises(Refused) as caught:
        await top_up_budget(till.database, till.clock, payment)
    assert await contents(till.database) == before
    return caught.value.code, caught.value.field


async def test_a_payment_is_a_block_and_a_deposit(open_till: OpenTill) -> None:
    till = await open_till(prepaid())

    made = await top_up_budget(
        till.database, till.clock, top_up(till, "100.00", "top", bank_reference="SEPA 4711", note="first float")
    )

    assert (made.block.amount_micro, made.block.used_micro, made.replayed) == (100_000_000, 0, False)
    assert made.budget.available_micro == 100_000_000
    assert await till.rows(BLOCKS) == [(100_000_000, 0, "SEPA 4711", "first float")]
    assert await till.rows(
        "SELECT e.period_id, e.partner_id, e.kind, e.line_kind, e.amount_micro FROM partner_entry AS e"
        "  JOIN float_block AS b ON b.entry_id = e.id"
    ) == [(MARCH, till.id_of("grocer"), "DEPOSIT", None, 100_000_000)]
    assert await till.rows(BOOKS) == [("BANK", 0, -100_000_000), ("DEPOSIT", till.id_of("grocer"), 100_000_000)]


async def test_awards_are_charged_on_the_statement_and_paid_out_of_the_deposit(open_till: OpenTill) -> None:
    till = await open_till(prepaid())
    await paid_in(till, "100.00")
    await till.accept(till.purchase("k", "60.00"))
    till.clock.to(2017, 4, 3)
    for label in ("2017-01", "2017-02", "2017-03"):
        closed = await close_period(till.database, till.clock, label, f"close-{label}")
        assert closed.period.state == "CLOSED"

    [mine] = [
        one for one in (await statements_of_periods(till.database, 0, [MARCH]))[MARCH]
        if one.partner_id == till.id_of("grocer")
    ]  # fmt: skip
    lines = (await lines_of_statements(till.database, 0, [(MARCH, mine.partner_id)]))[(MARCH, mine.partner_id)]
    assert [(line.kind.value, line.billed_minor) for line in lines] == [
        ("ISSUE", -60),
        ("SERVICE_FEE", -6),
        ("PREPAID", 66),
    ]
    assert (mine.net_minor, mine.due_minor) == (0, 0)
    # What is left of the money paid in is the partner's still.
    books = {(book, party): amount for book, party, amount in await till.rows(BOOKS)}
    assert books[("DEPOSIT", mine.partner_id)] == 100_000_000 - 60 * PRICE
    assert books[("PARTNER", mine.partner_id)] == 0
    assert await failing(till) == {}


async def test_the_same_key_pays_in_once(open_till: OpenTill) -> None:
    till = await open_till(prepaid())
    payment = top_up(till, "10.00", "top")
    first = await top_up_budget(till.database, till.clock, payment)
    before = await contents(till.database)

    again = await asyncio.gather(*(top_up_budget(till.database, till.clock, payment) for _ in range(3)))

    assert {(one.block.id, one.replayed) for one in again} == {(first.block.id, True)}
    assert await contents(till.database) == before
    for other in (
        payment._replace(note="another"),
        payment._replace(bank_reference="x"),
        payment._replace(occurred_at=payment.occurred_at - timedelta(seconds=1)),
        top_up(till, "10.01", "top"),
    ):
        assert await refused(till, other) == (RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


async def test_a_key_sent_ten_times_at_once_pays_in_once(open_till: OpenTill) -> None:
    till = await open_till(prepaid())
    payment = top_up(till, "10.00", "top")

    made = await asyncio.gather(*(top_up_budget(till.database, till.clock, payment) for _ in range(10)))

    assert sorted(one.replayed for one in made) == [False] + [True] * 9
    assert await till.rows("SELECT limit_micro FROM budget") == [(10_000_000,)]
    assert await till.rows("SELECT count(*) FROM partner_entry") == [(1,)]


async def test_what_cannot_be_paid_in_changes_nothing(open_till: OpenTill) -> None:
    till = await open_till(prepaid())
    good = top_up(till, "10.00", "top")
    later = till.clock.now + timedelta(minutes=6)
    for payment, code, field in (
        (good._replace(key=""), RefusalCode.INPUT_INVALID, "idempotencyKey"),
        (good._replace(note="\n"), RefusalCode.INPUT_INVALID, "note"),
        (good._replace(bank_reference="x" * 201), RefusalCode.INPUT_INVALID, "bankReference"),
        (good._replace(partner_id=None), RefusalCode.INPUT_INVALID, "partnerCode"),
        (top_up(till, "10.00", "top", code="fuel"), RefusalCode.INPUT_INVALID, "partnerCode"),
        (top_up(till, "0.00", "top"), RefusalCode.AMOUNT_INVALID, "amount.amount"),
        (top_up(till, "-1.00", "top"), RefusalCode.AMOUNT_INVALID, "amount.amount"),
        (top_up(till, "1.001", "top"), RefusalCode.AMOUNT_INVALID, "amount.amount"),
        (top_up(till, "10.00", "top", currency="USD"), RefusalCode.CURRENCY_MISMATCH, "amount.currency"),
        (good._replace(occurred_at=later), RefusalCode.OCCURRED_IN_FUTURE, "occurredAt"),
    ):
        assert await refused(till, payment) == (code, field), payment


async def test_a_float_can_be_filled_before_it_begins_and_not_after_it_ended(open_till: OpenTill) -> None:
    plans = [{"limit": "1.10"}, float_of(**{"from": Day("2017-04-01"), "to": Day("2017-04-30")})]
    till = await open_till(coalition(partner("grocer", budgets=plans)))
    await paid_in(till, "2.20")
    assert window_of(await till.accept(till.purchase("march", "10.00"))).limit_micro == 1_100_000

    till.clock.to(2017, 4, 2)
    posted = await till.accept(till.purchase("april", "10.00"))
    assert window_of(posted).limit_micro == 2_200_000
    till.clock.to(2017, 5, 1)
    assert await refused(till, top_up(till, "1.00", "late")) == (RefusalCode.INPUT_INVALID, "partnerCode")


async def test_the_ledger_refuses_what_a_block_must_never_be(open_till: OpenTill) -> None:
    till = await open_till(prepaid())
    await paid_in(till, "1.10")
    await till.accept(till.purchase("k", "60.00"))
    for statement, wanted in (
        ("UPDATE float_block SET used_micro = amount_micro + 1", "float_block_used"),
        ("UPDATE float_block SET amount_micro = 1", "permission denied"),
        ("DELETE FROM float_block", "permission denied"),
        ("UPDATE float_use SET amount_micro = 1", "permission denied"),
        ("DELETE FROM float_use", "permission denied"),
        ("UPDATE budget_plan SET per_period = true", "budget_plan_float"),
        ("UPDATE budget_plan SET overdraft_micro = 1", "budget_plan_float"),
    ):
        with pytest.raises(Exception, match=wanted):
            async with till.database.posting() as connection:
                await connection.execute(text(statement))

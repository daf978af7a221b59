"""Payments on statements, minimum amounts, and what is carried from statement to statement (invariant 16)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domain.commands import Amount
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.values import OPERATOR_ID
from settlement.closing import close_period
from settlement.payments import NewPayment, RecordedPayment, record_payment, unpaid_statements
from settlement.reading import SettlementStatement, lines_of_statements, statements_of_periods
from settlement.verifying import verify
from tests.settlement.rows import Prices, noon
from tests.settlement.test_closing import At
from tests.settlement.worked_example import Example
from tests.settlement.writer import Writer

Tamper = Callable[[str], Awaitable[None]]
MARCH = 2017 * 12 + 2
PAID = NewPayment("pay-1", 1, "2017-03", Amount(Decimal("-1078.00"), "EUR"), date(2017, 4, 14), "E2E 17", "bank-desk")


async def closed_march(database: Database, at: At) -> None:
    await close_period(database, at(noon(2017, 4, 1)), "2017-03", "march")


async def statements(database: Database, period_id: int = MARCH) -> dict[int, SettlementStatement]:
    found = await statements_of_periods(database, OPERATOR_ID, [period_id])
    return {one.partner_id: one for one in found[period_id]}


async def rows(database: Database) -> list[object]:
    async with database.posting() as connection:
        found: list[object] = []
        for table in ("payment", "partner_entry", "position"):
            found.extend((await connection.execute(text(f"SELECT * FROM {table} ORDER BY {table}::text"))).all())
        return found


async def refused(database: Database, at: At, given: NewPayment) -> Refused:
    before = await rows(database)
    with pytest.raises(Refused) as caught:
        await record_payment(database, at(noon(2017, 4, 20)), given)
    assert await rows(database) == before
    return caught.value


async def check_16(database: Database, at: At) -> tuple[bool, str]:
    (found,) = [check for check in (await verify(database, at(noon(2017, 9, 1)))).checks if check.number == 16]
    return found.holds, found.detail


async def test_a_payment_settles_the_statement_that_it_pays(database: Database, at: At, booked_march: Example) -> None:
    await closed_march(database, at)
    assert await unpaid_statements(database, OPERATOR_ID, 10) == [(MARCH, 1), (MARCH, 2), (MARCH, 3)]
    recorded = await record_payment(database, at(noon(2017, 4, 20)), PAID)
    assert (recorded.replayed, recorded.payment.amount_minor, recorded.payment.booked_in) == (
        False, -107_800, MARCH + 1,
    )  # fmt: skip
    # Too little first, the rest later, in another period.
    part = replace(PAID, key="pay-2", partner_id=2, amount=Amount(Decimal("-400.00"), "EUR"))
    await record_payment(database, at(noon(2017, 4, 20)), part)
    assert await unpaid_statements(database, OPERATOR_ID, 10) == [(MARCH, 2), (MARCH, 3)]
    assert await unpaid_statements(database, OPERATOR_ID, 10, after=(MARCH, 2)) == [(MARCH, 3)]
    assert await unpaid_statements(database, 3, 10) == [(MARCH, 3)]
    assert await unpaid_statements(database, OPERATOR_ID, 1) == [(MARCH, 2)]
    rest = replace(part, key="pay-3", amount=Amount(Decimal("-52.01"), "EUR"))
    later = await record_payment(database, at(noon(2017, 5, 2)), rest)
    assert later.payment.booked_in == MARCH + 2
    found = await statements(database)
    # A cent too much stays visible, until it is sent back.
    assert [(one.due_minor, one.paid_minor) for one in found.values()] == [
        (-107_800, -107_800), (-45_200, -45_201), (-3_250, 0),
    ]  # fmt: skip
    back = replace(part, key="pay-4", amount=Amount(Decimal("0.01"), "EUR"))
    await record_payment(database, at(noon(2017, 5, 2)), back)
    assert await unpaid_statements(database, OPERATOR_ID, 10) == [(MARCH, 3)]
    async with database.reading(OPERATOR_ID) as connection:
        entries = await connection.execute(
            text(
                "SELECT book, party_id, sum(amount) FROM ledger_entry WHERE kind = 'PAYMENT'"
                " GROUP BY 1, 2 ORDER BY 1, 2"
            )
        )
        assert [(row[0], row[1], int(row[2])) for row in entries] == [
            ("BANK", 0, -1_530_000_000), ("PARTNER", 1, 1_078_000_000), ("PARTNER", 2, 452_000_000),
        ]  # fmt: skip
    report = await verify(database, at(noon(2017, 5, 3)))
    assert report.holds
    assert await check_16(database, at) == (
        True, "3 statements instruct -1562.50 = nets -1562.50 - 0.00 carried on; 4 payments",
    )  # fmt: skip
    # What was paid stands on no statement.
    for label, month in (("2017-04", 5), ("2017-05", 6)):
        await close_period(database, at(noon(2017, month, 3)), label, label)
    assert [one.net_minor for one in (await statements(database, MARCH + 1)).values()] == [-5_000, -3_000, -2_000]
    assert (await verify(database, at(noon(2017, 6, 3)))).holds


async def test_the_same_key_pays_once(database: Database, at: At, booked_march: Example) -> None:
    await closed_march(database, at)
    answers: list[RecordedPayment] = await asyncio.gather(
        *(record_payment(database, at(noon(2017, 4, 20)), PAID) for _ in range(6))
    )
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 5
    assert len({answer.payment for answer in answers}) == 1
    assert (await statements(database))[1].paid_minor == -107_800
    for other in (
        replace(PAID, partner_id=2),
        replace(PAID, amount=Amount(Decimal(-1078), "EUR"), bank_reference="E2E 18"),
        replace(PAID, value_date=date(2017, 4, 13)),
        replace(PAID, amount=Amount(Decimal(1078), "EUR")),
    ):
        found = await refused(database, at, other)
        assert (found.code, found.field) == (RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"key": ""}, RefusalCode.INPUT_INVALID, "idempotencyKey"),
        ({"bank_reference": "a\nb"}, RefusalCode.INPUT_INVALID, "bankReference"),
        ({"value_date": date(2017, 4, 21)}, RefusalCode.INPUT_INVALID, "valueDate"),
        ({"amount": Amount(Decimal(0), "EUR")}, RefusalCode.AMOUNT_INVALID, "amount"),
        ({"amount": Amount(Decimal("-1.001"), "EUR")}, RefusalCode.AMOUNT_INVALID, "amount.amount"),
        ({"amount": Amount(Decimal("sNaN"), "EUR")}, RefusalCode.AMOUNT_INVALID, "amount.amount"),
        ({"amount": Amount(Decimal(-1), "USD")}, RefusalCode.CURRENCY_MISMATCH, "amount.currency"),
        ({"label": "2017-04"}, RefusalCode.STATEMENT_NOT_FOUND, "label"),
        ({"label": "march"}, RefusalCode.STATEMENT_NOT_FOUND, "label"),
        ({"partner_id": 99}, RefusalCode.STATEMENT_NOT_FOUND, "label"),
        ({"partner_id": 0}, RefusalCode.STATEMENT_NOT_FOUND, "label"),
    ],
)
async def test_what_pays_no_statement_is_refused(
    database: Database, at: At, booked_march: Example, change: dict[str, object], code: RefusalCode, field: str
) -> None:
    await closed_march(database, at)
    await record_payment(database, at(noon(2017, 4, 20)), PAID)
    given = replace(PAID, **{"key": "another", **change})  # type: ignore[arg-type]  # as the parameters name them
    found = await refused(database, at, given)
    assert (found.code, found.field) == (code, field)


async def test_a_draft_is_not_paid(database: Database, at: At, booked_march: Example) -> None:
    found = await refused(database, at, PAID)
    assert (found.code, found.message) == (
        RefusalCode.STATEMENT_NOT_FOUND, "there is no such statement: its period is not closed yet",
    )  # fmt: skip


async def test_a_payment_waits_for_the_close_that_holds_the_period(
    database: Database, at: At, booked_march: Example
) -> None:
    await closed_march(database, at)
    april = MARCH + 1
    async with database.posting() as closer:
        await record_payment(database, at(noon(2017, 4, 20)), replace(PAID, key="first"))
        await closer.execute(text("SELECT pg_advisory_xact_lock(2, :id)"), {"id": april})
        recording = asyncio.create_task(record_payment(database, at(noon(2017, 4, 21)), replace(PAID, key="second")))
        done, _ = await asyncio.wait([recording], timeout=0.5)
        assert not done
        await closer.execute(text("UPDATE period SET state = 'CLOSING' WHERE id = :id"), {"id": april})
    assert (await recording).payment.booked_in == april + 1


# ---------------------------------------------------------------- what is too little to be paid


async def small_coalition(database: Database, minimum_micro: int = 5_000_000) -> Writer:
    writer = Writer(database)
    await writer.programme()
    await writer.partner("A", (date(2017, 3, 1), Prices()), budget="1000")
    await writer.partner("B", (date(2017, 3, 1), Prices()), budget="1000")
    async with database.posting() as connection:
        await connection.execute(
            text("UPDATE programme SET minimum_settlement_micro = :minimum"), {"minimum": minimum_micro}
        )
    return writer


Balance = tuple[int, int, int, int]


async def balances(database: Database, partner_id: int) -> list[Balance]:
    """Net, brought in, carried on and due of the partner's statements, in minor units."""
    found = await statements_of_periods(database, OPERATOR_ID, [MARCH, MARCH + 1, MARCH + 2, MARCH + 3])
    return [
        (one.net_minor, one.carried_in_minor, one.carried_on_minor, one.due_minor)
        for period in found.values()
        for one in period
        if one.partner_id == partner_id
    ]


async def test_what_is_too_little_is_left_to_the_next_statement(database: Database, at: At) -> None:
    writer = await small_coalition(database)
    await writer.earn("A", 300, noon(2017, 3, 5))  # 3.30
    await writer.earn("B", 400, noon(2017, 3, 5))  # 4.40
    await closed_march(database, at)
    assert await balances(database, 1) == [(-330, 0, -330, 0)]
    # Nothing of A in April: its balance waits; B's stays too little.
    await writer.earn("B", 50, noon(2017, 4, 5))  # 0.55
    draft = await statements(database, MARCH + 1)
    assert [(one.due_minor, one.carried_forward_minor) for one in draft.values()] == [(0, 55)]
    await close_period(database, at(noon(2017, 5, 1)), "2017-04", "april")
    await writer.earn("A", 200, noon(2017, 5, 5))  # 2.20: 5.50 in all
    await writer.earn("B", 5, noon(2017, 5, 5))  # 0.05 and half a cent: 5.00 in all
    await close_period(database, at(noon(2017, 6, 1)), "2017-05", "may")
    assert await balances(database, 1) == [(-330, 0, -330, 0), (-220, -330, 0, -550)]
    assert await balances(database, 2) == [(-440, 0, -440, 0), (-55, -440, -495, 0), (-5, -495, 0, -500)]
    lines = await lines_of_statements(database, OPERATOR_ID, [(MARCH, 1), (MARCH + 2, 1)])
    assert [(line.kind.value, line.exact_micro, line.billed_minor) for line in lines[(MARCH, 1)]] == [
        ("ISSUE", -3_000_000, -300), ("SERVICE_FEE", -300_000, -30), ("CARRIED_FORWARD", 3_300_000, 330),
    ]  # fmt: skip
    assert [(line.kind.value, line.billed_minor) for line in lines[(MARCH + 2, 1)]] == [
        ("ISSUE", -200), ("SERVICE_FEE", -20), ("CARRIED_FORWARD", -330),
    ]  # fmt: skip
    assert await unpaid_statements(database, OPERATOR_ID, 10) == [(MARCH + 2, 1), (MARCH + 2, 2)]
    assert await check_16(database, at) == (
        True, "2 statements instruct -10.50 = nets -10.50 - 0.00 carried on; 0 payments",
    )  # fmt: skip
    async with database.reading(OPERATOR_ID) as connection:
        documents = (await connection.execute(text("SELECT document FROM statement ORDER BY 1"))).scalars().all()
        nets = (await connection.execute(text("SELECT operator_net_minor FROM period ORDER BY id"))).scalars().all()
    assert sum(b'"carried_forward":{"brought_in":"-3.30","carried_on":"0.00"}' in bytes(one) for one in documents) == 1
    assert [int(net) for net in nets] == [770, 55, 225]
    assert (await verify(database, at(noon(2017, 6, 2)))).holds


async def test_another_minimum_leaves_closed_statements_as_they_are(database: Database, at: At) -> None:
    writer = await small_coalition(database)
    await writer.earn("A", 300, noon(2017, 3, 5))
    await closed_march(database, at)
    async with database.posting() as connection:
        await connection.execute(text("UPDATE programme SET minimum_settlement_micro = 3000000"))
    assert (await verify(database, at(noon(2017, 4, 2)))).holds
    await writer.earn("A", 1, noon(2017, 4, 5))
    await close_period(database, at(noon(2017, 5, 1)), "2017-04", "april")
    assert await balances(database, 1) == [(-330, 0, -330, 0), (-1, -330, 0, -331)]
    assert (await verify(database, at(noon(2017, 5, 2)))).holds


async def test_a_minimum_that_is_reached_exactly_is_paid(database: Database, at: At) -> None:
    writer = await small_coalition(database, 3_300_000)
    await writer.earn("A", 300, noon(2017, 3, 5))
    await closed_march(database, at)
    assert await balances(database, 1) == [(-330, 0, 0, -330)]


# ---------------------------------------------------------------- invariant 16 finds what was changed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE payment SET amount_minor = -107900", "its entry differs in partner, amount or time"),
        ("UPDATE payment SET partner_id = 2", "its entry differs in partner, amount or time"),
        ("DELETE FROM payment", "its entry pays no statement"),
        ("DELETE FROM partner_entry WHERE kind = 'PAYMENT'", "no entry books it"),
        ("UPDATE statement SET due_minor = -1 WHERE partner_id = 2", "due -1"),
        ("UPDATE statement SET carried_on_minor = 7, due_minor = due_minor - 7 WHERE partner_id = 2", "7 carried on"),
        ("UPDATE statement SET carried_in_minor = 7, due_minor = due_minor + 7 WHERE partner_id = 2", "7 brought in"),
    ],
)
async def test_what_was_changed_behind_the_application_is_named(
    database: Database, at: At, booked_march: Example, tamper: Tamper, change: str, says: str
) -> None:
    await closed_march(database, at)
    await record_payment(database, at(noon(2017, 4, 20)), PAID)
    await tamper(change)
    holds, detail = await check_16(database, at)
    assert not holds
    assert says in detail


@pytest.mark.parametrize("change", ["UPDATE payment SET amount_minor = 1", "DELETE FROM payment"])
async def test_a_recorded_payment_stays(database: Database, at: At, booked_march: Example, change: str) -> None:
    await closed_march(database, at)
    await record_payment(database, at(noon(2017, 4, 20)), PAID)
    with pytest.raises(DBAPIError):
        async with database.posting() as connection:
            await connection.execute(text(change))

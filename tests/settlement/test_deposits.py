"""Deposits: money in once per bank reference, out by four eyes up to what is free, and apart from prepaid floats."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from domain.commands import Amount
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.periods import Clock
from domain.proposals import ProposalReason, ProposalState
from domain.values import OPERATOR_ID
from settlement.closing import close_period
from settlement.deposit_reading import DepositAccount, deposit_accounts, deposits_page, payments_of_deposits
from settlement.deposits import (
    NewDeposit,
    PayoutAsk,
    propose_payout,
    record_deposit,
)
from settlement.reading import period_figures, statements_of_periods
from settlement.verifying import verify
from tests.domain.books import contents
from tests.settlement.four_eyes import PROPOSER, euros, rows, standing
from tests.settlement.rows import Prices, noon
from tests.settlement.secured import (
    APRIL,
    IN_MARCH,
    MARCH,
    MILLION,
    account,
    check_16,
    pay_in,
    pay_out,
    payout,
    refused,
)
from tests.settlement.worked_example import Example
from tests.settlement.writer import Writer
from tests.tidy import ROOT

At = Callable[[datetime], Clock]
Tamper = Callable[[str], Awaitable[None]]
IN_APRIL, IN_MAY = noon(2017, 4, 2), noon(2017, 5, 2)

PARTNER_BOOKS = """
    SELECT party_id, -sum(amount)::bigint FROM ledger_entry WHERE book = 'PARTNER' GROUP BY 1 HAVING sum(amount) < 0
     ORDER BY 1
"""


async def require(database: Database, partner_id: int, amount_micro: int) -> None:
    async with database.posting() as connection:
        await connection.execute(
            text("INSERT INTO deposit_requirement (partner_id, required_micro) VALUES (:id, :amount)"),
            {"id": partner_id, "amount": amount_micro},
        )


# ---------------------------------------------------------------- in


async def test_money_paid_in_is_a_deposit_and_stands_on_no_statement(
    database: Database, at: At, booked_march: Example
) -> None:
    b = booked_march.writer.partner_ids["B"]
    await require(database, b, 300 * MILLION)
    first = await pay_in(database, b, "200.00")
    assert (first.replayed, first.payment.amount_micro, first.payment.bank_reference) == (
        False, 200 * MILLION, "bank d-1",
    )  # fmt: skip
    # 420 of issue and 48 of fees, less 46 that were reimbursed: the fixed fee is not booked yet.
    assert first.account == DepositAccount(b, 300 * MILLION, 200 * MILLION, 422 * MILLION)
    assert (first.account.shortfall_micro, first.account.free_micro) == (100 * MILLION, 0)
    second = await pay_in(database, b, "300.50", key="d-2")
    assert (second.account.held_micro, second.account.shortfall_micro, second.account.free_micro) == (
        500_500_000, 0, 78_500_000,
    )  # fmt: skip
    books = (
        "SELECT book, party_id, sum(amount)::bigint FROM ledger_entry WHERE kind = 'DEPOSIT' GROUP BY 1, 2 ORDER BY 1"
    )
    assert await rows(database, books) == [("BANK", 0, -500_500_000), ("DEPOSIT", b, 500_500_000)]
    await close_period(database, at(IN_APRIL), "2017-03", "close-1")
    statements = (await statements_of_periods(database, OPERATOR_ID, [MARCH]))[MARCH]
    assert [one.net_minor for one in statements] == [-107_800, -45_200, -3_250], "as without deposits"
    figures = (await period_figures(database, [MARCH]))[MARCH]
    assert figures.operator_net_minor * 10_000 == figures.pool_change_micro + figures.margin_micro == 1_562_500_000
    assert (await account(database, b)).owes_micro == 452 * MILLION
    assert (await verify(database, at(IN_MAY))).holds


async def test_what_a_partner_owes_is_its_account_in_the_books(
    database: Database, at: At, booked_march: Example
) -> None:
    async def owed() -> list[tuple[int, int]]:
        async with database.reading(OPERATOR_ID) as connection:
            found = await deposit_accounts(connection, [1, 2, 3])
        return [(one.partner_id, one.owes_micro) for one in found.values() if one.owes_micro]

    assert await owed() == await rows(database, PARTNER_BOOKS)
    await close_period(database, at(IN_APRIL), "2017-03", "close-1")
    assert await owed() == await rows(database, PARTNER_BOOKS) == [
        (1, 1_078 * MILLION), (2, 452 * MILLION), (3, 32_500_000),
    ]  # fmt: skip


async def test_the_same_key_pays_in_once_and_a_reference_is_one_payment(
    database: Database, booked_march: Example
) -> None:
    answers = await asyncio.gather(*(pay_in(database, 2, "200.00") for _ in range(6)))
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 5
    assert len({answer.payment for answer in answers}) == 1
    before = await contents(database)
    other: tuple[dict[str, Any], ...] = (
        {"partner_id": 1},
        {"amount": euros("200.01")},
        {"value_date": date(2017, 3, 26)},
        {"bank_reference": "bank 2"},
    )
    for change in other:
        given = NewDeposit("d-1", 2, euros("200.00"), date(2017, 3, 27), "bank d-1", PROPOSER)._replace(**change)
        found = await refused(record_deposit(database, standing(IN_MARCH), given))
        assert (found.code, found.field) == (RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")
    found = await refused(pay_in(database, 2, "200.00", key="d-2", reference="bank d-1"))
    assert (found.code, found.field, found.message) == (
        RefusalCode.DUPLICATE_REFERENCE, "bankReference", '"bank d-1" was recorded before, under the key "d-1"',
    )  # fmt: skip
    assert await contents(database) == before
    assert (await pay_in(database, 1, "200.00", key="d-3", reference="bank d-1")).account.held_micro == 200 * MILLION


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"key": ""}, RefusalCode.INPUT_INVALID, "idempotencyKey"),
        ({"bank_reference": "a\nb"}, RefusalCode.INPUT_INVALID, "bankReference"),
        ({"value_date": date(2017, 3, 29)}, RefusalCode.INPUT_INVALID, "valueDate"),
        ({"amount": euros("0")}, RefusalCode.AMOUNT_INVALID, "amount.amount"),
        ({"amount": euros("-1.00")}, RefusalCode.AMOUNT_INVALID, "amount.amount"),
        ({"amount": euros("1.001")}, RefusalCode.AMOUNT_INVALID, "amount.amount"),
        ({"amount": Amount(Decimal(1), "USD")}, RefusalCode.CURRENCY_MISMATCH, "amount.currency"),
        ({"partner_id": 99}, RefusalCode.INPUT_INVALID, "partnerId"),
        ({"partner_id": None}, RefusalCode.INPUT_INVALID, "partnerId"),
    ],
)
async def test_what_is_no_deposit_is_refused(
    database: Database, booked_march: Example, change: dict[str, Any], code: RefusalCode, field: str
) -> None:
    await pay_in(database, 2, "200.00")
    before = await contents(database)
    given = NewDeposit("d-2", 2, euros("1.00"), date(2017, 3, 27), "bank d-2", PROPOSER)._replace(**change)
    found = await refused(record_deposit(database, standing(IN_MARCH), given))
    assert (found.code, found.field) == (code, field)
    # Nothing is no deposit either.
    assert "between 0 and" not in found.message
    assert await contents(database) == before


@pytest.mark.parametrize(
    ("currency", "digits", "amount", "micro", "too_fine"),
    [("BHD", 3, "200.125", 200_125_000, "200.1255"), ("JPY", 0, "20000", 20_000_000_000, "20000.5")],
)
async def test_a_deposit_has_the_decimals_of_the_currency(
    database: Database, currency: str, digits: int, amount: str, micro: int, too_fine: str
) -> None:
    writer = Writer(database)
    await writer.programme(currency, digits)
    await writer.partner("A", (date(2017, 3, 1), Prices()), budget="1000")
    given = NewDeposit("d-1", 1, Amount(Decimal(amount), currency), date(2017, 3, 27), "bank", PROPOSER)
    recorded = await record_deposit(database, standing(IN_MARCH), given)
    assert recorded.account == DepositAccount(1, 0, micro, 0)
    fine = PayoutAsk(1, Amount(Decimal(too_fine), currency), ProposalReason.AGREEMENT, "all of it")
    assert (await refused(propose_payout(database, standing(IN_MARCH), PROPOSER, "o-1", fine))).code == (
        RefusalCode.AMOUNT_INVALID
    )
    all_of_it = fine._replace(amount=Amount(Decimal(amount), currency))
    proposal = (await propose_payout(database, standing(IN_MARCH), PROPOSER, "o-1", all_of_it)).proposal
    await pay_out(database, proposal)
    assert await account(database, 1) == DepositAccount(1, 0, 0, 0)
    assert (await verify(database, standing(IN_MAY))).holds


# ---------------------------------------------------------------- out


async def test_only_what_is_free_is_paid_out_and_by_four_eyes(
    database: Database, at: At, booked_march: Example
) -> None:
    await require(database, 2, 450 * MILLION)
    await pay_in(database, 2, "500.00")
    before = await contents(database)
    found = await refused(payout(database, 2, "50.01"))
    assert (found.code, found.field, found.message) == (
        RefusalCode.LIMIT_EXCEEDED,
        "amount.amount",
        "of the deposit of 500.00, 50.00 is free: the rest secures what is required or owed",
    )
    assert (await refused(payout(database, 2, "0.00"))).code == RefusalCode.AMOUNT_INVALID
    assert (await refused(payout(database, 99, "1.00"))).field == "partnerId"
    assert await contents(database) == before
    proposal = await payout(database, 2, "48.00")
    assert (await account(database, 2)).held_micro == 500 * MILLION, "nothing moves before it is approved"
    before = await contents(database)
    assert (await refused(pay_out(database, proposal, client=PROPOSER))).code == RefusalCode.FOUR_EYES
    assert await contents(database) == before
    # The close books the fixed fee: 452.00 is owed now, more than is required, and 48.00 is free.
    await close_period(database, at(IN_APRIL), "2017-03", "close-1")
    more = await payout(database, 2, "48.00", key="o-2", now=IN_APRIL)
    done = await pay_out(database, proposal, now=IN_APRIL)
    assert (done.replayed, done.proposal.state) == (False, ProposalState.APPROVED)
    before = await contents(database)
    again = await pay_out(database, proposal, now=IN_APRIL)
    assert (again.replayed, again.proposal) == (True, done.proposal)
    found = await refused(pay_out(database, more, now=IN_APRIL))
    assert (found.code, found.message.split(":")[0]) == (
        RefusalCode.LIMIT_EXCEEDED, "of the deposit of 452.00, 0.00 is free",
    )  # fmt: skip
    assert await contents(database) == before
    async with database.reading(OPERATOR_ID) as connection:
        made = (await payments_of_deposits(connection, [2]))[2]
        assert [(one.amount_micro, one.bank_reference, one.value_date) for one in made] == [
            (-48 * MILLION, f"deposit-payout-{proposal.id}", None), (500 * MILLION, "bank d-1", date(2017, 3, 27)),
        ]  # fmt: skip
        assert [one.partner_id for one in await deposits_page(connection, 0, 10)] == [2]
        assert await deposits_page(connection, 2, 10) == []
    booked = "SELECT period_id, amount_micro FROM partner_entry WHERE kind = 'DEPOSIT' ORDER BY id"
    assert await rows(database, booked) == [
        (MARCH, 500 * MILLION), (APRIL, -48 * MILLION),
    ]  # fmt: skip
    assert (await verify(database, at(IN_MAY))).holds


async def test_what_the_bank_took_back_need_not_be_free_but_there(database: Database, booked_march: Example) -> None:
    await require(database, 2, 450 * MILLION)
    await pay_in(database, 2, "500.00")
    found = await refused(payout(database, 2, "500.01", reason=ProposalReason.CORRECTION))
    assert found.code == RefusalCode.LIMIT_EXCEEDED
    await pay_out(database, await payout(database, 2, "500.00", reason=ProposalReason.CORRECTION))
    held = await account(database, 2)
    assert (held.held_micro, held.shortfall_micro) == (0, 450 * MILLION)


async def test_a_float_is_no_deposit(database: Database, booked_march: Example) -> None:
    """Money of a float is DEPOSIT in the books, and neither held here nor free."""
    await pay_in(database, 2, "500.00")
    async with database.posting() as connection:
        await connection.execute(
            text(
                """
                WITH entry AS (
                    INSERT INTO partner_entry (id, period_id, partner_id, kind, amount_micro, recorded_at, row_hash)
                    VALUES (900001, 24206, 2, 'DEPOSIT', 70000000, '2017-03-28 12:00+00', 0) RETURNING *)
                INSERT INTO float_block (id, budget_id, partner_id, amount_micro, occurred_at, recorded_at, entry_id,
                                         idempotency_key)
                SELECT 900002, (SELECT min(id) FROM budget), partner_id, amount_micro, recorded_at, recorded_at, id, 'f'
                  FROM entry
                """
            )
        )
    assert (await account(database, 2)).held_micro == 500 * MILLION
    holds, detail = await check_16(database)
    assert holds, detail


async def test_the_database_pays_nothing_out_that_is_not_there(database: Database, booked_march: Example) -> None:
    await pay_in(database, 2, "500.00")
    proposal = await payout(database, 2, "1.00")
    forged = f"""
        INSERT INTO deposit_payment
               (id, proposal_id, partner_id, amount_micro, bank_reference, recorded_at, recorded_by)
        VALUES (1, {proposal.id}, 2, -500000001, 'x', '2017-03-28', 'x')
    """
    for statement in (forged, "DELETE FROM deposit_payment", "UPDATE deposit_payment SET amount_micro = 1"):
        with pytest.raises(DBAPIError):
            await rows(database, statement)


async def test_two_processes_pay_the_last_of_a_deposit_out_once(
    database: Database, booked_march: Example, database_url: URL
) -> None:
    """Each is about to pay all of it out when the other one is, too: both wait for the partner's row."""
    await pay_in(database, 2, "500.00")
    mine, theirs = [await payout(database, 2, "78.00", key=key) for key in ("o-1", "o-2")]
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.settlement.paying_out",
        database_url.render_as_string(hide_password=False),
        str(theirs.id),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdout is not None
    async with database.posting() as gate:
        await gate.execute(text("SELECT FROM partner WHERE id = 2 FOR NO KEY UPDATE"))
        here = asyncio.create_task(pay_out(database, mine))
        await until_two_wait(database)
    answers: list[str] = [json.loads(await other.stdout.readline())]
    assert await other.wait() == 0
    try:
        answers.append((await here).proposal.state)
    except Refused as found:
        answers.append(found.code)
    assert sorted(answers) == ["APPROVED", "LIMIT_EXCEEDED"]
    held = await account(database, 2)
    assert (held.held_micro, held.free_micro) == (422 * MILLION, 0)
    assert (await verify(database, standing(IN_MAY))).holds


async def until_two_wait(database: Database) -> None:
    """Returns when two sessions of this database wait for a lock."""
    waiting = """
        SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity AS a USING (pid)
         WHERE NOT granted AND a.datname = current_database()
    """
    for _ in range(6_000):
        if (await rows(database, waiting))[0][0] == 2:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


# ---------------------------------------------------------------- behind the application's back


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE deposit_payment SET amount_micro = 1 WHERE amount_micro > 0", "its entry differs in partner, amount"),
        ("DELETE FROM deposit_payment WHERE amount_micro > 0", "was paid into no deposit and no float"),
        ("DELETE FROM partner_entry WHERE kind = 'DEPOSIT' AND amount_micro > 0", "no entry books it"),
        ("UPDATE proposal SET amount_micro = 1", "is not what an approved proposal says"),
        ("UPDATE proposal SET partner_id = 1", "is not what an approved proposal says"),
        ("UPDATE proposal SET kind = 'WRITE_OFF', of_period_id = 1", "is not what an approved proposal says"),
        ("DELETE FROM deposit_payment WHERE amount_micro < 0", "is approved, and nothing was paid out"),
        (
            """INSERT INTO deposit_payment SELECT 7, NULL, 999, 2, -900000000, NULL, 'x', recorded_at, 'x'
                 FROM deposit_payment LIMIT 1""",
            "deposit of partner 2: -401000000 micro-units",
        ),
    ],
)
async def test_a_deposit_changed_behind_the_application_is_named(
    database: Database, booked_march: Example, tamper: Tamper, change: str, says: str
) -> None:
    await pay_in(database, 2, "500.00")
    await pay_out(database, await payout(database, 2, "1.00"))
    assert (await check_16(database))[0]
    await tamper(change)
    holds, detail = await check_16(database)
    assert not holds
    assert says in detail

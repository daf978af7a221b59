"""Money by four eyes: adjustments and write-offs, into the open period, once, and never behind a close."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domain.database import PERIOD_LOCK_CLASS, Database
from domain.errors import RefusalCode, Refused
from domain.periods import Clock
from domain.positions import LineKind
from domain.proposals import Decision, ProposalState
from domain.proposing import end_proposal
from domain.values import OPERATOR_ID
from settlement import adjustments
from settlement.closing import close_period
from settlement.reading import lines_of_statements, period_figures, statements_of_periods
from settlement.verifying import verify
from settlement.writing import write_entry
from tests.domain.books import contents
from tests.settlement.four_eyes import APPROVER, PROPOSER, THIRD, adjustment, approve, rows, standing, write_off
from tests.settlement.rows import noon
from tests.settlement.worked_example import Example

At = Callable[[datetime], Clock]
Tamper = Callable[[str], Awaitable[None]]
MARCH, APRIL = 2017 * 12 + 2, 2017 * 12 + 3
IN_MARCH, IN_APRIL, IN_MAY = noon(2017, 3, 28), noon(2017, 4, 2), noon(2017, 5, 2)


BAD_DEBTS = "SELECT kind, line_kind, period_id, amount_micro FROM partner_entry WHERE kind = 'BAD_DEBT'"
BAD_DEBT_BOOKS = """
    SELECT book, sum(amount)::bigint FROM ledger_entry WHERE kind = 'BAD_DEBT' GROUP BY book ORDER BY book
"""


async def refused(work: Awaitable[object]) -> Refused:
    with pytest.raises(Refused) as caught:
        await work
    return caught.value


async def test_an_adjustment_stands_on_the_statement_and_its_contra_side_in_the_margin(
    database: Database, at: At, booked_march: Example
) -> None:
    a, b, c = (booked_march.writer.partner_ids[code] for code in "ABC")
    for partner_id, amount in ((b, "12.34"), (c, "-0.01")):
        proposal = await adjustment(database, IN_MARCH, partner_id, amount, key=f"p-{partner_id}")
        assert await rows(database, "SELECT count(*) FROM partner_entry") == [(0 if partner_id == b else 1,)]
        assert (await approve(database, IN_MARCH, proposal)).proposal.state == ProposalState.APPROVED
    draft = (await statements_of_periods(database, OPERATOR_ID, [MARCH]))[MARCH]
    assert [one.net_minor for one in draft] == [-102_800, -42_200 + 1_234, -1_250 - 1]  # no fixed fees yet
    await close_period(database, at(IN_APRIL), "2017-03", "close-1")
    statements = (await statements_of_periods(database, OPERATOR_ID, [MARCH]))[MARCH]
    assert {one.partner_id: one.net_minor for one in statements} == {a: -107_800, b: -45_200 + 1_234, c: -3_250 - 1}
    [line] = [
        line
        for line in (await lines_of_statements(database, OPERATOR_ID, [(MARCH, b)]))[(MARCH, b)]
        if line.kind == LineKind.ADJUSTMENT
    ]
    assert (line.entries, line.points, line.exact_micro, line.prior_exact_micro, line.billed_minor) == (
        1, None, 12_340_000, 0, 1_234,
    )  # fmt: skip
    figures = (await period_figures(database, [MARCH]))[MARCH]
    margin_micro = 355_284_000 - 12_330_000
    assert (figures.operator_net_minor, figures.margin_micro) == (156_250 - 1_233, margin_micro)
    assert figures.operator_net_minor * 10_000 == figures.pool_change_micro + figures.margin_micro
    books = "SELECT book, sum(amount)::bigint FROM ledger_entry WHERE book = 'ADJUSTMENTS' GROUP BY book"
    assert await rows(database, books) == [("ADJUSTMENTS", -12_330_000)]
    report = await verify(database, at(IN_APRIL))
    assert report.holds, [check for check in report.checks if not check.holds]


async def test_one_that_corrects_a_closed_line_is_prior(database: Database, at: At, booked_march: Example) -> None:
    b = booked_march.writer.partner_ids["B"]
    await close_period(database, at(IN_APRIL), "2017-03", "close-1")
    march = await rows(database, "SELECT document FROM statement ORDER BY partner_id")
    proposal = await adjustment(database, IN_APRIL, b, "4.20", label="2017-03", line=LineKind.ISSUE)
    await approve(database, IN_APRIL, proposal)
    await close_period(database, at(IN_MAY), "2017-04", "close-2")
    lines = (await lines_of_statements(database, OPERATOR_ID, [(APRIL, b)]))[(APRIL, b)]
    assert [(line.kind, line.exact_micro, line.prior_exact_micro) for line in lines] == [
        (LineKind.FIXED_FEE, -30_000_000, 0),
        (LineKind.ADJUSTMENT, 4_200_000, 4_200_000),
    ]
    assert await rows(database, "SELECT document FROM statement WHERE period_id = 24206 ORDER BY partner_id") == march
    assert await rows(
        database, "SELECT kind, period_id, of_period_id, of_line_kind, amount_micro, note FROM adjustment"
    ) == [("ADJUSTMENT", APRIL, MARCH, "ISSUE", 4_200_000, "agreed by letter")]
    assert (await verify(database, at(IN_MAY))).holds


@pytest.mark.parametrize(
    ("amount", "label", "line", "code", "field"),
    [
        ("0", None, None, RefusalCode.AMOUNT_INVALID, "amount.amount"),
        ("-0.00", None, None, RefusalCode.AMOUNT_INVALID, "amount.amount"),
        ("1.001", None, None, RefusalCode.AMOUNT_INVALID, "amount.amount"),
        ("1.00", "2017-03", None, RefusalCode.INPUT_INVALID, "lineKind"),
        ("1.00", None, LineKind.ISSUE, RefusalCode.INPUT_INVALID, "label"),
        ("1.00", "2017-03", LineKind.ISSUE, RefusalCode.STATEMENT_NOT_FOUND, "label"),
        ("1.00", "March", LineKind.ISSUE, RefusalCode.STATEMENT_NOT_FOUND, "label"),
    ],
)
async def test_what_cannot_be_proposed(
    database: Database,
    booked_march: Example,
    amount: str,
    label: str | None,
    line: LineKind | None,
    code: str,
    field: str,
) -> None:
    before = await contents(database)
    refusal = await refused(adjustment(database, IN_MARCH, 1, amount, label=label, line=line))
    assert (refusal.code, refusal.field) == (code, field)
    assert (await refused(adjustment(database, IN_MARCH, 1, "1.00", currency="USD"))).field == "amount.currency"
    assert (await refused(adjustment(database, IN_MARCH, 99, "1.00"))).field == "partnerId"
    assert (await refused(adjustment(database, IN_MARCH, 1, "1.00", key="system:x"))).field == "idempotencyKey"
    assert await contents(database) == before


async def test_a_line_that_the_statement_does_not_have(database: Database, at: At, booked_march: Example) -> None:
    await close_period(database, at(IN_APRIL), "2017-03", "close-1")
    refusal = await refused(adjustment(database, IN_APRIL, 2, "1.00", label="2017-03", line=LineKind.BREAKAGE_SHARE))
    assert (refusal.code, refusal.field) == (RefusalCode.STATEMENT_NOT_FOUND, "lineKind")


async def test_the_same_client_neither_approves_nor_rejects(database: Database, booked_march: Example) -> None:
    proposal = await adjustment(database, IN_MARCH, 1, "1.00")
    before = await contents(database)
    assert (await refused(approve(database, IN_MARCH, proposal, client=PROPOSER))).code == RefusalCode.FOUR_EYES
    assert await contents(database) == before
    rejection = Decision(ProposalState.REJECTED, PROPOSER, "r-1", None)
    refusal = await refused(end_proposal(database, standing(IN_MARCH), proposal.id, rejection))
    assert refusal.code == RefusalCode.FOUR_EYES
    assert await contents(database) == before


async def test_the_database_refuses_a_proposal_s_second_life_whoever_asks(
    database: Database, booked_march: Example
) -> None:
    proposal = await adjustment(database, IN_MARCH, 1, "1.00")
    own = (
        "UPDATE proposal SET state = 'APPROVED', decided_by = proposed_by, decided_at = proposed_at, decision_key = 'x'"
    )
    forbidden = [own, "DELETE FROM proposal", "UPDATE proposal SET amount_micro = 2"]
    for statement in forbidden:
        with pytest.raises(DBAPIError):
            await rows(database, statement)
    await approve(database, IN_MARCH, proposal)
    forbidden = ["UPDATE proposal SET state = 'PROPOSED'", "DELETE FROM adjustment", "UPDATE adjustment SET note = 'x'"]
    for statement in forbidden:
        with pytest.raises(DBAPIError):
            await rows(database, statement)


async def test_two_approvers_at_once_book_once(database: Database, booked_march: Example) -> None:
    made = [await adjustment(database, IN_MARCH, 1, "1.00", key=f"p-{number}") for number in range(6)]
    answers = await asyncio.gather(
        *(
            approve(database, IN_MARCH, proposal, client=client, key=f"{client}-{proposal.id}")
            for proposal in made
            for client in (APPROVER, THIRD)
        ),
        return_exceptions=True,
    )
    done = [one for one in answers if not isinstance(one, BaseException)]
    assert len(done) == 6
    assert {one.code for one in answers if isinstance(one, Refused)} == {RefusalCode.PROPOSAL_DECIDED}
    assert await rows(database, "SELECT count(*), sum(amount_micro)::bigint FROM partner_entry") == [(6, 6_000_000)]
    assert await rows(database, "SELECT entries, amount_micro::bigint FROM position WHERE kind = 'ADJUSTMENT'") == [
        (6, 6_000_000)
    ]
    again = await approve(
        database, IN_MARCH, made[0], client=done[0].proposal.decided_by or "", key=done[0].proposal.decision_key
    )
    assert (again.replayed, again.proposal) == (True, done[0].proposal)


async def test_an_approval_that_meets_a_close_books_into_the_next_period(
    database: Database, at: At, booked_march: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close takes the period while the approval waits for it."""
    proposal = await adjustment(database, IN_MARCH, 2, "1.00")
    lock = text(f"SELECT pg_advisory_xact_lock({PERIOD_LOCK_CLASS}, {MARCH})")
    async with database.posting() as closing:
        await closing.execute(lock)
        approving = asyncio.ensure_future(approve(database, IN_MARCH, proposal))
        await until_somebody_waits(database)
        await closing.execute(text(f"UPDATE period SET state = 'CLOSING', close_key = 'k' WHERE id = {MARCH}"))
    await approving
    assert await rows(database, "SELECT period_id, amount_micro FROM partner_entry") == [(APRIL, 1_000_000)]
    await close_period(database, at(IN_APRIL), "2017-03", "k")
    assert (await verify(database, at(IN_APRIL))).holds


async def test_a_close_that_meets_an_approval_waits_and_counts_it(
    database: Database, at: At, booked_march: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The approval holds the period while the close waits for it: the entry is on the statement."""
    proposal = await adjustment(database, IN_MARCH, 2, "1.00")
    reached, go_on = asyncio.Event(), asyncio.Event()
    write = write_entry

    async def gated(*arguments: object, **keywords: object) -> tuple[int, int]:
        reached.set()
        await go_on.wait()
        return await write(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(adjustments, "write_entry", gated)
    approving = asyncio.ensure_future(approve(database, IN_MARCH, proposal))
    await reached.wait()
    closing = asyncio.ensure_future(close_period(database, at(IN_APRIL), "2017-03", "close-1"))
    await until_somebody_waits(database)
    go_on.set()
    await approving
    await closing
    statements = (await statements_of_periods(database, OPERATOR_ID, [MARCH]))[MARCH]
    assert [one.net_minor for one in statements] == [-107_800, -45_100, -3_250]
    assert (await verify(database, at(IN_APRIL))).holds


async def until_somebody_waits(database: Database) -> None:
    """Returns when somebody waits for a lock."""
    waits = """
        SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
                        WHERE NOT l.granted AND a.datname = current_database())
    """
    for _ in range(1_000):
        if (await rows(database, waits))[0][0]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


# ---------------------------------------------------------------- write-offs


async def test_a_write_off_takes_what_is_owed_and_stays_outside_the_margin(
    database: Database, at: At, booked_march: Example
) -> None:
    b = booked_march.writer.partner_ids["B"]
    await close_period(database, at(IN_APRIL), "2017-03", "close-1")
    first = await write_off(database, IN_APRIL, b, "2017-03", "400.00")
    second = await write_off(database, IN_APRIL, b, "2017-03", "60.00", key="w-2")
    await approve(database, IN_APRIL, first)
    refusal = await refused(approve(database, IN_APRIL, second))
    assert (refusal.code, refusal.message) == (RefusalCode.EXCEEDS_ORIGINAL, "the partner owes 52.00 of that statement")
    assert await rows(
        database,
        BAD_DEBTS,
    ) == [("BAD_DEBT", None, APRIL, 400_000_000)]
    assert await rows(
        database,
        BAD_DEBT_BOOKS,
    ) == [("BAD_DEBT", -400_000_000), ("PARTNER", 400_000_000)]
    await close_period(database, at(IN_MAY), "2017-04", "close-2")
    statements = (await statements_of_periods(database, OPERATOR_ID, [APRIL]))[APRIL]
    assert [one.net_minor for one in statements] == [-5_000, -3_000, -2_000], "fixed fees alone"
    figures = (await period_figures(database, [APRIL]))[APRIL]
    assert (figures.operator_net_minor, figures.margin_micro) == (10_000, 100_000_000)
    assert (await verify(database, at(IN_MAY))).holds


async def test_nothing_is_written_off_that_is_not_owed(database: Database, at: At, booked_march: Example) -> None:
    before = await contents(database)
    refusal = await refused(write_off(database, IN_APRIL, 2, "2017-03", "1.00"))
    assert (refusal.code, refusal.field) == (RefusalCode.STATEMENT_NOT_FOUND, "label")
    assert await contents(database) == before
    await close_period(database, at(IN_APRIL), "2017-03", "close-1")
    before = await contents(database)
    assert (await refused(write_off(database, IN_APRIL, 2, "2017-03", "452.01"))).code == RefusalCode.EXCEEDS_ORIGINAL
    assert (await refused(write_off(database, IN_APRIL, 2, "2017-03", "0.00"))).code == RefusalCode.AMOUNT_INVALID
    assert await contents(database) == before


# ---------------------------------------------------------------- behind the application's back


async def test_an_adjustment_changed_behind_the_back_is_found(
    database: Database, at: At, booked_march: Example, tamper: Tamper
) -> None:
    await approve(database, IN_MARCH, await adjustment(database, IN_MARCH, 2, "1.00"))
    await tamper("UPDATE proposal SET amount_micro = 2000000")
    report = await verify(database, at(IN_APRIL))
    [failed_check] = [check for check in report.checks if not check.holds]
    assert (failed_check.number, "is not what an approved proposal says" in failed_check.detail) == (9, True)
    await tamper("UPDATE partner_entry SET amount_micro = 2000000 WHERE kind = 'ADJUSTMENT'")
    report = await verify(database, at(IN_APRIL))
    failed = {check.number: check.detail for check in report.checks if not check.holds}
    assert "ADJUSTMENT, partner B) was altered" in failed[9]
    assert 1 in failed

"""Disputes on rows: never more than the line, decided once, whoever asks and however many at once."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domain.commands import Amount
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.periods import Clock
from domain.positions import LineKind
from domain.proposals import Proposal, ProposalReason
from domain.values import OPERATOR_ID
from settlement.adjustments import AdjustmentAsk, propose_adjustment
from settlement.closing import close_period
from settlement.disputed import DisputeReason
from settlement.disputes import DisputeAsk, DisputeStep, OutcomeAsk, open_dispute, propose_outcome, withdraw_dispute
from settlement.reading import statements_of_periods
from settlement.verifying import verify
from tests.domain.books import contents
from tests.settlement.four_eyes import APPROVER, PROPOSER, THIRD, approve, euros, rows, standing, write_off
from tests.settlement.rows import noon
from tests.settlement.worked_example import Example

At = Callable[[datetime], Clock]
Tamper = Callable[[str], Awaitable[None]]
MARCH, APRIL = 2017 * 12 + 2, 2017 * 12 + 3
IN_APRIL, IN_MAY = noon(2017, 4, 2), noon(2017, 5, 2)
INSTANT = timedelta(microseconds=1)
TILL = "till-1"


@pytest.fixture
async def closed_march(database: Database, at: At, booked_march: Example) -> Example:
    """March is closed: B owes 452.00, of which 420.00 is its ISSUE."""
    await close_period(database, at(IN_APRIL), "2017-03", "close-1")
    return booked_march


async def disputed(
    database: Database,
    partner_id: int,
    amount: str | None,
    *,
    key: str = "d-1",
    line: LineKind = LineKind.ISSUE,
    now: datetime = IN_APRIL,
) -> DisputeStep:
    """A dispute of a line of March."""
    money: Amount | None = None if amount is None else euros(amount)
    ask = DisputeAsk(
        partner_id,
        is_operator=False,
        label="2017-03",
        line_kind=line,
        command_ids=None,
        amount=money,
        reason=DisputeReason.OTHER,
        note="we did not",
    )
    return await open_dispute(database, standing(now), TILL, key, ask)


async def outcome(
    database: Database, dispute_id: int, *, amount: str | None = None, accept: bool = True, key: str = "o-1"
) -> Proposal:
    """A proposed outcome."""
    ask = OutcomeAsk(dispute_id, accept, None if amount is None else euros(amount), "looked into")
    return (await propose_outcome(database, standing(IN_APRIL), PROPOSER, key, ask)).proposal


async def march(database: Database, partner_id: int) -> tuple[int, int, int]:
    """Due of the document, what is withheld, and what is to be paid now."""
    [one] = [
        statement
        for statement in (await statements_of_periods(database, OPERATOR_ID, [MARCH]))[MARCH]
        if statement.partner_id == partner_id
    ]
    return one.due_minor, one.withheld_minor, one.open_minor


async def refused(work: Awaitable[object]) -> Refused:
    with pytest.raises(Refused) as caught:
        await work
    return caught.value


async def test_many_disputes_at_once_never_exceed_the_line(database: Database, closed_march: Example) -> None:
    b = closed_march.writer.partner_ids["B"]
    answers = await asyncio.gather(
        *(disputed(database, b, "100.00", key=f"d-{number}") for number in range(6)), return_exceptions=True
    )
    opened = [one for one in answers if isinstance(one, DisputeStep)]
    assert len(opened) == 4
    assert {one.code for one in answers if isinstance(one, Refused)} == {RefusalCode.EXCEEDS_ORIGINAL}
    assert await march(database, b) == (-45_200, -40_000, -5_200)
    for one in opened[:2]:
        await withdraw_dispute(database, standing(IN_APRIL), b, f"w-{one.dispute.id}", one.dispute.id)
    assert await march(database, b) == (-45_200, -20_000, -25_200)
    assert (await disputed(database, b, "220.00", key="d-9")).dispute.withheld_minor == -22_000


async def test_of_what_is_left_to_the_next_statement_nothing_is_withheld(
    database: Database, at: At, booked_march: Example
) -> None:
    b = booked_march.writer.partner_ids["B"]
    async with database.posting() as connection:
        await connection.execute(text("UPDATE programme SET minimum_settlement_micro = 500000000"))
    await close_period(database, at(IN_APRIL), "2017-03", "close-1")
    # 452.00 is too little to be paid. Were 20.00 of it withheld, the operator would owe them to who paid nothing.
    assert (await disputed(database, b, "20.00")).dispute.withheld_minor == 0
    assert await march(database, b) == (0, 0, 0)
    forward = await refused(disputed(database, b, "20.00", key="d-2", line=LineKind.CARRIED_FORWARD))
    assert (forward.code, forward.field) == (RefusalCode.INPUT_INVALID, "lineKind")
    assert (await verify(database, standing(IN_APRIL))).holds


async def test_one_key_sent_at_once_opens_one_dispute(database: Database, closed_march: Example) -> None:
    b = closed_march.writer.partner_ids["B"]
    answers = await asyncio.gather(*(disputed(database, b, "100.00") for _ in range(5)))
    assert len({one.dispute.id for one in answers}) == 1
    assert sorted(one.replayed for one in answers) == [False, True, True, True, True]


async def test_two_approvers_of_one_outcome_credit_once(
    database: Database, at: At, closed_march: Example, tamper: Tamper
) -> None:
    b = closed_march.writer.partner_ids["B"]
    dispute = (await disputed(database, b, None)).dispute
    assert await march(database, b) == (-45_200, -42_000, -3_200), "all of the line is withheld"
    proposal = await outcome(database, dispute.id, amount="20.00")
    answers = await asyncio.gather(
        *(approve(database, IN_APRIL, proposal, client=client, key=f"{client}-a") for client in (APPROVER, THIRD)),
        return_exceptions=True,
    )
    assert {one.code for one in answers if isinstance(one, Refused)} == {RefusalCode.PROPOSAL_DECIDED}
    assert await rows(database, "SELECT state, accepted_minor, decision_note FROM dispute") == [
        ("ACCEPTED", 2_000, "looked into")
    ]
    entries = "SELECT period_id, line_kind, amount_micro FROM partner_entry WHERE kind = 'ADJUSTMENT'"
    assert await rows(database, entries) == [(APRIL, "ISSUE", 20_000_000)]
    facts = "SELECT dispute_id, of_period_id, of_line_kind, reason_code FROM adjustment"
    assert await rows(database, facts) == [(dispute.id, MARCH, "ISSUE", "DISPUTE")]
    assert await march(database, b) == (-45_200, 0, -45_200), "what was withheld is due again"
    left = await refused(disputed(database, b, "400.01", key="d-2"))
    assert (left.code, left.message) == (RefusalCode.EXCEEDS_ORIGINAL, "only 400.00 of this line is not disputed yet")
    await close_period(database, at(IN_MAY), "2017-04", "close-2")
    report = await verify(database, at(IN_MAY))
    assert report.holds, [check for check in report.checks if not check.holds]
    await tamper("UPDATE dispute SET accepted_minor = 2001")
    [failed] = [check for check in (await verify(database, at(IN_MAY))).checks if not check.holds]
    assert f"dispute {dispute.id} of partner {b}: 2001 accepted" in failed.detail
    april = (await statements_of_periods(database, OPERATOR_ID, [APRIL]))[APRIL]
    assert [one.net_minor for one in april if one.partner_id == b] == [-3_000 + 2_000]


async def test_a_rejection_credits_nothing(database: Database, closed_march: Example) -> None:
    b = closed_march.writer.partner_ids["B"]
    dispute = (await disputed(database, b, "10.00")).dispute
    proposal = await outcome(database, dispute.id, accept=False)
    assert (await refused(approve(database, IN_APRIL, proposal, client=PROPOSER))).code == RefusalCode.FOUR_EYES
    await approve(database, IN_APRIL, proposal)
    assert await rows(database, "SELECT state, accepted_minor FROM dispute") == [("REJECTED", 0)]
    assert await rows(database, "SELECT count(*) FROM adjustment") == [(0,)]
    assert await march(database, b) == (-45_200, 0, -45_200)
    assert (await disputed(database, b, "420.00", key="d-2")).dispute.amount_minor == 42_000


async def test_what_is_withheld_is_not_written_off(database: Database, closed_march: Example) -> None:
    b = closed_march.writer.partner_ids["B"]
    await disputed(database, b, "400.00")
    before = await contents(database)
    assert (await refused(write_off(database, IN_APRIL, b, "2017-03", "52.01"))).code == RefusalCode.EXCEEDS_ORIGINAL
    assert await contents(database) == before
    await approve(database, IN_APRIL, await write_off(database, IN_APRIL, b, "2017-03", "52.00"))
    assert await march(database, b) == (-45_200, -40_000, 0)


async def test_nobody_withdraws_another_partner_s_dispute(database: Database, closed_march: Example) -> None:
    a, b = (closed_march.writer.partner_ids[code] for code in "AB")
    dispute = (await disputed(database, b, "1.00")).dispute
    before = await contents(database)
    refusal = await refused(withdraw_dispute(database, standing(IN_APRIL), a, "w-1", dispute.id))
    assert refusal.code == RefusalCode.DISPUTE_NOT_FOUND
    assert await contents(database) == before


async def test_a_claim_for_more_credit_withholds_nothing(database: Database, closed_march: Example) -> None:
    b = closed_march.writer.partner_ids["B"]
    claim = (await disputed(database, b, "46.00", line=LineKind.REIMBURSEMENT)).dispute
    assert (claim.amount_minor, claim.withheld_minor) == (4_600, 0)
    assert await march(database, b) == (-45_200, 0, -45_200)
    too_much = await refused(disputed(database, b, "46.01", line=LineKind.REIMBURSEMENT, key="d-2"))
    assert too_much.code == RefusalCode.EXCEEDS_ORIGINAL


async def test_the_window_is_that_of_the_closed_period(database: Database, closed_march: Example) -> None:
    [[until]] = await rows(database, f"SELECT dispute_until FROM period WHERE id = {MARCH}")
    b = closed_march.writer.partner_ids["B"]
    before = await contents(database)
    assert (await refused(disputed(database, b, "1.00", now=until))).code == RefusalCode.DISPUTE_WINDOW_OVER
    assert await contents(database) == before
    assert not (await disputed(database, b, "1.00", now=until - INSTANT)).replayed
    assert (await disputed(database, b, "1.00", now=until)).replayed, "a replay is found after the window too"


async def test_the_database_refuses_it_whoever_asks(database: Database, closed_march: Example) -> None:
    b = closed_march.writer.partner_ids["B"]
    dispute = (await disputed(database, b, "10.00")).dispute
    more = """
        INSERT INTO dispute (period_id, partner_id, line_kind, amount_minor, withheld_minor, reason_code, note,
                             idempotency_key, opened_by, opened_at)
        SELECT period_id, partner_id, line_kind, 41001, -41001, reason_code, note, 'x', opened_by, opened_at
          FROM dispute
    """
    for statement in (
        more,
        more.replace("41001", "0"),
        "DELETE FROM dispute",
        "UPDATE dispute SET amount_minor = 1",
        "UPDATE dispute SET state = 'ACCEPTED', decided_at = opened_at",
        "UPDATE dispute SET state = 'ACCEPTED', decided_at = opened_at, accepted_minor = 1001",
    ):
        with pytest.raises(DBAPIError):
            await rows(database, statement + ("" if "INSERT" in statement else " RETURNING id"))
    await withdraw_dispute(database, standing(IN_APRIL), b, "w-1", dispute.id)
    with pytest.raises(DBAPIError):
        await rows(database, "UPDATE dispute SET state = 'OPEN', decided_at = NULL, withdrawal_key = NULL RETURNING id")


# ---------------------------------------------------------------- more than the line


async def test_a_partner_that_was_credited_too_little_gets_more_than_the_line_by_an_adjustment(
    database: Database, at: At, closed_march: Example
) -> None:
    """B was reimbursed 46.00 and says that it should have been 60.00: a dispute says so of 46.00 at most."""
    b, line = closed_march.writer.partner_ids["B"], LineKind.REIMBURSEMENT
    over = await refused(disputed(database, b, "60.00", line=line))
    assert over.code == RefusalCode.EXCEEDS_ORIGINAL
    dispute = (await disputed(database, b, "10.00", line=line)).dispute

    async def adjustment(amount: str, *, key: str = "j-1", partner_id: int = b, **values: Any) -> Proposal:
        ask = AdjustmentAsk(partner_id, euros(amount), ProposalReason.DISPUTE, "it was 14.00", **values)
        return (await propose_adjustment(database, standing(IN_APRIL), PROPOSER, key, ask)).proposal

    before = await contents(database)
    a = closed_march.writer.partner_ids["A"]
    for given, code in (
        ({"dispute_id": 99}, RefusalCode.DISPUTE_NOT_FOUND),
        ({"dispute_id": dispute.id, "partner_id": a}, RefusalCode.DISPUTE_NOT_FOUND),
        ({"dispute_id": dispute.id, "label": "2017-03", "line_kind": line}, RefusalCode.INPUT_INVALID),
    ):
        assert (await refused(adjustment("14.00", **given))).code == code
    assert await contents(database) == before

    # One proposal of the outcome and one beside it: the dispute is rejected as far as it goes, and the letter answered.
    beside = await adjustment("14.00", dispute_id=dispute.id)
    assert (beside.content.of_period_id, beside.content.of_line_kind) == (MARCH, line)
    rejected = await outcome(database, dispute.id, accept=False)
    await approve(database, IN_APRIL, rejected)
    await approve(database, IN_APRIL, beside)
    facts = "SELECT dispute_id, of_period_id, of_line_kind, amount_micro FROM adjustment"
    assert await rows(database, facts) == [(dispute.id, MARCH, "REIMBURSEMENT", 14_000_000)]
    assert await rows(database, "SELECT state, accepted_minor FROM dispute") == [("REJECTED", 0)]
    await close_period(database, at(IN_MAY), "2017-04", "close-2")
    report = await verify(database, at(IN_MAY))
    assert report.holds, [check for check in report.checks if not check.holds]

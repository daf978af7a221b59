"""One default of a partner: every due statement, the oldest first, each covered by what those before it left."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from hypothesis import given as drawn
from hypothesis import strategies as st

from domain.database import Database
from domain.errors import RefusalCode
from domain.periods import Clock
from domain.proposals import ProposalReason, Step
from settlement.closing import close_period
from settlement.defaults import DefaultAsk, cover, propose_default, waterfall
from settlement.verifying import verify
from tests.domain.books import contents
from tests.settlement.four_eyes import PROPOSER, rows, standing
from tests.settlement.rows import noon
from tests.settlement.secured import (
    APRIL,
    MARCH,
    MAY,
    MILLION,
    account,
    check_16,
    covered,
    declare,
    pay_in,
    pays,
    refused,
    statement,
)
from tests.settlement.worked_example import Example

At = Callable[[datetime], Clock]
Tamper = Callable[[str], Awaitable[None]]
IN_JUNE, IN_JULY, AMOUNT = noon(2017, 6, 2), noon(2017, 7, 3), st.integers(0, 1000)


async def all_due(database: Database, now: datetime, key: str = "all-1") -> Step:
    ask = DefaultAsk(2, None, ProposalReason.UNCOLLECTABLE, "insolvent")
    return await propose_default(database, standing(now), PROPOSER, key, ask)


async def test_one_proposal_covers_every_due_statement_the_oldest_first(
    database: Database, at: At, two_months: Example
) -> None:
    """March: 452.00 owed; April: 100.00 the other way; May: the fixed fee of 30.00; June is not due yet."""
    await close_period(database, at(IN_JUNE), "2017-05", "close-3")
    await close_period(database, at(IN_JULY), "2017-06", "close-4")
    await pay_in(database, 2, "170.00", now=IN_JULY, key="more")
    proposed = await all_due(database, IN_JULY)
    assert (proposed.proposal.content.of_period_id, proposed.proposal.content.amount_micro) == (None, 482 * MILLION)
    done = await declare(database, IN_JULY, proposed.proposal)
    again = await declare(database, IN_JULY, proposed.proposal)
    assert (again.replayed, again.proposal) == (True, done.proposal)

    made = "SELECT period_id, owed_micro, offset_micro, deposit_micro, bad_debt_micro FROM partner_default ORDER BY 1"
    assert await rows(database, made) == [
        (MARCH, 452 * MILLION, 100 * MILLION, 352 * MILLION, 0),
        (MAY, 30 * MILLION, 0, 18 * MILLION, 12 * MILLION),
    ]
    assert await rows(database, "SELECT of_period_id, period_id, amount_micro FROM default_offset") == [
        (MARCH, APRIL, 100 * MILLION)
    ]
    assert covered(await statement(database)) == {"offset": 10_000, "deposit": 35_200, "open": 0}
    assert covered(await statement(database, period_id=MAY)) == {"deposit": 1_800, "written_off": 1_200, "open": 0}
    june = await statement(database, period_id=MAY + 1)
    assert covered(june) == {"open": -3_000}, "what is not due yet stays open"
    assert (await account(database, 2)).held_micro == 0
    report = await verify(database, at(IN_JULY))
    assert report.holds, [one for one in report.checks if not one.holds]


async def test_what_was_paid_meanwhile_counts_and_more_than_proposed_is_refused(
    database: Database, at: At, two_months: Example
) -> None:
    early = (await all_due(database, IN_JUNE)).proposal
    assert early.content.amount_micro == 452 * MILLION
    for label, now in (("2017-05", IN_JUNE), ("2017-06", IN_JULY)):
        await close_period(database, at(now), label, f"close-{label}")
    before = await contents(database)
    found = await refused(declare(database, IN_JULY, early))
    assert (found.code, found.field) == (RefusalCode.EXCEEDS_ORIGINAL, "proposalId")
    assert await contents(database) == before

    proposed = (await all_due(database, IN_JULY, "all-2")).proposal
    await pays(database, IN_JULY, "-452.00", key="late")
    await declare(database, IN_JULY, proposed)
    assert await rows(database, "SELECT period_id, owed_micro FROM partner_default") == [(MAY, 30 * MILLION)]
    assert (await verify(database, at(IN_JULY))).holds
    before = await contents(database)
    nothing = await refused(all_due(database, IN_JULY, "all-3"))
    assert (nothing.code, nothing.message) == (
        RefusalCode.STATEMENT_NOT_DUE,
        "the partner owes nothing that is due",
    )
    assert await contents(database) == before


async def test_a_default_of_all_that_was_changed_is_named(
    database: Database, at: At, two_months: Example, tamper: Tamper
) -> None:
    await close_period(database, at(IN_JUNE), "2017-05", "close-3")
    proposal = (await all_due(database, IN_JULY)).proposal
    await declare(database, IN_JULY, proposal)
    await tamper("UPDATE default_offset SET of_period_id = 24208")
    holds, detail = await check_16(database)
    assert not holds
    assert f"default {proposal.id} of partner 2 is not what an approved proposal says" in detail


@drawn(st.lists(AMOUNT, max_size=4), st.lists(AMOUNT, max_size=4), AMOUNT)
def test_many_debts_are_covered_as_their_sum_would_be(debts: list[int], owed_to: list[int], held: int) -> None:
    found = cover(enumerate(debts), enumerate(owed_to), held)
    whole = waterfall(sum(debts), enumerate(owed_to), held)
    assert [number for number, _ in found] == list(range(len(debts)))
    for (_, one), owed in zip(found, debts, strict=True):
        assert sum(amount for _, amount in one.offsets) + one.deposit_micro + one.bad_debt_micro == owed
    assert sum(one.deposit_micro for _, one in found) == whole.deposit_micro
    assert sum(one.bad_debt_micro for _, one in found) == whole.bad_debt_micro
    taken: dict[int, int] = {}
    for _, one in found:
        for number, amount in one.offsets:
            taken[number] = taken.get(number, 0) + amount
    assert taken == dict(whole.offsets)

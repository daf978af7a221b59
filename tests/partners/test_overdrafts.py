"""Overdrafts by four eyes: what a window may spend beyond its limit, until when, and what a new file leaves of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import text

from domain.commands import Amount, Posted
from domain.database import Database
from domain.errors import ConfigurationError, RefusalCode, Refused
from domain.proposals import Decision, Proposal, ProposalReason, ProposalState, Step
from partners.apply import apply_coalition, plan_coalition
from partners.coalition_file import parse_coalition
from partners.overdrafts import OverdraftAsk, approve_overdraft, propose_overdraft
from settlement.verifying import verify
from tests.domain.books import check_books, contents
from tests.domain.coalitions import Day, Table, coalition, partner
from tests.domain.tills import APRIL, MARCH, Till, till_on
from tests.factories import apply_toml

OVERDRAWN = {"limit": "1.10", "on_limit": "OVERDRAFT"}
FUEL = partner("fuel", budgets={"limit": "1.10"})
TOML = coalition(partner("grocer", budgets=OVERDRAWN), FUEL)


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    """Two partners whose windows carry 100 points each; the grocer's may be overdrawn with approval."""
    async with till_on(database, TOML) as opened:
        await opened.enrolled("card-1")
        yield opened
    await check_books(database)


async def proposed(
    till: Till,
    amount: str = "0.55",
    *,
    partner: str = "grocer",
    key: str = "p-1",
    label: str | None = None,
    until: datetime | None = None,
) -> Proposal:
    """A proposed overdraft."""
    ask = OverdraftAsk(
        till.id_of(partner), Amount(Decimal(amount), "EUR"), ProposalReason.AGREEMENT, "Easter", label, until
    )
    return (await propose_overdraft(till.database, till.clock, "client-1", key, ask)).proposal


async def approve(till: Till, proposal: Proposal, *, client: str = "client-2", key: str | None = None) -> Step:
    """Its approval."""
    decision = Decision(ProposalState.APPROVED, client, key or f"a-{proposal.id}", None)
    return await approve_overdraft(till.database, till.clock, proposal.id, decision)


async def refused(work: Awaitable[object]) -> Refused:
    with pytest.raises(Refused) as caught:
        await work
    return caught.value


async def windows(till: Till) -> list[tuple[int, int, int]]:
    """Period, overdraft and consumed money of every window."""
    return [
        (row[0], row[1], row[2])
        for row in await till.rows("SELECT period_id, overdraft_micro, consumed_micro FROM budget ORDER BY id")
    ]


async def test_an_approved_overdraft_carries_what_the_limit_does_not(till: Till) -> None:
    await till.accept(till.purchase("k-1", "100.00"))
    await till.refuse(till.purchase("k-2", "50.00"), RefusalCode.BUDGET_EXHAUSTED)
    proposal = await proposed(till)
    await till.refuse(till.purchase("k-2", "50.00"), RefusalCode.BUDGET_EXHAUSTED)
    step = await approve(till, proposal)
    assert (step.proposal.state, step.replayed) == (ProposalState.APPROVED, False)
    posted = await till.accept(till.purchase("k-2", "50.00"))
    assert (posted.points, posted.budget and posted.budget.available_micro) == (50, 0)
    await till.refuse(till.purchase("k-3", "1.00"), RefusalCode.BUDGET_EXHAUSTED)
    assert await windows(till) == [(MARCH, 550_000, 1_650_000)]
    assert await till.rows("SELECT proposal_id, amount_micro FROM overdraft") == [(proposal.id, 550_000)]
    assert (await approve(till, proposal)).replayed
    assert await windows(till) == [(MARCH, 550_000, 1_650_000)]
    assert (await verify(till.database, till.clock)).holds


async def test_it_is_spent_until_its_end_and_what_was_spent_stays(till: Till) -> None:
    end = datetime(2017, 3, 20, 12, tzinfo=UTC)
    await approve(till, await proposed(till, until=end))
    assert (await till.accept(till.purchase("k-1", "120.00"))).points == 120
    till.clock.now = end
    await till.refuse(till.purchase("k-2", "1.00"), RefusalCode.BUDGET_EXHAUSTED)
    assert await windows(till) == [(MARCH, 550_000, 1_320_000)]
    await till.accept(till.reversal("r-1", "k-1", amount="30.00"))
    posted = await till.accept(till.purchase("k-3", "10.00"))
    assert posted.budget is not None
    assert posted.budget.available_micro == 0, "the limit alone counts again"
    assert (await verify(till.database, till.clock)).holds


async def test_a_window_of_a_later_month_may_be_overdrawn_before_it_is_used(till: Till) -> None:
    await approve(till, await proposed(till, label="2017-04"))
    assert await windows(till) == [(APRIL, 550_000, 0)]
    await till.refuse(till.purchase("k-1", "150.00"), RefusalCode.BUDGET_EXHAUSTED)
    till.clock.to(2017, 4, 3)
    assert (await till.accept(till.purchase("k-1", "150.00"))).points == 150
    late = await proposed(till, key="p-2", label="2017-03")
    before = await contents(till.database)
    refusal = await refused(approve(till, late))
    assert (refusal.code, refusal.field) == (RefusalCode.INPUT_INVALID, "proposalId")
    assert await contents(till.database) == before


async def test_what_cannot_be_overdrawn(till: Till) -> None:
    before = await contents(till.database)
    assert (await refused(proposed(till, partner="fuel"))).code == RefusalCode.INPUT_INVALID
    assert (await refused(proposed(till, "0"))).code == RefusalCode.AMOUNT_INVALID
    assert (await refused(proposed(till, "-1"))).code == RefusalCode.AMOUNT_INVALID
    assert (await refused(proposed(till, label="March"))).code == RefusalCode.PERIOD_NOT_FOUND
    assert (await refused(proposed(till, label="1999-03"))).field == "label"
    assert (await refused(proposed(till, until=till.clock.now))).field == "until"
    assert await contents(till.database) == before
    proposal = await proposed(till)
    assert (await refused(approve(till, proposal, client="client-1"))).code == RefusalCode.FOUR_EYES
    assert await windows(till) == []


async def test_two_approvers_at_once_raise_it_once(till: Till) -> None:
    made = [await proposed(till, "0.01", key=f"p-{number}") for number in range(5)]
    answers = await asyncio.gather(
        *(
            approve(till, proposal, client=client, key=f"{client}-{proposal.id}")
            for proposal in made
            for client in ("client-2", "client-3")
        ),
        *(till.queue.post(till.purchase(f"k-{number}", "10.00")) for number in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Step) for one in answers) == 5
    assert sum(isinstance(one, Posted) for one in answers) == 5
    assert {one.code for one in answers if isinstance(one, Refused)} == {RefusalCode.PROPOSAL_DECIDED}
    assert await windows(till) == [(MARCH, 50_000, 550_000)]


async def test_a_new_file_leaves_what_was_approved(till: Till) -> None:
    await approve(till, await proposed(till))
    await till.accept(till.purchase("k-1", "150.00"))
    higher = {**OVERDRAWN, "limit": "1.20"}
    await apply_toml(
        till.database, coalition(partner("grocer", budgets=higher), partner("fuel", budgets={"limit": "1.10"}))
    )
    assert await windows(till) == [(MARCH, 550_000, 1_650_000)]
    lower = {**OVERDRAWN, "limit": "1.09"}
    with pytest.raises(ConfigurationError, match=r"limit 1\.64 is below the 1\.65 consumed"):
        await apply_toml(
            till.database, coalition(partner("grocer", budgets=lower), partner("fuel", budgets={"limit": "1.10"}))
        )
    assert await windows(till) == [(MARCH, 550_000, 1_650_000)]


CARRIED = {**OVERDRAWN, "approved_overdraft": "0.20"}


async def test_a_file_brings_an_overdraft_with_a_first_budget_and_never_raises_one(database: Database) -> None:
    async with till_on(database, coalition(partner("grocer", budgets=CARRIED), FUEL)) as till:
        await till.enrolled("card-1")
        assert (await till.accept(till.purchase("k-1", "115.00"))).points == 115
        # Of the same budget, of one that follows it, of a partner that had none: more than stood is for two to decide.
        later: list[Table] = [CARRIED, {**CARRIED, "from": Day("2017-04-01")}]
        raised: list[Table] = [later[0], {**later[1], "approved_overdraft": "0.21"}]
        earlier: Table = {**OVERDRAWN, "from": Day("2016-01-01"), "approved_overdraft": "0.01"}
        before = await contents(database)
        for subject, more, stands, budgets in (
            ("budget of grocer from 2017-01-01", "0.21", "0.2", {**CARRIED, "approved_overdraft": "0.21"}),
            ("budget of grocer from 2017-04-01", "0.21", "0.2", raised),
            ("budget of grocer from 2016-01-01", "0.01", "0", [earlier, CARRIED]),
        ):
            file = parse_coalition(coalition(partner("grocer", budgets=budgets), FUEL))
            for apply in (apply_coalition, plan_coalition):
                with pytest.raises(ConfigurationError) as caught:
                    await apply(database, file, clock=till.clock)
                assert str(caught.value) == (
                    f"{subject}: approved_overdraft {more} is more than the {stands} that stands: an overdraft is"
                    " proposed and approved by two clients of the operator (proposeOverdraft, approveProposal); keep"
                    " the key as it was"
                )
        assert await contents(database) == before
        # Kept, passed on, lowered, or brought by a new partner it is none of that.
        dear = partner("florist", budgets={**CARRIED, "approved_overdraft": "9.00"})
        await apply_toml(database, coalition(partner("grocer", budgets=later), FUEL, dear))
        lower: list[Table] = [{**one, "approved_overdraft": "0.17"} for one in later]
        await apply_toml(database, coalition(partner("grocer", budgets=lower), FUEL, dear))
        assert await windows(till) == [(MARCH, 170_000, 115 * 11_000)]


async def test_a_partner_reads_its_own_overdrafts_alone(till: Till) -> None:
    await approve(till, await proposed(till))
    seen = {}
    for viewer in (0, till.id_of("grocer"), till.id_of("fuel")):
        async with till.database.reading(viewer) as connection:
            seen[viewer] = [
                (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
                for table in ("overdraft", "proposal")
            ]
    assert list(seen.values()) == [[1, 1], [1, 0], [0, 0]]

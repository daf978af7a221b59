"""Points by four eyes: posted once, by another client than the one that proposed, at the operator's expense."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from domain.adjusting import adjust_command, propose_points
from domain.commands import Adjust, Posted, Refusal
from domain.database import Database
from domain.errors import RefusalCode, Refused
from domain.proposals import Content, Decision, Proposal, ProposalKind, ProposalReason, ProposalState
from domain.proposing import end_proposal
from settlement.verifying import verify
from tests.domain.books import contents
from tests.domain.gates import one_inside_the_other
from tests.domain.tills import Till, codes, queue_on

PROPOSER, APPROVER, THIRD = "client-1", "client-2", "client-3"


async def proposed(
    till: Till, points: int, *, key: str = "p-1", card: str = "card-1", partner: str = "grocer"
) -> Proposal:
    """A proposal of points for a member."""
    content = Content(
        ProposalKind.POINTS,
        till.id_of(partner),
        ProposalReason.GOODWILL,
        "the till was down",
        points=points,
        member_id=till.members[card].member_id,
    )
    return (await propose_points(till.database, till.clock, PROPOSER, key, content)).proposal


def approval(
    till: Till, proposal: Proposal, *, client: str = APPROVER, key: str = "a-1", note: str | None = None
) -> Adjust:
    """The command that approves it."""
    return adjust_command(proposal, Decision(ProposalState.APPROVED, client, key, note), till.clock)


def command_key(proposal: Proposal) -> str:
    return f"system:adjustment:{proposal.id}"


async def state(till: Till, proposal: Proposal) -> tuple[str, str | None, str | None]:
    """State, who decided, under which key."""
    [found] = await till.rows("SELECT state, decided_by, decision_key FROM proposal WHERE id = :id", id=proposal.id)
    return found[0], found[1], found[2]


async def test_given_points_are_a_lot_that_the_operator_pays_for(till: Till) -> None:
    proposal = await proposed(till, 500)
    assert await till.available() == 0, "a proposal moves nothing"
    posted = await till.accept(approval(till, proposal))
    assert (posted.points, posted.balance.available, posted.replayed) == (500, 500, False)
    assert await till.movements(
        command_key(proposal), "kind", "partner_id", "party_id", "funder_id", "issuer_id", "points",
        "issue_value_micro", "service_fee_micro", "pool_value_micro",
    ) == [("ADJUST", 0, 0, 0, till.id_of("grocer"), 500, -5_000_000, 0, 5_000_000)]  # fmt: skip
    assert await state(till, proposal) == ("APPROVED", APPROVER, "a-1")
    assert await till.rows("SELECT issuer_id, funder_id, granted, remaining, price_micro FROM lot") == [
        (till.id_of("grocer"), 0, 500, 500, 10_000)
    ]
    assert await till.rows("SELECT kind, amount_micro::bigint FROM position WHERE partner_id = 0 ORDER BY kind") == [
        ("POOL", 5_000_000),
        ("SUBSIDY", -5_000_000),
    ]


async def test_taken_points_come_out_of_what_the_operator_funded_at_its_prices(
    till: Till, tamper: Callable[[str], Awaitable[None]]
) -> None:
    for number, (points, partner) in enumerate(((300, "grocer"), (200, "fuel"))):
        given = await proposed(till, points, key=f"p-{number}", partner=partner)
        await till.accept(approval(till, given, key=f"a-{number}"))
        till.clock.forward(minutes=1)
    await till.accept(till.purchase("k", "50.00"))
    taking = await proposed(till, -400, key="p-take")
    await till.accept(approval(till, taking, key="a-take"))
    assert await till.movements(command_key(taking), "kind", "points", "issue_value_micro", "pool_value_micro") == [
        ("ADJUST", -300, 3_000_000, -3_000_000),
        ("ADJUST", -100, 1_050_000, -1_050_000),
    ]
    assert await till.available() == 150
    report = await verify(till.database, till.clock)
    assert report.holds, [check for check in report.checks if not check.holds]
    await tamper("UPDATE proposal SET points = 401 WHERE idempotency_key = 'p-take'")
    [failed] = [check for check in (await verify(till.database, till.clock)).checks if not check.holds]
    assert (failed.number, "(ADJUSTMENT) is not what an approved proposal says" in failed.detail) == (9, True)
    too_many = await proposed(till, -101, key="p-more")
    refusal = await till.refuse(approval(till, too_many, key="a-more"), RefusalCode.INSUFFICIENT_POINTS, "proposalId")
    assert "100 points that the operator funded" in refusal.message
    assert (await state(till, too_many))[0] == "PROPOSED"


async def test_whoever_proposed_does_not_decide(till: Till) -> None:
    proposal = await proposed(till, 500)
    await till.refuse(approval(till, proposal, client=PROPOSER), RefusalCode.FOUR_EYES, "proposalId")
    before = await contents(till.database)
    for verdict, client in ((ProposalState.REJECTED, PROPOSER), (ProposalState.WITHDRAWN, APPROVER)):
        with pytest.raises(Refused) as caught:
            await end_proposal(till.database, till.clock, proposal.id, Decision(verdict, client, "d-1", None))
        assert caught.value.code == RefusalCode.FOUR_EYES
    assert await contents(till.database) == before


@pytest.mark.parametrize(
    ("verdict", "client"), [(ProposalState.REJECTED, APPROVER), (ProposalState.WITHDRAWN, PROPOSER)]
)
async def test_what_is_rejected_or_withdrawn_is_never_approved(till: Till, verdict: ProposalState, client: str) -> None:
    proposal = await proposed(till, 500)
    decision = Decision(verdict, client, "d-1", "no")
    first = await end_proposal(till.database, till.clock, proposal.id, decision)
    again = await end_proposal(till.database, till.clock, proposal.id, decision)
    assert (first.proposal, first.replayed, again.replayed) == (again.proposal, False, True)
    assert (first.proposal.state, first.proposal.decision_note) == (verdict, "no")
    await till.refuse(approval(till, proposal, client=THIRD), RefusalCode.PROPOSAL_DECIDED, "proposalId")
    await till.refuse(
        approval(till, proposal, client=client, key="d-1"), RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey"
    )
    assert await till.available() == 0


async def test_an_approval_sent_again_finds_the_first(till: Till) -> None:
    proposal = await proposed(till, 500)
    first = await till.accept(approval(till, proposal, note="seen"))
    before = await contents(till.database)
    till.clock.forward(hours=1)
    again = await till.accept(approval(till, proposal, note="seen"))
    assert (again.command, again.replayed) == (first.command, True)
    assert await contents(till.database) == before
    await till.refuse(approval(till, proposal, note="other"), RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")
    await till.refuse(approval(till, proposal, key="a-2", note="seen"), RefusalCode.PROPOSAL_DECIDED, "proposalId")
    other = await proposed(till, 1, key="p-2")
    await till.refuse(approval(till, other, note="seen"), RefusalCode.IDEMPOTENCY_CONFLICT, "idempotencyKey")


async def test_a_proposal_sent_again_finds_the_first_and_other_content_conflicts(till: Till) -> None:
    proposal = await proposed(till, 500)
    before = await contents(till.database)
    assert await proposed(till, 500) == proposal
    with pytest.raises(Refused) as caught:
        await proposed(till, 501)
    assert caught.value.code == RefusalCode.IDEMPOTENCY_CONFLICT
    for points in (0, 10**9 + 1, -(10**9) - 1):
        with pytest.raises(Refused) as caught:
            await proposed(till, points, key="other")
        assert caught.value.code == RefusalCode.AMOUNT_INVALID
    assert await contents(till.database) == before


async def test_two_approvals_in_one_batch_post_once(till: Till) -> None:
    proposal = await proposed(till, 500)
    outcomes = await till.queue.post_many(
        [approval(till, proposal, client=client, key=f"a-{client}") for client in (APPROVER, THIRD)]
    )
    assert codes(outcomes) == {"posted": 1, "PROPOSAL_DECIDED": 1}
    assert await till.available() == 500


@pytest.mark.parametrize("step", ["lock_accounts", "load_members", "write_batch"])
async def test_two_processes_approve_at_once_and_one_does_it(
    till: Till, database: Database, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    proposal = await proposed(till, 500)
    async with queue_on(database, till.configuration) as other:
        met = await one_inside_the_other(
            monkeypatch,
            step,
            till.queue,
            till.queue.post(approval(till, proposal, client=APPROVER, key="a-1")),
            other.queue.post(approval(till, proposal, client=THIRD, key="a-2")),
        )
    assert met.was_stopped
    assert isinstance(met.held, Posted)
    assert isinstance(met.meanwhile, Refusal)
    assert met.meanwhile.code == RefusalCode.PROPOSAL_DECIDED
    assert await till.available() == 500
    assert await state(till, proposal) == ("APPROVED", APPROVER, "a-1")


async def test_many_approvals_of_many_proposals_at_once(till: Till, database: Database) -> None:
    made = [await proposed(till, 10, key=f"p-{number}") for number in range(8)]
    async with queue_on(database, till.configuration) as other:
        outcomes = await asyncio.gather(
            *(
                one.queue.post(approval(till, proposal, client=client, key=f"{client}-{proposal.id}"))
                for proposal in made
                for one, client in ((till, APPROVER), (other, THIRD))
            )
        )
    assert codes(outcomes) == {"posted": 8, "PROPOSAL_DECIDED": 8}
    assert await till.available() == 80


async def test_terms_of_the_day_of_approval_price_what_is_given(till: Till) -> None:
    proposal = await proposed(till, 10)
    till.clock.to(1999, 1, 1)
    await till.refuse(approval(till, proposal), RefusalCode.TERMS_MISSING, "occurredAt")

"""Four eyes over HTTP: clients of the operator propose and approve, each kind under its own scope."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.proposing import describe_disputes, describe_proposals, propose_and_describe
from api.runtime import Runtime
from domain.database import Database
from domain.errors import ConfigurationError, Refused
from tests.api.graphql_shop import Caller, Shop, open_shop
from tests.domain.books import contents

ADJUST = """
mutation ($input: ProposeAdjustmentInput!) { proposeAdjustment(input: $input) { __typename
  ... on ProposalReceipt { replayed idempotencyKey proposal {
    id kind state partner { code } amount { amount } points statementLabel lineKind until reason note
    proposedBy decidedBy decisionNote } }
  ... on Refusal { code field } } }
"""
POINTS = """
mutation ($input: ProposePointsInput!) { proposePointsAdjustment(input: $input) { __typename
  ... on ProposalReceipt { proposal { id points member { balance { available } } } } ... on Refusal { code field } } }
"""
OVERDRAFT = """
mutation ($input: ProposeOverdraftInput!) { proposeOverdraft(input: $input) { __typename
  ... on ProposalReceipt { proposal { id } } ... on Refusal { code field } } }
"""
WRITE_OFF = """
mutation ($input: ProposeWriteOffInput!) { proposeWriteOff(input: $input) { __typename
  ... on ProposalReceipt { proposal { id } } ... on Refusal { code field } } }
"""
LIST = """
query ($filter: ProposalFilter, $after: String) { proposals(filter: $filter, first: 1, after: $after) {
  nodes { kind state } pageInfo { hasNextPage endCursor } } }
"""
MONEY = ("settlement:operate",)


def decision(name: str) -> str:
    """A mutation that decides a proposal."""
    return f"""
    mutation ($input: DecideProposalInput!) {{ {name}(input: $input) {{ __typename
      ... on ProposalReceipt {{ replayed proposal {{ state decidedBy decisionNote transaction {{
        kind points idempotencyKey partner {{ code }} reason }} }} }}
      ... on Refusal {{ code field idempotencyKey }} }} }}
    """


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        yield opened


async def partner_id(caller: Caller, code: str) -> str:
    found = await caller.run("query ($code: String) { partner(code: $code) { id } }", {"code": code})
    return str(found["partner"]["id"])


async def propose(caller: Caller, key: str = "p-1", **changes: Any) -> Any:
    """Proposes a credit of 5.00 for the fuel partner."""
    given = {
        "idempotencyKey": key,
        "partnerId": await partner_id(caller, "fuel"),
        "amount": {"amount": "5.00", "currency": "EUR"},
        "reason": "CORRECTION",
        "note": "the letter of 3 March",
        **changes,
    }
    return (await caller.run(ADJUST, {"input": given}))["proposeAdjustment"]


async def decide(caller: Caller, name: str, proposal: str, key: str = "a-1", note: str | None = None) -> Any:
    """Decides a proposal."""
    given = {"idempotencyKey": key, "proposalId": proposal, "note": note}
    return (await caller.run(decision(name), {"input": given}))[name]


async def test_one_client_proposes_and_another_approves(shop: Shop) -> None:
    first, second = await shop.caller(None, MONEY), await shop.caller(None, MONEY)
    answer = await propose(first)
    client_ids = [(await one.run("{ viewer { clientId } }"))["viewer"]["clientId"] for one in (first, second)]
    proposal = answer["proposal"]
    assert {**proposal, "id": None} == {
        "id": None,
        "kind": "ADJUSTMENT",
        "state": "PROPOSED",
        "partner": {"code": "fuel"},
        "amount": {"amount": "5.000000"},
        "points": None,
        "statementLabel": None,
        "lineKind": None,
        "until": None,
        "reason": "CORRECTION",
        "note": "the letter of 3 March",
        "proposedBy": client_ids[0],
        "decidedBy": None,
        "decisionNote": None,
    }
    assert (await propose(first))["replayed"]
    assert (await propose(first, note="another"))["code"] == "IDEMPOTENCY_CONFLICT"
    before = await contents(shop.services.database)
    refusal = await decide(first, "approveProposal", proposal["id"])
    assert refusal == {"__typename": "Refusal", "code": "FOUR_EYES", "field": "proposalId", "idempotencyKey": "a-1"}
    assert (await decide(first, "rejectProposal", proposal["id"]))["code"] == "FOUR_EYES"
    assert (await decide(second, "withdrawProposal", proposal["id"]))["code"] == "FOUR_EYES"
    assert (await decide(second, "approveProposal", "nonsense"))["code"] == "PROPOSAL_NOT_FOUND"
    assert await contents(shop.services.database) == before
    approved = await decide(second, "approveProposal", proposal["id"], note="checked")
    assert (approved["replayed"], approved["proposal"]) == (
        False,
        {"state": "APPROVED", "decidedBy": client_ids[1], "decisionNote": "checked", "transaction": None},
    )
    assert (await decide(second, "approveProposal", proposal["id"], note="checked"))["replayed"]
    assert (await decide(second, "rejectProposal", proposal["id"], "r-1"))["code"] == "PROPOSAL_DECIDED"
    statement = '{ settlementStatement(label: "2017-03") { lines { kind exact } net { amount } } }'
    fuel = await shop.caller("fuel", ["settlement:read", "partner:read"])
    assert (await fuel.run(statement))["settlementStatement"] == {
        "lines": [{"kind": "ADJUSTMENT", "exact": "5.000000"}],
        "net": {"amount": "5.00"},
    }


async def test_every_kind_needs_its_own_scope(shop: Shop) -> None:
    everything = await shop.caller(None, ("settlement:operate", "points:adjust", "program:write"))
    await (await shop.caller()).enroll()
    fuel = await partner_id(everything, "fuel")
    common = {"partnerId": fuel, "reason": "GOODWILL", "note": "so"}
    points = {"idempotencyKey": "p-points", "member": {"card": "card-1"}, "points": 100, **common}
    made = {
        "settlement:operate": (await propose(everything))["proposal"]["id"],
        "points:adjust": (await everything.run(POINTS, {"input": points}))["proposePointsAdjustment"]["proposal"]["id"],
    }
    for scope, proposal in made.items():
        for other in {"settlement:operate", "points:adjust", "program:write"} - {scope}:
            stranger = await shop.caller(None, (other,))
            for name in ("approveProposal", "rejectProposal", "withdrawProposal"):
                given = {"input": {"idempotencyKey": "x", "proposalId": proposal}}
                [error] = await stranger.errors(decision(name), given)
                assert error["extensions"]["code"] == "FORBIDDEN"
                assert scope in error["message"]
        approved = await decide(await shop.caller(None, (scope,)), "approveProposal", proposal, f"a-{scope}")
        assert approved["proposal"]["state"] == "APPROVED"


async def test_points_are_given_through_the_queue_and_shown_as_the_operator_s(shop: Shop) -> None:
    grocer = await shop.caller()
    await grocer.enroll()
    first, second = [await shop.caller(None, ("points:adjust", "audit:read")) for _ in range(2)]
    given = {
        "idempotencyKey": "p-1",
        "member": {"card": "card-1"},
        "points": 250,
        "partnerId": await partner_id(grocer, "grocer"),
        "reason": "GOODWILL",
        "note": "the till was down",
    }
    answer = (await first.run(POINTS, {"input": given}))["proposePointsAdjustment"]["proposal"]
    assert (answer["points"], answer["member"]["balance"]["available"]) == (250, 0)
    unknown = {**given, "idempotencyKey": "p-2", "member": {"card": "card-9"}}
    assert (await first.run(POINTS, {"input": unknown}))["proposePointsAdjustment"]["code"] == "MEMBER_NOT_FOUND"
    for replayed in (False, True):
        approved = await decide(second, "approveProposal", answer["id"])
        assert approved["replayed"] == replayed
        assert approved["proposal"]["transaction"] == {
            "kind": "ADJUSTMENT",
            "points": 250,
            "idempotencyKey": None,
            "partner": {"code": "operator"},
            "reason": "GOODWILL",
        }
    balance = await grocer.run('{ member(by: {card: "card-1"}) { balance { available } } }')
    assert balance["member"]["balance"]["available"] == 250
    assert (await grocer.run("{ transactions { nodes { kind } } }"))["transactions"]["nodes"] == []


async def test_overdrafts_and_write_offs_are_refused_where_they_make_no_sense(shop: Shop) -> None:
    caller = await shop.caller(None, ("settlement:operate", "program:write"))
    given = {
        "idempotencyKey": "p-1",
        "partnerId": await partner_id(caller, "fuel"),
        "amount": {"amount": "5.00", "currency": "EUR"},
        "reason": "OTHER",
        "note": "so",
    }
    before = await contents(shop.services.database)
    overdraft = (await caller.run(OVERDRAFT, {"input": given}))["proposeOverdraft"]
    assert (overdraft["code"], overdraft["field"]) == ("INPUT_INVALID", "partnerId")  # says PARTIAL at its limit
    write_off = (await caller.run(WRITE_OFF, {"input": {**given, "label": "2017-03"}}))["proposeWriteOff"]
    assert (write_off["code"], write_off["field"]) == ("STATEMENT_NOT_FOUND", "label")
    assert await contents(shop.services.database) == before


async def test_proposals_are_listed_for_the_operator_alone(shop: Shop) -> None:
    caller, reader = await shop.caller(None, MONEY), await shop.caller(None, ("audit:read",))
    made = [await propose(caller, f"p-{number}") for number in range(3)]
    await decide(caller, "withdrawProposal", made[-1]["proposal"]["id"])
    seen, after = [], None
    while True:
        page = (await reader.run(LIST, {"after": after}))["proposals"]
        seen += [node["state"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert seen == ["WITHDRAWN", "PROPOSED", "PROPOSED"]
    for conditions, expected in (
        ({"state": "WITHDRAWN"}, 1),
        ({"kind": "POINTS"}, 0),
        ({"partnerId": await partner_id(reader, "fuel"), "state": "WITHDRAWN"}, 1),
        ({"partnerId": await partner_id(reader, "grocer")}, 0),
    ):
        assert len((await reader.run(LIST, {"filter": conditions}))["proposals"]["nodes"]) == expected
    for partner in ("fuel", "grocer"):
        [error] = await (await shop.caller(partner)).errors(LIST)
        assert error["extensions"]["code"] == "FORBIDDEN"


async def test_the_command_line_proposes_and_lists_and_approves_nothing(shop: Shop) -> None:
    services = shop.services
    runtime = Runtime(services.database, services.configuration, services.clock)
    asked: dict[str, Any] = {
        "amount": "-7.50",
        "note": "a lost terminal",
        "key": "k-1",
        "reason": "AGREEMENT",
        "corrects": None,
    }
    made = await propose_and_describe(runtime, "fuel", **asked)
    assert (made["kind"], made["partner"], made["amount"], made["state"], made["proposedBy"], made["replayed"]) == (
        "ADJUSTMENT",
        "fuel",
        "-7.500000",
        "PROPOSED",
        "command-line",
        False,
    )
    assert (await propose_and_describe(runtime, "fuel", **asked))["replayed"]
    assert [row["proposal"] for row in await describe_proposals(runtime, "PROPOSED")] == [made["proposal"]]
    assert await describe_proposals(runtime, "APPROVED") == []
    assert await describe_disputes(runtime, None) == []
    for changes, said in (
        ({"amount": "much"}, "must be a number"),
        ({"corrects": "2017-03:NOTHING"}, "no statement has a line"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            await propose_and_describe(runtime, "fuel", **{**asked, **changes})
    with pytest.raises(Refused) as refused:
        await propose_and_describe(runtime, "fuel", **{**asked, "key": "k-2", "corrects": "2017-03"})
    assert (refused.value.code, refused.value.field) == ("INPUT_INVALID", "lineKind")

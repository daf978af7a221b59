"""Documents about disputes, and the coalition of the worked example with its March closed."""

from typing import Any

from tests.api.graphql_shop import Caller

DISPUTE_FIELDS = """
  id state lineKind statementLabel reason note decisionNote decidedAt partner { code }
  amount { amount } withheld { amount } accepted { amount } transactions { reference }
"""
DISPUTE = f"""
mutation ($input: DisputeStatementInput!) {{ disputeStatement(input: $input) {{ __typename
  ... on DisputeReceipt {{ replayed dispute {{ {DISPUTE_FIELDS} }} }} ... on Refusal {{ code field message }} }} }}
"""
WITHDRAW = f"""
mutation ($input: WithdrawDisputeInput!) {{ withdrawDispute(input: $input) {{ __typename
  ... on DisputeReceipt {{ replayed dispute {{ {DISPUTE_FIELDS} }} }} ... on Refusal {{ code field }} }} }}
"""
DECIDE = """
mutation ($input: DecideDisputeInput!) { decideDispute(input: $input) { __typename
  ... on ProposalReceipt { replayed proposal { id kind reason amount { amount } statementLabel lineKind
    dispute { id state } } }
  ... on Refusal { code field } } }
"""
APPROVE = """
mutation ($input: DecideProposalInput!) { approveProposal(input: $input) { __typename
  ... on ProposalReceipt { replayed proposal { state dispute { state } } } ... on Refusal { code field } } }
"""
STATEMENT = """
query ($label: String!, $partner: ID) { settlementStatement(label: $label, partnerId: $partner) {
  net { amount } due { amount } withheld { amount } open { amount } document
  lines { kind exact priorPeriodExact billed { amount } }
  disputes { id state amount { amount } }
  adjustments { reason amount { amount } note statementLabel lineKind dispute { id } } } }
"""
LIST = """
query ($filter: DisputeFilter, $after: String) { disputes(filter: $filter, first: 2, after: $after) {
  nodes { id state partner { code } } pageInfo { hasNextPage endCursor } } }
"""


async def dispute(caller: Caller, key: str, line: str, **changes: Any) -> Any:
    """Disputes a line of March."""
    given = {
        "idempotencyKey": key,
        "label": "2017-03",
        "lineKind": line,
        "reasonCode": "WRONG_TERMS",
        "note": "the contract says otherwise",
        **changes,
    }
    return (await caller.run(DISPUTE, {"input": given}))["disputeStatement"]


async def withdraw(caller: Caller, key: str, dispute_id: str) -> Any:
    """Withdraws a dispute."""
    given = {"idempotencyKey": key, "disputeId": dispute_id}
    return (await caller.run(WITHDRAW, {"input": given}))["withdrawDispute"]


async def decide(caller: Caller, key: str, dispute_id: str, outcome: str, amount: str | None = None) -> Any:
    """Proposes an outcome."""
    money = None if amount is None else {"amount": amount, "currency": "EUR"}
    given = {"idempotencyKey": key, "disputeId": dispute_id, "outcome": outcome, "amount": money, "note": "our answer"}
    return (await caller.run(DECIDE, {"input": given}))["decideDispute"]


async def approve(caller: Caller, key: str, proposal_id: str) -> Any:
    """Approves a proposal."""
    given = {"idempotencyKey": key, "proposalId": proposal_id}
    return (await caller.run(APPROVE, {"input": given}))["approveProposal"]


async def statement(caller: Caller, label: str = "2017-03", partner: str | None = None) -> Any:
    """A statement; an operator names the partner by its code."""
    partner_id = None
    if partner is not None:
        found = await caller.run("query ($code: String) { partner(code: $code) { id } }", {"code": partner})
        partner_id = found["partner"]["id"]
    return (await caller.run(STATEMENT, {"label": label, "partner": partner_id}))["settlementStatement"]


def euros(amount: str) -> dict[str, str]:
    return {"amount": amount, "currency": "EUR"}

"""Another process of the operator: approves a payout of a deposit while the test approves another, and says how.

Run as ``python -m tests.settlement.paying_out URL PROPOSAL``; it answers with a line.
"""

import asyncio
import json
import sys

from sqlalchemy import make_url

from domain.database import Database, DatabaseUrls
from domain.errors import Refused
from domain.proposals import Decision, ProposalState
from settlement.deposits import approve_payout
from tests.settlement.four_eyes import THIRD, standing
from tests.settlement.rows import noon


async def _approve(url: str, proposal_id: int) -> None:
    parsed = make_url(url)
    database = Database(DatabaseUrls(parsed, parsed, parsed))
    decision = Decision(ProposalState.APPROVED, THIRD, f"there-{proposal_id}", None)
    try:
        step = await approve_payout(database, standing(noon(2017, 3, 28)), proposal_id, decision)
        answer = str(step.proposal.state)
    except Refused as refused:
        answer = refused.code
    await database.dispose()
    print(json.dumps(answer), flush=True)  # noqa: T201 (how the processes talk)


if __name__ == "__main__":
    asyncio.run(_approve(sys.argv[1], int(sys.argv[2])))

"""Another process of the operator: approves payouts of a deposit while the test does, and tells how each went.

Run as ``python -m tests.settlement.paying_out URL IDS``; it waits for a line before it begins and answers with one.
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


async def _approve(url: str, ids: list[int]) -> None:
    parsed = make_url(url)
    database = Database(DatabaseUrls(parsed, parsed, parsed))
    async with database.posting():
        print("ready", flush=True)  # noqa: T201 (how the processes talk)
        sys.stdin.readline()
    answers = []
    for proposal_id in ids:
        decision = Decision(ProposalState.APPROVED, THIRD, f"there-{proposal_id}", None)
        try:
            await approve_payout(database, standing(noon(2017, 3, 28)), proposal_id, decision)
            answers.append("paid")
        except Refused as refused:
            answers.append(refused.code)
    await database.dispose()
    print(json.dumps(answers), flush=True)  # noqa: T201 (how the processes talk)


if __name__ == "__main__":
    asyncio.run(_approve(sys.argv[1], json.loads(sys.argv[2])))

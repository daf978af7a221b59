"""Two processes of the operating system on one database."""

import asyncio
import json
import sys
from collections import Counter

from sqlalchemy import URL

from settlement.verifying import verify
from tests.domain.conftest import OpenTill
from tests.domain.other_process import post_in_small_batches
from tests.domain.test_negative_balance import street
from tests.domain.tills import Till
from tests.tidy import ROOT


async def beside_another(till: Till, url: URL, here: str, there: str) -> tuple[Counter[str], Counter[str]]:
    """What became of the work of this process, and of that of another at the same moment."""
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.domain.other_process",
        url.render_as_string(hide_password=False),
        there,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    assert await other.stdout.readline() == b"ready\n"
    other.stdin.write(b"go\n")
    await other.stdin.drain()
    posted = await post_in_small_batches(till, here)
    there_posted = Counter(json.loads(await other.stdout.readline()))
    assert await other.wait() == 0
    return posted, there_posted


async def test_two_processes_that_post_the_same_post_it_once(till: Till, database_url: URL) -> None:
    here, there = await beside_another(till, database_url, "contested", "contested")

    # 20 enrolments, 200 purchases, 20 returns, and of 40 burns of 60 points the 20 that 100 points carry.
    assert (here + there)["posted"] == 20 + 200 + 20 + 20
    assert here["posted"] + here["replayed"] + here["INSUFFICIENT_POINTS"] == 280
    assert there["posted"] + there["replayed"] + there["INSUFFICIENT_POINTS"] == 280
    assert await till.rows("SELECT kind, count(*) FROM command GROUP BY 1 ORDER BY 1") == [
        ("BURN", 20),
        ("EARN", 200),
        ("ENROLL", 22),
        ("REVERSAL", 20),
    ]
    assert await till.rows("SELECT DISTINCT available FROM account ORDER BY 1") == [(0,), (36,)]


async def test_two_processes_on_an_account_that_owes(open_till: OpenTill, database_url: URL) -> None:
    till = await open_till(street())
    await till.accept_all([till.purchase(f"k-{number}", "100.00") for number in range(10)])
    await till.accept(till.burn("b", 1000))
    here, there = await beside_another(till, database_url, "returned", "earned")

    # Ten returns of 100 points, and ninety purchases of 10, which all pay back what is owed: whoever waits for whom.
    assert (here, there) == ({"posted": 50}, {"posted": 50})
    [[available, owed]] = await till.rows("SELECT available, owed FROM account ORDER BY id LIMIT 1")
    assert (available, owed) == (0, 100)
    assert await till.rows("SELECT sum(points), sum(open_points) FROM debt") == [(1000, 100)]
    assert await till.one("SELECT sum(points) FROM transaction WHERE kind = 'REPAY'") == -900
    assert (await verify(till.database, till.clock)).holds

"""Two processes of the operating system on one database."""

import asyncio
import json
import sys
from collections import Counter

from sqlalchemy import URL

from tests.domain.other_process import post_in_small_batches
from tests.domain.tills import Till
from tests.tidy import ROOT


async def test_two_processes_that_post_the_same_post_it_once(till: Till, database_url: URL) -> None:
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.domain.other_process",
        database_url.render_as_string(hide_password=False),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    assert await other.stdout.readline() == b"ready\n"
    other.stdin.write(b"go\n")
    await other.stdin.drain()
    here = await post_in_small_batches(till)
    there = Counter(json.loads(await other.stdout.readline()))
    assert await other.wait() == 0

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

"""Posting goes on while a period closes: nothing is lost between periods, nothing lands in a closed one."""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import URL, text

from domain.database import Database
from domain.errors import RefusalCode, Refused
from settlement.closing import ClosedPeriod, close_period
from settlement.verifying import verify
from tests.factories import an_enrolment, apply_toml, open_till
from tests.settlement.poster import READY, running_clock

START_SECONDS = 2
POST_SECONDS = 8
FIRST_DAY = datetime(2017, 1, 15, 12, tzinfo=UTC)

COUNTS_SQL = text("SELECT idempotency_key, period_id, recorded_at FROM command WHERE kind = 'EARN'")
POSITIONS_SQL = text("SELECT sum(entries)::bigint FROM position WHERE period_id = :period AND kind = 'POOL'")


async def test_two_processes_post_across_the_border_while_the_period_closes(
    database: Database, database_url: URL
) -> None:
    configuration = await apply_toml(database)
    calendar = configuration.programme.calendar
    january = calendar.span(calendar.containing(FIRST_DAY))
    async with open_till(database, FIRST_DAY) as till:
        await till.post(an_enrolment(configuration))
    url = database_url.render_as_string(hide_password=False)
    posters = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.settlement.poster", url, f"p{number}", january.closes_at.isoformat(),
            str(POST_SECONDS), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for number in range(2)
    ]  # fmt: skip
    for poster in posters:
        assert poster.stdout is not None
        assert (await poster.stdout.readline()).decode().strip() == READY
    epoch = str(int(time.time()) + START_SECONDS)
    clock = running_clock(january.closes_at, epoch)
    for poster in posters:
        assert poster.stdin is not None
        poster.stdin.write(f"{epoch}\n".encode())
        await poster.stdin.drain()
    refusals: list[RefusalCode] = []
    closed: ClosedPeriod | None = None
    while closed is None:
        try:
            closed = await close_period(database, clock, january.label, "close")
        except Refused as refused:
            refusals.append(refused.code)
            await asyncio.sleep(0.01)
    closed_at = clock()
    assert set(refusals) == {RefusalCode.PERIOD_NOT_ENDED}, "closing was tried before and after the border"
    assert closed_at < january.closes_at + timedelta(seconds=POST_SECONDS), "the close was over while they posted"
    printed = [(await poster.communicate())[0] for poster in posters]
    acknowledged = {key: period for line in printed for key, period in json.loads(line).items()}
    async with database.posting() as connection:
        rows = (await connection.execute(COUNTS_SQL)).all()
        counted = (await connection.execute(POSITIONS_SQL, {"period": january.id})).scalar()
    assert {row.idempotency_key: row.period_id for row in rows} == acknowledged
    assert len(rows) == len(acknowledged)
    in_january = [row for row in rows if row.period_id == january.id]
    assert in_january
    assert len(in_january) < len(rows), "both sides of the border were posted to"
    assert all(row.recorded_at < january.closes_at for row in in_january)
    assert counted == len(in_january)
    assert closed.period.certificate is not None
    assert all(check.holds for check in closed.period.certificate.checks)
    report = await verify(database, clock)
    assert report.holds, report.checks

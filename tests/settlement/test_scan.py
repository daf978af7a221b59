"""What a close of a large period recomputes: a fair share of the fingerprints, another one in each period."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domain.database import Database
from settlement import scan
from settlement.scan import scan_ledger

COMMANDS = 1_600
STRIDE = 4
"""Ids of commands lie a few apart, since their movements and lots take ids of the same blocks."""

INSERT_SQL = f"""
INSERT INTO command (id, partner_id, idempotency_key, fingerprint, kind, account_id, member_id, store_id,
                     reference_unique, whole, created_member, declined_points, occurred_at, recorded_at, period_id)
SELECT {{first}} + n * {STRIDE}, 1, '{{period}}-' || n, '', 'EARN', 1, 1, 0, false, false, false, 0, now(), now(),
       {{period}}
  FROM generate_series(1, {COMMANDS}) AS n
"""


@pytest.mark.parametrize("period_id", [24_201, 24_202, 24_203])
async def test_one_fingerprint_in_sixteen_is_recomputed_whatever_the_ids(
    database: Database,
    tamper: Callable[[str], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    period_id: int,
) -> None:
    await tamper(INSERT_SQL.format(first=period_id * 10_000, period=period_id))
    monkeypatch.setattr(scan, "FINGERPRINTS_ALL_MAX", -1)
    async with database.posting("REPEATABLE READ") as connection:
        [group] = (await scan_ledger(database, connection, period_id)).commands
    assert group.commands == COMMANDS
    assert COMMANDS / 16 / 1.5 < group.recomputed < COMMANDS / 16 * 1.5
    # None of these fingerprints is right, so that all recomputed ones are found out.
    assert group.altered == group.recomputed

    monkeypatch.setattr(scan, "FINGERPRINTS_ALL_MAX", COMMANDS)
    async with database.posting("REPEATABLE READ") as connection:
        [group] = (await scan_ledger(database, connection, None)).commands
    assert group.altered == group.recomputed == COMMANDS


async def test_what_is_read_beside_a_scan_is_of_its_snapshot(
    database: Database, tamper: Callable[[str], Awaitable[None]]
) -> None:
    counted = text("SELECT count(*) FROM command")
    async with database.posting("REPEATABLE READ") as connection:
        assert (await connection.execute(counted)).scalar_one() == 0
        await tamper(INSERT_SQL.format(first=1, period=24_201))
        async with database.beside(connection) as other:
            assert (await other.execute(counted)).scalar_one() == 0
    async with database.posting() as connection:
        assert (await connection.execute(counted)).scalar_one() == COMMANDS


@pytest.mark.parametrize("statement", ["MOVEMENTS_SQL", "LOTS_SQL"])
async def test_a_scan_fails_with_its_own_error_whichever_half_it_is_in(
    database: Database, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(scan, statement, text("SELECT 1 / 0"))
    with pytest.raises(DBAPIError, match="division by zero"):
        async with database.posting("REPEATABLE READ") as connection:
            await scan_ledger(database, connection, 24_201)
    monkeypatch.undo()
    async with database.posting("REPEATABLE READ") as connection:
        assert (await scan_ledger(database, connection, 24_201)).lots == []

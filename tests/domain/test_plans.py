"""How the server plans the statements of a batch: look-ups stay look-ups while the tables grow from nothing."""

from collections.abc import Awaitable, Callable

from sqlalchemy import text

from domain.account_loading import MERGED_WITH_SQL
from domain.database import Database
from domain.loading import ORIGINALS_SQL

ONE_SQL = text("SELECT CAST(:number AS integer)")
PLANS_SQL = text("SELECT custom_plans + generic_plans FROM pg_prepared_statements WHERE statement LIKE 'SELECT CAST(%'")
LISTS = ("ids", "keys", "references", "original_partners", "original_references", "original_kinds", "original_stores")
NOTHING: dict[str, object] = {**{name: [] for name in LISTS}, "key_partners": "{}", "reference_partners": "{}"}


async def test_a_statement_is_planned_anew_each_time_its_use_has_doubled(database: Database) -> None:
    used = []
    async with database.batch() as connection:
        for number in range(8 + 16 + 32 + 1):
            assert (await connection.execute(ONE_SQL, {"number": number})).scalar_one() == number
            used.append((await connection.execute(PLANS_SQL)).scalar_one())
    assert used == [*range(1, 9), *range(1, 17), *range(1, 33), 1]


async def test_a_table_without_statistics_is_not_read_whole(database: Database) -> None:
    async with database.batch() as connection:
        explained = await connection.execute(text(f"EXPLAIN (GENERIC_PLAN) {ORIGINALS_SQL.text}"), NOTHING)
        plan = "\n".join(line for (line,) in explained.all())
    assert " on command " in plan
    assert "Seq Scan on command " not in plan


async def test_undone_merges_of_a_member_are_found_without_reading_all(
    database: Database, tamper: Callable[[str], Awaitable[None]]
) -> None:
    await tamper("INSERT INTO member_merge SELECT n, n + 1, n, n + 1, n, n FROM generate_series(1, 20000) AS n")
    await tamper("ANALYZE member_merge")
    async with database.batch() as connection:
        explained = await connection.execute(text(f"EXPLAIN {MERGED_WITH_SQL.text}"), {"members": [17]})
        plan = "\n".join(line for (line,) in explained.all())
    assert "member_merge_duplicate" in plan
    assert "Seq Scan on member_merge" not in plan

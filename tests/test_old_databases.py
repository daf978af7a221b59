"""Databases of earlier versions: what was booked and closed then is whole after the migration, and goes on."""

import json

from alembic import command
from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from api.migrations import ROLES_SQL, alembic_config, migrate_async
from domain.database import OWNER_ROLE, Database, DatabaseUrls
from settlement.closing import close_period
from settlement.verifying import verify
from tests.conftest import run_as_superuser
from tests.domain.conftest import OpenTill, open_till
from tests.domain.tills import APRIL, MARCH, Till
from tests.settlement.test_prepaid import DUE, FLOAT_USED, march, paid_and_awarded

__all__ = ["open_till"]

OLD = "0027"
"""The last version whose statements knew no PREPAID line, and whose rows had no seals."""

TABLES = """
    SELECT c.relname, string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum)
      FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname !~ '^(alembic|pgqueuer)'
     GROUP BY c.relname
"""


async def test_a_database_with_closed_periods_is_migrated_and_closes_on(
    open_till: OpenTill, database_url: URL, server: URL
) -> None:
    """Two awards on money paid in before: March is closed by the old version, April still open then."""
    till = await paid_and_awarded(open_till)
    async with till.database.posting() as connection:
        await connection.execute(text(f"UPDATE period SET credits_floats = false WHERE id = {MARCH}"))
    await march(till)
    await till.accept(till.purchase("k2", "100.00"))

    url = await at_old_version(server, database_url)
    await migrate_async(url)
    migrated = Database(DatabaseUrls(url, url, url))
    old, till.database = till.database, migrated
    try:
        assert await failing(till) == {}
        assert await till.rows(DUE, id=MARCH) == [(-660, -660)]
        till.clock.to(2017, 5, 3)
        await close_period(migrated, till.clock, "2017-04", "close-2017-04")
        assert await till.rows(FLOAT_USED) == [(APRIL, "PREPAID", 6_600_000), (APRIL, None, 1_100_000)]
        assert await till.rows(DUE, id=APRIL) == [(660, 660)]
        assert await failing(till) == {}
        await changed(url, "UPDATE lot SET expires_at = expires_at + interval '1 day'")
        await changed(url, "UPDATE member SET channel = 'APP' WHERE id = (SELECT min(id) FROM member)")
        assert set(await failing(till)) == {2, 3}
    finally:
        till.database = old
        await migrated.dispose()
        await run_as_superuser(server, f"DROP DATABASE {url.database} WITH (FORCE)")


async def failing(till: Till) -> dict[int, str]:
    report = await verify(till.database, till.clock)
    return {check.number: check.detail for check in report.checks if not check.holds}


async def at_old_version(server: URL, present: URL) -> URL:
    """A database of the old version with the rows of the present one, as far as it has columns for them."""
    name = f"{present.database}_old"
    await run_as_superuser(server, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    url = server.set(database=name)
    source, target = (create_async_engine(one, poolclass=NullPool) for one in (present, url))
    async with source.connect() as reading, target.begin() as writing:
        await writing.exec_driver_sql(ROLES_SQL)
        await writing.exec_driver_sql(f"SET LOCAL ROLE {OWNER_ROLE}")
        await writing.run_sync(_upgrade_to_old)
        await writing.exec_driver_sql("RESET ROLE")
        await writing.execute(text("SET LOCAL session_replication_role = replica"))
        for table, columns in (await writing.execute(text(TABLES))).all():
            await _copy(reading, writing, table, columns)
    await source.dispose()
    await target.dispose()
    return url


def _upgrade_to_old(connection: Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, OLD)


async def _copy(reading: AsyncConnection, writing: AsyncConnection, table: str, columns: str) -> None:
    rows = (
        (await reading.execute(text(f"SELECT to_jsonb(r) FROM (SELECT {columns} FROM {table}) AS r"))).scalars().all()
    )
    await writing.execute(text(f"DELETE FROM {table}"))
    await writing.execute(
        text(
            f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE"
            f' SELECT {columns} FROM jsonb_populate_recordset(NULL::"{table}", CAST(:rows AS jsonb))'
        ),
        {"rows": json.dumps(rows)},
    )


async def changed(url: URL, statement: str) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(text(statement))
    await engine.dispose()

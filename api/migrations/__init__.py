"""Schema migrations: forward only, plain SQL, run by the owner role."""

import asyncio
from importlib import resources
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from domain.database import OWNER_ROLE, POSTING_ROLE, READING_ROLE

MIGRATION_LOCK = 7_201_903_115
"""Advisory lock that lets one process migrate while the others wait."""

ROLES_SQL = f"""
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['{OWNER_ROLE}', '{POSTING_ROLE}', '{READING_ROLE}'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', wanted);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- another database of the same server is being migrated at this moment
        END;
        -- Where each role has a login of its own, the owner's migrates and needs no other role.
        IF current_user <> '{OWNER_ROLE}' AND NOT pg_has_role(current_user, wanted, 'SET') THEN
            EXECUTE format('GRANT %I TO current_user', wanted);
        END IF;
    END LOOP;
    IF has_database_privilege(current_database(), 'CREATE WITH GRANT OPTION') THEN
        EXECUTE format('GRANT CREATE, CONNECT ON DATABASE %I TO {OWNER_ROLE}', current_database());
    END IF;
    IF has_schema_privilege('public', 'CREATE WITH GRANT OPTION') THEN
        GRANT USAGE, CREATE ON SCHEMA public TO {OWNER_ROLE};
    END IF;
END $$
"""


def alembic_config() -> Any:
    """Alembic's configuration for this package, without a file."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(str(resources.files("api.migrations")))))
    return config


def head_revision() -> str:
    """The revision that a current database has: the last of the numbered SQL files.

    Found by name, because every start asks and Alembic takes most of a second to load.
    """
    return max(path.name.partition("_")[0] for path in resources.files("api.migrations").joinpath("sql").iterdir())


def sql_file(name: str) -> str:
    """The text of one migration's SQL."""
    return resources.files("api.migrations").joinpath("sql", name).read_text(encoding="utf-8")


def run_sql_file(operations: Any, name: str) -> None:
    """Runs one migration's SQL inside the migration's transaction; offline, prints it."""
    script = sql_file(name)
    if operations.get_context().as_sql:
        operations.execute(text(script.replace(":", r"\:")))
        return
    # The driver's own execute takes several statements at once; SQLAlchemy's prepares, which takes one.
    operations.get_bind().connection.dbapi_connection.run_async(lambda driver: driver.execute(script))


async def current_revision(url: URL) -> str | None:
    """The revision the database is at; None when it was never migrated."""
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            if (await connection.execute(text("SELECT to_regclass('alembic_version')"))).scalar() is None:
                return None
            revision: str | None = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
            return revision
    finally:
        await engine.dispose()


def migrate(url: URL) -> None:
    """Brings the database to the head revision; creates the three roles where the login may and they are missing."""
    asyncio.run(migrate_async(url))


async def migrate_async(url: URL) -> None:
    """As ``migrate``, inside a running loop."""
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            await connection.exec_driver_sql(ROLES_SQL)
            await connection.exec_driver_sql(f"SET LOCAL ROLE {OWNER_ROLE}")
            # A migration that waits behind a long transaction would stop every till behind it.
            await connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
            await connection.exec_driver_sql("SET LOCAL statement_timeout = '10min'")
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

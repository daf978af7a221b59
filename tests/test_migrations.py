"""Migrations: one line of history, from empty to head, linted, and what they create that no model declares."""

import asyncio
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from api.migrations import alembic_config, current_revision, head_revision, migrate_async
from domain.database import POSTING_ROLE, READING_ROLE
from domain.ledger import (
    AWARD_WAITS,
    HASHED_AWARD_COLUMNS,
    HASHED_COMMAND_COLUMNS,
    HASHED_LOT_COLUMNS,
    HASHED_PARTNER_ENTRY_COLUMNS,
    HASHED_TRANSACTION_COLUMNS,
    LOT_ENDS,
)
from tests.conftest import run_as_superuser

SQUAWK = Path(sys.executable).with_name("squawk")
NOT_FOR_EMPTY_TABLES = (
    # Each of these protects a table that is in use; the first migrations create all they touch.
    "require-concurrent-index-creation,constraint-missing-not-valid,adding-foreign-key-constraint,prefer-robust-stmts,"
    "require-timeout-settings,"  # set by api.migrations around every migration
    "prefer-bigint-over-int,"  # configuration tables stay far below two thousand million rows
    "prefer-identity,"  # PgQueuer's tables are as PgQueuer declares them
    "ban-drop-not-null,"  # the programme's columns are read by this application alone
    "ban-drop-constraint,"  # a list of kinds grows by a wider check that takes the place of the old one
    "require-concurrent-index-deletion,"  # so does an index, while the table is new
    "prefer-text-field"  # Alembic's own table
)


def offline_sql() -> str:
    """Every migration as SQL text, from nothing to head."""
    config = alembic_config()
    printed = StringIO()
    config.output_buffer = printed
    command.upgrade(config, "head", sql=True)
    return printed.getvalue()


async def rows(url: URL, query: str) -> list[tuple[object, ...]]:
    """The rows of a query as superuser."""
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(query))]
    finally:
        await engine.dispose()


def test_history_has_one_head_and_no_branch() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1
    assert script.get_current_head() == head_revision()


async def test_empty_database_reaches_head_and_a_second_run_changes_nothing(server: URL) -> None:
    name = "coalition_test_migrations"
    await run_as_superuser(server, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    url = server.set(database=name)
    assert await current_revision(url) is None
    await migrate_async(url)
    assert await current_revision(url) == head_revision()
    objects = "SELECT count(*) FROM pg_class"
    before = await rows(url, objects)
    await migrate_async(url)
    assert await rows(url, objects) == before
    await run_as_superuser(server, f"DROP DATABASE {name} WITH (FORCE)")


async def test_two_processes_may_migrate_at_once(server: URL) -> None:
    name = "coalition_test_migrations_race"
    await run_as_superuser(server, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    url = server.set(database=name)
    await asyncio.gather(*[migrate_async(url) for _ in range(3)])
    assert await current_revision(url) == head_revision()
    await run_as_superuser(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.skipif(not SQUAWK.exists(), reason="squawk is a development dependency")
def test_squawk_finds_nothing(tmp_path: Path) -> None:
    script = tmp_path / "upgrade.sql"
    script.write_text(offline_sql(), encoding="utf-8")
    done = subprocess.run(
        [SQUAWK, "--exclude", NOT_FOR_EMPTY_TABLES, "--pg-version", "18.0", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


async def test_functions_and_triggers_are_those_of_the_sql_files(database_url: URL) -> None:
    declared = offline_sql()
    functions = set(re.findall(r"CREATE FUNCTION (\w+)", declared))
    found = await rows(database_url, "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND NOT "
                       "EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')")  # fmt: skip
    assert {str(name) for (name,) in found} == functions
    triggers = set(re.findall(r"CREATE TRIGGER (\w+) \w+ [\w ]+? ON (\w+)", declared))
    found = await rows(
        database_url,
        "SELECT tgname, relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE NOT tgisinternal",
    )
    assert {(str(name), str(table)) for name, table in found} == triggers


async def test_every_constraint_and_index_has_a_chosen_name(database_url: URL) -> None:
    generated = await rows(
        database_url,
        """
        SELECT conrelid::regclass::text, conname FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'u', 'f')
           AND conname ~ '_(check|key|fkey)[0-9]*$'
        """,
    )
    assert generated == []


async def test_row_hashes_cover_every_column(database_url: URL) -> None:
    for table, hashed in (
        ("transaction", HASHED_TRANSACTION_COLUMNS),
        ("partner_entry", HASHED_PARTNER_ENTRY_COLUMNS),
        ("command", HASHED_COMMAND_COLUMNS),
        ("lot", (*HASHED_LOT_COLUMNS, *LOT_ENDS, "remaining", "reserved")),
        ("pending_award", (*HASHED_AWARD_COLUMNS, *AWARD_WAITS, "open_points", "reserved_micro")),
    ):
        columns = await rows(
            database_url, f"SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0"
        )
        assert {str(name) for (name,) in columns} == {*hashed, "row_hash"}, table


SEEN_BY_EVERYBODY = {"earn_rule", "store", "member", "member_identifier"}
"""Tables with a partner on each row that no policy bounds: what every customer is told, and members, of whom resolvers
choose the columns."""


async def test_whatever_belongs_to_a_partner_is_read_through_a_policy_about_its_viewer(database_url: URL) -> None:
    unbounded = await rows(
        database_url,
        """
        SELECT DISTINCT c.relname::text FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
         WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND NOT c.relrowsecurity
           AND a.attname IN ('partner_id', 'party_id', 'funder_id', 'issuer_id', 'redeemer_id')
           AND has_column_privilege('coalition_reading', c.oid, a.attnum, 'SELECT')
        """,
    )
    assert {str(name) for (name,) in unbounded} == SEEN_BY_EVERYBODY
    open_to_all = await rows(
        database_url,
        "SELECT tablename, policyname FROM pg_policies"
        " WHERE 'coalition_reading' = ANY(roles) AND qual NOT LIKE '%viewer()%'",
    )
    # It selects the plans that the viewer may see: the policy of ``budget_plan`` is the one about the viewer.
    assert open_to_all == [("budget", "sole_funder")]


async def test_application_roles_are_neither_owner_nor_superuser(database_url: URL) -> None:
    powers = await rows(
        database_url,
        f"""
        SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles
         WHERE rolname IN ('{POSTING_ROLE}', '{READING_ROLE}') ORDER BY 1
        """,
    )
    assert powers == [(POSTING_ROLE, False), (READING_ROLE, False)]
    owned = await rows(
        database_url,
        f"SELECT relname FROM pg_class WHERE relowner IN ('{POSTING_ROLE}'::regrole, '{READING_ROLE}'::regrole)",
    )
    assert owned == []


APPEND_ONLY = ("command", "transaction", "lot_use", "partner_entry", "statement", "statement_line")


async def test_ledger_is_append_only_by_privilege(database_url: URL) -> None:
    allowed = await rows(
        database_url,
        f"""
        SELECT table_name, privilege_type, grantee FROM information_schema.role_table_grants
         WHERE table_name IN {APPEND_ONLY} AND grantee IN ('{POSTING_ROLE}', '{READING_ROLE}')
           AND privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE')
        """,
    )
    assert allowed == []

"""The core: configuration, periods, members, ledger, budgets, statements, roles and row-level security."""

from alembic import op

from api.migrations import run_sql_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates everything of 0001_core.sql."""
    run_sql_file(op, "0001_core.sql")

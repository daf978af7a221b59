"""Defaults of partners: what covers a statement that is not paid, and what comes in later."""

from alembic import op

from api.migrations import run_sql_file

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Creates everything of 0024_defaults.sql."""
    run_sql_file(op, "0024_defaults.sql")

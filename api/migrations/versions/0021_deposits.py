"""Deposits of partners: what is required, what was paid in and out."""

from alembic import op

from api.migrations import run_sql_file

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Creates everything of 0021_deposits.sql."""
    run_sql_file(op, "0021_deposits.sql")

"""Pending points: how long the return window of a contract is, and partners whose purchases must be paid first."""

from alembic import op

from api.migrations import run_sql_file

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Creates everything of 0008_pending.sql."""
    run_sql_file(op, "0008_pending.sql")

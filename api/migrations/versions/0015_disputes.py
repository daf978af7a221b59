"""Disputes of lines of closed statements, and their outcome by four eyes."""

from alembic import op

from api.migrations import run_sql_file

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Creates everything of 0015_disputes.sql."""
    run_sql_file(op, "0015_disputes.sql")

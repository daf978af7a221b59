"""Merging members that are one person, and undoing it."""

from alembic import op

from api.migrations import run_sql_file

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Creates everything of 0016_merges.sql."""
    run_sql_file(op, "0016_merges.sql")

"""Reversals that arrive before what they reverse."""

from alembic import op

from api.migrations import run_sql_file

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Creates everything of 0020_early_reversals.sql."""
    run_sql_file(op, "0020_early_reversals.sql")

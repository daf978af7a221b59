"""Finding the merges of a member that were undone."""

from alembic import op

from api.migrations import run_sql_file

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    """Creates everything of 0034_undone_merges.sql."""
    run_sql_file(op, "0034_undone_merges.sql")

"""Prepaid floats in blocks, and the history of budget alerts."""

from alembic import op

from api.migrations import run_sql_file

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Creates everything of 0019_floats.sql."""
    run_sql_file(op, "0019_floats.sql")

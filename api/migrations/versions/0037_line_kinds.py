"""Kinds of positions and statement lines are those that exist."""

from alembic import op

from api.migrations import run_sql_file

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    """Creates everything of 0037_line_kinds.sql."""
    run_sql_file(op, "0037_line_kinds.sql")

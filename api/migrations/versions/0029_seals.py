"""Rows are sealed as they are written, so that verification names what was changed of them afterwards."""

from alembic import op

from api.migrations import run_sql_file

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Creates everything of 0029_seals.sql."""
    run_sql_file(op, "0029_seals.sql")

"""An adjustment may name the dispute that it answers."""

from alembic import op

from api.migrations import run_sql_file

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    """Creates everything of 0036_beyond_disputes.sql."""
    run_sql_file(op, "0036_beyond_disputes.sql")

"""Partners that are suspended or leave."""

from alembic import op

from api.migrations import run_sql_file

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Creates everything of 0022_leaving.sql."""
    run_sql_file(op, "0022_leaving.sql")

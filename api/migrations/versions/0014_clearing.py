"""The clearing calendar of periods, and payments."""

from alembic import op

from api.migrations import run_sql_file

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Creates everything of 0014_clearing.sql."""
    run_sql_file(op, "0014_clearing.sql")

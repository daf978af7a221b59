"""What periods that were closed before the line PREPAID drew on paid blocks is credited once."""

from alembic import op

from api.migrations import run_sql_file

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    """Creates everything of 0031_old_floats.sql."""
    run_sql_file(op, "0031_old_floats.sql")

"""Half months and weeks as settlement periods."""

from alembic import op

from api.migrations import run_sql_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Creates everything of 0006_periods.sql."""
    run_sql_file(op, "0006_periods.sql")

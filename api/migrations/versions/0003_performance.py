"""Facts of closed periods, stored once, from which partners' performance reports are summed."""

from alembic import op

from api.migrations import run_sql_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Creates everything of 0003_performance.sql."""
    run_sql_file(op, "0003_performance.sql")

"""Until when a partner may reverse what it posted."""

from alembic import op

from api.migrations import run_sql_file

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    """Creates everything of 0033_reversal_days.sql."""
    run_sql_file(op, "0033_reversal_days.sql")

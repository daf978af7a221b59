"""What happens to a point between earn and payment day: pending, held, moved between accounts, adjusted."""

from alembic import op

from api.migrations import run_sql_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Creates everything of 0004_point_life.sql."""
    run_sql_file(op, "0004_point_life.sql")

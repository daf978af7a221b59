"""What needs four eyes: adjustments of money and points, overdrafts, write-offs."""

from alembic import op

from api.migrations import run_sql_file

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Creates everything of 0009_four_eyes.sql."""
    run_sql_file(op, "0009_four_eyes.sql")

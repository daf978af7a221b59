"""Who owes points, oldest first."""

from alembic import op

from api.migrations import run_sql_file

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    """Creates everything of 0035_debtors.sql."""
    run_sql_file(op, "0035_debtors.sql")

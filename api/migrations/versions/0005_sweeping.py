"""What the worker needs: finding what is due, and the tables of PgQueuer."""

from alembic import op

from api.migrations import run_sql_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Creates everything of 0005_sweeping.sql."""
    run_sql_file(op, "0005_sweeping.sql")

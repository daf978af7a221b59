"""The end of the programme."""

from alembic import op

from api.migrations import run_sql_file

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Creates everything of 0026_winding_down.sql."""
    run_sql_file(op, "0026_winding_down.sql")

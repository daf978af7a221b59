"""Final statements of partners that leave."""

from alembic import op

from api.migrations import run_sql_file

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Creates everything of 0025_final_statements.sql."""
    run_sql_file(op, "0025_final_statements.sql")

"""Two-phase burns: how long points are held, and finding authorizations again."""

from alembic import op

from api.migrations import run_sql_file

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Creates everything of 0013_holds.sql."""
    run_sql_file(op, "0013_holds.sql")

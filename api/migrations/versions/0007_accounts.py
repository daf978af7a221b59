"""Points that move between members, and where a return takes points from that were spent."""

from alembic import op

from api.migrations import run_sql_file

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Creates everything of 0007_accounts.sql."""
    run_sql_file(op, "0007_accounts.sql")

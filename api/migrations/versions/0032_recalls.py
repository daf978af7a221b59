"""Points that a hold had set aside when a return would have taken them."""

from alembic import op

from api.migrations import run_sql_file

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    """Creates everything of 0032_recalls.sql."""
    run_sql_file(op, "0032_recalls.sql")

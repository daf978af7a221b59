"""Tax on statement lines."""

from alembic import op

from api.migrations import run_sql_file

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Creates everything of 0018_tax.sql."""
    run_sql_file(op, "0018_tax.sql")

"""Who says that the money of a purchase came in."""

from alembic import op

from api.migrations import run_sql_file

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Creates everything of 0027_money_first.sql."""
    run_sql_file(op, "0027_money_first.sql")

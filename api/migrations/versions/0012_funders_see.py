"""Funders of other partners' awards see the purchases that they paid for, and the budget of a campaign of their own."""

from alembic import op

from api.migrations import run_sql_file

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Creates everything of 0012_funders_see.sql."""
    run_sql_file(op, "0012_funders_see.sql")

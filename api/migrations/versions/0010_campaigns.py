"""Campaigns: bonuses that one funder or several pay, at some tills or all."""

from alembic import op

from api.migrations import run_sql_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Creates everything of 0010_campaigns.sql."""
    run_sql_file(op, "0010_campaigns.sql")

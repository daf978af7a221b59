"""Clients of the API and their access tokens, as digests."""

from alembic import op

from api.migrations import run_sql_file

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Creates everything of 0002_oauth.sql."""
    run_sql_file(op, "0002_oauth.sql")

"""Household pools: members who share one account."""

from alembic import op

from api.migrations import run_sql_file

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Creates everything of 0017_pools.sql."""
    run_sql_file(op, "0017_pools.sql")

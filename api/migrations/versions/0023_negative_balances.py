"""Balances below zero: what members owe until it is earned back."""

from alembic import op

from api.migrations import run_sql_file

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Creates everything of 0023_negative_balances.sql."""
    run_sql_file(op, "0023_negative_balances.sql")

"""When points expire: fixed, rolling with the use of the account, or at the end of a year."""

from alembic import op

from api.migrations import run_sql_file

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Creates everything of 0011_expiry.sql."""
    run_sql_file(op, "0011_expiry.sql")

"""What awards drew on money paid in before is credited on the statement."""

from alembic import op

from api.migrations import run_sql_file

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Creates everything of 0028_prepaid.sql."""
    run_sql_file(op, "0028_prepaid.sql")

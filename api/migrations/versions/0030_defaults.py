"""One default covers every due statement of a partner."""

from alembic import op

from api.migrations import run_sql_file

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    """Creates everything of 0030_defaults.sql."""
    run_sql_file(op, "0030_defaults.sql")

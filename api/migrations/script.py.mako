"""${message}"""

from alembic import op

from api.migrations import run_sql_file

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Runs the SQL file of this revision."""
    run_sql_file(op, "${up_revision}.sql")

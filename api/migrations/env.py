"""Alembic's entry: runs on the connection that ``api.migrations`` opened, or prints SQL offline for the linter."""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    context.configure(dialect_name="postgresql")
else:
    context.configure(connection=connection)
with context.begin_transaction():
    context.run_migrations()

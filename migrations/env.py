"""Alembic's entry: `scheduler.schema` hands it an open connection; the alembic command line uses the
settings."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from models import Base


def run(connection: Connection) -> None:
    """Run the migrations asked for on `connection`."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    from scheduler.schema import connect
    from scheduler.settings import load_settings

    with connect(load_settings().database_url) as opened:
        run(opened)
        opened.commit()

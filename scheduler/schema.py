"""The schema's version: migrate up and down, and say where a database stands."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection

import migrations

LOCK_NAME = "punctual-migrate"
LOCK_WAIT_S = 60


def upgrade(database_url: str, revision: str = "head") -> None:
    """Migrate up to `revision`. Two at once wait for each other (60 s at the most)."""
    with connect(database_url) as connection:
        command.upgrade(_config(connection), revision)


def downgrade(database_url: str, revision: str) -> None:
    """Migrate down to `revision`; "base" takes everything away."""
    with connect(database_url) as connection:
        command.downgrade(_config(connection), revision)


def head() -> str:
    """The revision that this code wants."""
    revision = ScriptDirectory.from_config(_config(None)).get_current_head()
    assert revision is not None
    return revision


def current(connection: Connection) -> str | None:
    """The revision that the database has, or None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def connect(database_url: str) -> Iterator[Connection]:
    """A connection of the synchronous driver under the same URL, holding the lock that keeps migrations
    apart."""
    url = make_url(database_url)
    is_mysql = url.get_backend_name() == "mysql"
    engine = _mysql_engine(url) if is_mysql else _sqlite_engine(url)
    with engine.connect() as connection:
        if is_mysql:
            got = connection.execute(text("SELECT GET_LOCK(:name, :wait)"), {"name": LOCK_NAME, "wait": LOCK_WAIT_S})
            if got.scalar() != 1:
                raise TimeoutError("another migration is running on this database; wait for it to end")
            connection.commit()
        yield connection
        connection.commit()
    engine.dispose()


def _mysql_engine(url: URL) -> Engine:
    return create_engine(
        url.set(drivername="mysql+pymysql"),
        poolclass=NullPool,
        connect_args={"connect_timeout": 5, "charset": "utf8mb4"},
    )


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url.set(drivername="sqlite"),
        poolclass=NullPool,
        connect_args={"timeout": LOCK_WAIT_S, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _write_ahead(connection: DBAPIConnection, _: object) -> None:
        # The change to WAL does not wait for a lock as statements do: it fails at once while another process is at it.
        give_up_at = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                connection.cursor().execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.05)
            else:
                return

    @event.listens_for(engine, "begin")
    def _lock(connection: Connection) -> None:
        # The writer's lock from the first look on: a second migration waits here, and then finds all done.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config

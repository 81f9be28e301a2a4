"""Migrations on both databases: up, down, up again, equal to what is declared, and two processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, make_url, text

from models import Base
from scheduler.schema import connect, current, downgrade, head, upgrade

ROOT = Path(__file__).parent.parent.parent


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def shape(connection: Connection) -> str:
    """Everything that the database says of its schema, to be compared."""
    inspector = inspect(connection)
    described = {
        table: {
            "columns": [{**column, "type": str(column["type"])} for column in inspector.get_columns(table)],
            "keys": [inspector.get_pk_constraint(table), *inspector.get_foreign_keys(table)],
            "unique": sorted(inspector.get_unique_constraints(table), key=lambda each: str(each["name"])),
            "indexes": sorted(inspector.get_indexes(table), key=lambda each: str(each["name"])),
        }
        for table in sorted(inspector.get_table_names())
    }
    return json.dumps(described, default=str, sort_keys=True, indent=1)


def test_up_down_and_up_again(empty_database_url: str) -> None:
    with connect(empty_database_url) as connection:
        assert current(connection) is None and tables(connection) == set()
    upgrade(empty_database_url)
    with connect(empty_database_url) as connection:
        assert current(connection) == head()
        assert tables(connection) == {*Base.metadata.tables, "alembic_version"}
        first = shape(connection)
    upgrade(empty_database_url)  # there already: nothing happens
    downgrade(empty_database_url, "base")
    with connect(empty_database_url) as connection:
        assert current(connection) is None
        assert tables(connection) <= {"alembic_version"}
    upgrade(empty_database_url)
    with connect(empty_database_url) as connection:
        assert shape(connection) == first


def test_what_is_migrated_is_what_is_declared(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    with connect(empty_database_url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        migrated = shape(connection)
    # alembic's comparison overlooks cascades and the precision of times: hold both to the database's words.
    downgrade(empty_database_url, "base")
    with connect(empty_database_url) as connection:
        Base.metadata.create_all(connection)
        assert shape(connection) == migrated


def test_the_comparison_sees_a_difference(empty_database_url: str) -> None:
    """Else the test above would prove nothing."""
    upgrade(empty_database_url)
    with connect(empty_database_url) as connection:
        before = shape(connection)
        connection.execute(
            text(
                "DROP INDEX ix_reminder_state_fire_at" + (" ON reminder" if connection.dialect.name == "mysql" else "")
            )
        )
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert len(compare_metadata(context, Base.metadata)) == 1
        assert shape(connection) != before


def test_storage_on_mysql(empty_database_url: str) -> None:
    """InnoDB, utf8mb4, times to the microsecond, ids in 16 bytes (design.md, Data)."""
    if make_url(empty_database_url).get_backend_name() != "mysql":
        pytest.skip("of MySQL only")
    upgrade(empty_database_url)
    with connect(empty_database_url) as connection:
        engines = connection.execute(
            text(
                "SELECT DISTINCT engine, table_collation FROM information_schema.tables"
                " WHERE table_schema = DATABASE() AND table_name != 'alembic_version'"
            )
        ).all()
        assert [tuple(row) for row in engines] == [("InnoDB", "utf8mb4_bin")]
        types = connection.execute(
            text(
                "SELECT DISTINCT column_type FROM information_schema.columns WHERE table_schema = DATABASE()"
                " AND (data_type IN ('datetime', 'timestamp', 'binary', 'varbinary', 'blob', 'text'))"
            )
        ).scalars()
        assert set(types) == {"datetime(6)", "binary(16)", "binary(32)"}


def test_from_two_processes_at_once(empty_database_url: str) -> None:
    program = "import sys; from scheduler.schema import upgrade; upgrade(sys.argv[1])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, empty_database_url], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    with connect(empty_database_url) as connection:
        assert current(connection) == head()
        assert tables(connection) == {*Base.metadata.tables, "alembic_version"}

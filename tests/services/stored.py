"""What stands in the database, and what it took to read or write it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, event, func, select, text, update

from models import Base, Task
from scheduler.database import Database
from scheduler.runs.reap import WATCH_S, Reaper


async def rows(database: Database, model: type[Base], *conditions: Any) -> list[Row[Any]]:
    """The rows of a table, in the order of their ids."""
    table = model.__table__
    async with database.read() as session:
        query = select(table).where(*conditions).order_by(*table.primary_key)
        return list((await session.execute(query)).all())


async def one(database: Database, model: type[Base], *conditions: Any) -> Row[Any]:
    """The only row that there is."""
    (row,) = await rows(database, model, *conditions)
    return row


async def count(database: Database, model: type[Base], *conditions: Any) -> int:
    """How many rows there are."""
    async with database.read() as session:
        return int((await session.execute(select(func.count()).select_from(model).where(*conditions))).scalar_one())


async def tally(database: Database, column: Any) -> dict[Any, int]:
    """How many rows have each value of a column."""
    async with database.read() as session:
        found = await session.execute(select(column, func.count()).group_by(column))
        return dict(found.tuples().all())


async def set_(database: Database, model: type[Base], row_id: UUID, **columns: Any) -> None:
    """Change a row behind the services' back."""
    async with database.write() as session:
        await session.execute(update(model.__table__).where(model.__table__.c.id == row_id).values(**columns))


async def version(database: Database, task_id: UUID) -> int:
    """A task's version."""
    return int((await one(database, Task, Task.id == task_id)).version)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Every statement that goes to the database meanwhile; one for many rows counts once."""
    seen: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, _p: Any, _context: Any, _many: bool) -> None:
        seen.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def reap(database: Database, *, worker: str, now: datetime) -> dict[str, int] | None:
    """What a reaper does that has been watching for long enough."""
    passed = 0.0
    reaper = Reaper(database, worker=worker, seconds=lambda: passed)
    first = await reaper.reap(now=now)
    passed = WATCH_S
    second = await reaper.reap(now=now)
    if first is None or second is None:
        return first or second
    return {name: first[name] + second[name] for name in first}


async def everything_stored(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Each row of each table as the database has it, past all types of ours."""
    found = {}
    async with database.read() as session:
        for table in Base.metadata.sorted_tables:
            result = await session.execute(
                text(f"SELECT * FROM {session.bind.dialect.identifier_preparer.quote(table.name)}")
            )
            found[table.name] = [dict(row._mapping) for row in result]
    return found


def holding(stored: dict[str, list[dict[str, Any]]], needle: bytes) -> set[str]:
    """The columns in which a value holds this."""
    return {
        f"{table}.{column}"
        for table, found in stored.items()
        for row in found
        for column, value in row.items()
        if needle.lower() in (value if isinstance(value, bytes) else str(value).encode()).lower()
    }

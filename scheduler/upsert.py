"""Rows that may be there already, in one statement on every database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from models import Base


async def upsert(
    session: AsyncSession, model: type[Base], rows: Sequence[dict[str, Any]], *, change: Sequence[str] = ()
) -> None:
    """Insert rows; where one with an equal primary key stands already, give these columns of it the values of the new
    one. Without `change`, one with any equal unique key is left as it is.

    Never by INSERT in a savepoint: a deadlock ends the whole transaction and its savepoints with it, and what comes
    out of the savepoint then is "SAVEPOINT does not exist" (1305) in place of the 1213 that is tried again.
    """
    table = model.__table__
    if session.get_bind().dialect.name == "mysql":
        into_mysql = mysql.insert(table)
        key = table.primary_key.columns[0]  # set to itself: nothing changes
        new = {name: into_mysql.inserted[name] for name in change} or {key.name: key}
        await session.execute(into_mysql.on_duplicate_key_update(new), list(rows))
        return
    into_sqlite = sqlite.insert(table)
    if change:
        new = {name: into_sqlite.excluded[name] for name in change}
        await session.execute(into_sqlite.on_conflict_do_update(index_elements=table.primary_key, set_=new), list(rows))
    else:
        await session.execute(into_sqlite.on_conflict_do_nothing(), list(rows))

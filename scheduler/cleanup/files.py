"""Files whose time is past, and files that no row names: somebody's process died after it had stored one and before the
row said so, or between the row's end and the file's.

To add a folder: a line in `FOLDERS`. Its keys hold the id of what names them, so that whose they are is one look.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import InstrumentedAttribute

from models import AccountExport, User
from scheduler.accounts import avatar, export
from scheduler.database import Database
from scheduler.logs import get_logger
from scheduler.storage import Storage, StoredFile

AT_ONCE = 500
NOBODYS_AFTER = timedelta(days=1)
"""How old a file is before it must have a row: far longer than any upload or run takes."""

FOLDERS: dict[str, tuple[InstrumentedAttribute[Any], InstrumentedAttribute[Any]]] = {
    avatar.FOLDER: (User.id, User.avatar_key),
    export.FOLDER: (AccountExport.user_id, AccountExport.storage_key),
}
"""By folder: what the second part of a key is the id of, and where that names the key."""

_EXPORT = AccountExport.__table__

log = get_logger("cleanup")


async def clean_files(database: Database, storage: Storage, *, now: datetime) -> dict[str, int]:
    """Delete exports that have been kept for long enough, and files that are nobody's. Returns how many of each.

    Raises StorageAway; what is left then is for the next run.
    """
    counts = Counter({"exports": 0, "files": 0})
    counts["exports"] = await _clean_exports(database, storage, now)
    for folder, (owner, names) in FOLDERS.items():
        async for page in storage.pages(folder):
            old = [file for file in page if file.changed_at <= now - NOBODYS_AFTER]
            for key in await _nobodys(database, old, owner, names):
                await storage.delete(key)
                log.info("file.nobodys", key=key)
                counts["files"] += 1
    return dict(counts)


async def _clean_exports(database: Database, storage: Storage, now: datetime) -> int:
    """The file first: as long as it is there, its row says where."""
    count = 0
    while True:
        query = select(_EXPORT.c.user_id, _EXPORT.c.storage_key).where(_EXPORT.c.expires_at <= now)
        async with database.read() as session:
            rows = (await session.execute(query.order_by(_EXPORT.c.expires_at).limit(AT_ONCE))).all()
        for row in rows:
            if row.storage_key is not None:
                await storage.delete(row.storage_key)
        past = (_EXPORT.c.user_id.in_([row.user_id for row in rows]), _EXPORT.c.expires_at <= now)
        if rows:
            await database.retry_write(lambda session, past=past: session.execute(delete(_EXPORT).where(*past)))  # type: ignore[misc]
        count += len(rows)
        if len(rows) < AT_ONCE:
            return count


async def _nobodys(
    database: Database,
    files: Sequence[StoredFile],
    owner: InstrumentedAttribute[Any],
    names: InstrumentedAttribute[Any],
) -> list[str]:
    """The keys of those that their owners' rows do not name."""
    named: set[str] = set()
    owners = list({each for file in files if (each := _owner(file.key)) is not None})
    for start in range(0, len(owners), AT_ONCE):
        query = select(names).where(owner.in_(owners[start : start + AT_ONCE]), names.is_not(None))
        async with database.read() as session:
            named.update((await session.execute(query)).scalars())
    return [file.key for file in files if file.key not in named]


def _owner(key: str) -> UUID | None:
    try:
        return UUID(hex=key.split("/")[1])
    except (IndexError, ValueError):
        return None

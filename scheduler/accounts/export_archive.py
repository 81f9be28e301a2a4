"""Writing a person's export as a ZIP, a page of rows at a time: memory does not grow with what there is about them."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import IO, Any, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import select

from models import Email
from scheduler.accounts.export_contents import SECTIONS, TOLD_IN_FULL, Person, Section
from scheduler.accounts.pictures import MEDIA_TYPE
from scheduler.database import Database
from scheduler.paging import after
from scheduler.storage import Storage

Result = TypeVar("Result")

ROWS_AT_ONCE = 500
EMAILS_AT_ONCE = 20
"""A message may have some hundred kilobytes."""
MOST_PROGRESS = len(SECTIONS) + 2

Report = Callable[[int, int], None]

_INTRODUCTION = """\
All that this service stores about {email}, as of {at:%Y-%m-%d %H:%M} UTC.

Each file ending in .json is a list of objects, one a line; instants are in UTC.

"""


async def write_archive(
    file: IO[bytes],
    *,
    database: Database,
    storage: Storage,
    person: Person,
    avatar: str | None,
    now: datetime,
    report: Report = lambda done, total: None,
) -> None:
    """Write the whole ZIP to `file`, which can be sought in. `avatar` is the key of the person's picture."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        await _in_thread(archive.writestr, _entry("README.txt", now), _introduction(person, now))
        for done, section in enumerate(SECTIONS):
            with archive.open(_entry(f"{section.name}.json", now), "w") as entry:
                await _write_section(entry, database, section, person)
            report(done + 1, MOST_PROGRESS)
        await _write_emails(archive, database, person, now)
        report(len(SECTIONS) + 1, MOST_PROGRESS)
        if avatar is not None:
            await _write_avatar(archive, storage, avatar, now)
        await _in_thread(archive.close)


async def _write_section(entry: IO[bytes], database: Database, section: Section, person: Person) -> None:
    query = section.query(person).limit(ROWS_AT_ONCE)
    between = b"["
    page = query
    while True:
        async with database.read() as session:
            rows = (await session.execute(page)).all()
        if rows:
            await _in_thread(_write_rows, entry, between, section, rows)
            between = b","
        if len(rows) < ROWS_AT_ONCE:
            await _in_thread(entry.write, b"[]\n" if between == b"[" else b"\n]\n")
            return
        last = rows[-1]._mapping
        page = query.where(after(*((column, last[f"_{place}"], False) for place, column in enumerate(section.by))))


def _write_rows(entry: IO[bytes], between: bytes, section: Section, rows: Sequence[Any]) -> None:
    width = len(section.columns)
    names = [str(column.key) for column in section.columns]
    for row in rows:
        shown = section.shape(dict(zip(names, tuple(row)[:width], strict=True)))
        entry.write(between + b"\n" + orjson.dumps(shown, default=str, option=orjson.OPT_UTC_Z))
        between = b","


async def _write_emails(archive: zipfile.ZipFile, database: Database, person: Person, now: datetime) -> None:
    table = Email.__table__
    query = (
        select(table.c.id, table.c.message)
        .where(table.c.user_id == person.id, table.c.template.in_(TOLD_IN_FULL), table.c.message != b"")
        .order_by(table.c.id)
        .limit(EMAILS_AT_ONCE)
    )
    last = UUID(int=0)
    while True:
        async with database.read() as session:
            rows = (await session.execute(query.where(table.c.id > last))).all()
        for row in rows:
            await _in_thread(archive.writestr, _entry(f"emails/{row.id}.eml", now), row.message)
        if len(rows) < EMAILS_AT_ONCE:
            return
        last = rows[-1].id


async def _write_avatar(archive: zipfile.ZipFile, storage: Storage, key: str, now: datetime) -> None:
    try:
        content = await storage.get(key)
    except FileNotFoundError:  # replaced just now, or lost by the storage
        return
    entry = _entry(f"avatar.{MEDIA_TYPE.rpartition('/')[2]}", now)
    entry.compress_type = zipfile.ZIP_STORED
    await _in_thread(archive.writestr, entry, content)


def _introduction(person: Person, now: datetime) -> str:
    about = {f"{section.name}.json": section.about for section in SECTIONS}
    about |= {"emails/": "e-mails to you, as they went out", "avatar.webp": "your picture, if you have one"}
    width = max(map(len, about))
    lines = "".join(f"{name:<{width}}  {text}\n" for name, text in about.items())
    return _INTRODUCTION.format(email=person.email, at=now) + lines


def _entry(name: str, now: datetime) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (now.year, now.month, now.day, now.hour, now.minute, now.second))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


async def _in_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    """Do `work` in a thread, and wait for its end even when cancelled: the archive is closed after it, and one thread
    at a time may write to it."""
    future = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise

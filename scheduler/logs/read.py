"""What operators ask of the log: records by their filters, newest first, however many there are.

One filter leads: its index is read from its newest end, and the other filters are checked record by record. So that
what is rare, or is not there, does not make the database read all that it ever kept, a page looks at `LOOKED_AT`
records at the most; where it ends there it is a short one, even an empty one, and its cursor goes on behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from models import LogRecord
from scheduler.newest import Filters, conditions_of, given, index_of, newest
from scheduler.paging import Page, after, decode_cursor, encode_cursor

LOOKED_AT = 200_000
"""Records; to look through so many texts takes a second."""
LEVELS = ("debug", "info", "warning", "error", "critical")

_TABLE = LogRecord.__table__
_AT, _ID = _TABLE.c.at, _TABLE.c.id
_NO_ID = UUID(int=0)
_BY_ID = ("run_id", "request_id")
"""Filters whose indexes go by id. Ids are made as things happen, so that is the order of time too."""


async def list_logs(
    session: AsyncSession,
    *,
    level: str | None = None,
    events: Sequence[str] = (),
    jobs: Sequence[str] = (),
    run_id: UUID | None = None,
    request_id: str | None = None,
    user_id: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    q: str | None = None,
    limit: int,
    cursor: str | None = None,
    count: bool = False,
) -> Page[Row[Any]]:
    """Records, newest first. `level`: that one and those above it; `since` (inclusive) and `until` (exclusive) are on
    `at`; `q`: what stands in the event's name or in the data, in any case.

    A page looks at `LOOKED_AT` records at the most, and then goes on in the next; the total counts among as many, from
    the newest. Raises `BadCursor`, and ValueError for a level that there is not.
    """
    filters = given(
        run_id=[] if run_id is None else [run_id],
        request_id=[] if request_id is None else [request_id],
        user_id=[] if user_id is None else [user_id],
        event=events,
        job=jobs,
        level=LEVELS[LEVELS.index(level) :] if level not in (None, LEVELS[0]) else (),
    )
    between: list[ColumnElement[bool]] = []
    if since:
        between.append(_AT >= since)
    if until:
        between.append(_AT < until)
    search = _Search(filters, _leading(filters), between, [_holds(q)] if q else [])
    total = await search.count(session) if count else None
    seen = decode_cursor(cursor, datetime, UUID) if cursor else None
    found, floor = await search.page(session, seen, limit + 1)
    items = found[:limit]
    if len(found) > limit:
        return Page(items, encode_cursor(items[-1].at, items[-1].id), total)
    return Page(items, None if floor is None else encode_cursor(*floor), total)


class _Floor(NamedTuple):
    """How far down a page looks: down to here, this included."""

    at: datetime
    id: UUID


class _Search(NamedTuple):
    """What is asked for: the rows that all filters, bounds and conditions let through."""

    filters: Filters
    leading: str | None
    between: Sequence[ColumnElement[bool]]
    """On `at`, so that an index checks them, where one by `at` leads."""
    conditions: Sequence[ColumnElement[bool]]
    """Checked row by row."""

    @property
    def is_by_id(self) -> bool:
        return self.leading in _BY_ID

    @property
    def is_narrow(self) -> bool:
        """Whether the index alone finds the rows."""
        checked = [name for name in self.filters if name != self.leading]
        return not checked and not self.conditions and not (self.is_by_id and self.between)

    async def page(
        self, session: AsyncSession, seen: Sequence[Any] | None, limit: int
    ) -> tuple[Sequence[Row[Any]], _Floor | None]:
        """The newest `limit` rows behind `seen`, and down to where was looked, where that is not to the end."""
        conditions = list(self.between)
        if seen is not None:
            at, id_ = seen
            conditions.append(_ID < id_ if self.is_by_id else after((_AT, at, True), (_ID, id_, True)))
        floor = None if self.is_narrow else await self.floor(session, conditions)
        if floor is not None:
            conditions.append(_ID >= floor.id if self.is_by_id else _AT >= floor.at)
        conditions += self.conditions
        if self.is_by_id:
            query = self._by_id(select(_TABLE), [*conditions_of(_TABLE, self.filters), *conditions]).limit(limit)
        else:
            query = newest(
                [*_TABLE.columns],
                at=_AT,
                filters=self.filters,
                leading=self.leading,
                conditions=conditions,
                limit=limit,
            )
        return (await session.execute(query)).all(), floor

    async def floor(self, session: AsyncSession, between: Sequence[ColumnElement[bool]]) -> _Floor | None:
        """The record at which `LOOKED_AT` are looked at; None if there are not so many."""
        if self.is_by_id:
            leading = conditions_of(_TABLE, {self.leading: self.filters[self.leading]}) if self.leading else []
            bounds = [each for each in between if each not in self.between]
            query = self._by_id(select(_AT, _ID), [*leading, *bounds]).offset(LOOKED_AT - 1).limit(1)
            row = (await session.execute(query)).one_or_none()
            return _Floor(row.at, row.id) if row else None
        values = self.filters[self.leading] if self.leading else [None]
        hint = f"FORCE INDEX ({index_of(_AT, self.leading)})"
        ends = []
        for value in values:
            first = [] if self.leading is None else [_TABLE.c[self.leading] == value]
            query = select(_AT).with_hint(_TABLE, hint, "mysql").where(*first, *between)
            ends.append(query.order_by(_AT.desc()).offset(LOOKED_AT // len(values) - 1).limit(1).subquery())
        # Where several values lead, below the first of these some was not looked at.
        at = (
            await session.execute(select(func.max(union_all(*(select(end) for end in ends)).subquery().c.at)))
        ).scalar()
        return _Floor(at, _NO_ID) if at else None

    async def count(self, session: AsyncSession) -> int:
        """How many rows there are among the newest `LOOKED_AT` that the leading filter lets through."""
        floor = await self.floor(session, self.between)
        conditions = [*conditions_of(_TABLE, self.filters), *self.between, *self.conditions]
        if floor is not None:
            conditions.append(_ID >= floor.id if self.is_by_id else _AT >= floor.at)
        query = select(func.count()).select_from(_TABLE).with_hint(_TABLE, f"FORCE INDEX ({self._index})", "mysql")
        number: int = (await session.execute(query.where(*conditions))).scalar_one()
        return number

    @property
    def _index(self) -> str:
        if not self.is_by_id:
            return index_of(_AT, self.leading)
        return next(str(index.name) for index in _TABLE.indexes if index.columns[0].key == self.leading)

    def _by_id(self, query: Select[Any], conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
        hinted = query.with_hint(_TABLE, f"FORCE INDEX ({self._index})", "mysql")
        return hinted.where(*conditions).order_by(_ID.desc())


def _leading(filters: Filters) -> str | None:
    """The filter that lets the fewest records through. No statistics are asked: warnings are fewer than what a job
    says, and that is less than what is said at all."""
    order = ["run_id", "request_id", "user_id", "event", "job", "level"]
    if "info" not in filters.get("level", ()):
        order = ["run_id", "request_id", "user_id", "event", "level", "job"]
    return next((name for name in order if name in filters), None)


def _holds(text: str) -> ColumnElement[bool]:
    """Whether the event or the data hold this, in any case.

    Data is JSON: what is looked for may be a person's text or a piece of that JSON.
    """
    spellings = [text, orjson.dumps(text).decode()[1:-1]]
    if not text.isascii():
        # SQLite folds the case of ASCII only.
        spellings = [variant for each in spellings for variant in (each, each.lower(), each.upper(), each.capitalize())]
    patterns = list(dict.fromkeys(each.lower() if text.isascii() else each for each in spellings))
    event, data = func.lower(_TABLE.c.event), func.lower(_TABLE.c.data)
    return or_(*(column.contains(each, autoescape=True) for each in patterns for column in (event, data)))

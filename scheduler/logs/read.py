"""What operators ask of the log: records by their filters, newest first, however many there are.

One filter leads: its index is read from its newest end, and the other filters are checked record by record. So that
what is rare, or is not there, does not make the database read all that it ever kept, a page looks at `LOOKED_AT`
records at the most; where it ends there it is a short one, even an empty one, and its cursor goes on behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Row, Select, func, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from models import LogRecord
from scheduler.newest import Filters, conditions_of, given, index_of, newest
from scheduler.paging import Page, after, decode_cursor, encode_cursor

LOOKED_AT = 100_000
"""Records; to look through so many texts takes a quarter of a second, on a busy machine some of them."""
LEVELS = ("debug", "info", "warning", "error", "critical")

_TABLE = LogRecord.__table__
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

    A page looks at `LOOKED_AT` records at the most, and the next goes on from there; the total, too, is of the newest
    `LOOKED_AT`. Raises `BadCursor`, and ValueError for a level that there is not.
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
        between.append(_TABLE.c.at >= since)
    if until:
        between.append(_TABLE.c.at < until)
    search = _Search(filters, _leading(filters), between, _holds(q) if q else None)
    seen = decode_cursor(cursor, datetime, UUID) if cursor else None
    total = await search.count(session) if count else None
    found, floor = await search.page(session, seen, limit + 1)
    items = found[:limit]
    if len(found) > limit:
        return Page(items, encode_cursor(items[-1].at, items[-1].id), total)
    return Page(items, None if floor is None else encode_cursor(*floor), total)


class _Floor(NamedTuple):
    """How far down is looked: where an index by `at` is read, all records of that instant are looked at."""

    at: datetime
    id: UUID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class _Search:
    """What is asked for: the records that all filters, the bounds on `at`, and `holds` let through."""

    filters: Filters
    leading: str | None
    between: Sequence[ColumnElement[bool]]
    holds: ColumnElement[bool] | None

    async def page(
        self, session: AsyncSession, seen: Sequence[Any] | None, limit: int
    ) -> tuple[Sequence[Row[Any]], _Floor | None]:
        """The newest `limit` records behind `seen`, and how far down was looked, where that is not to the end."""
        bounds: list[ColumnElement[bool]] = []
        if seen is not None:
            at, id_ = seen
            behind = after((_TABLE.c.at, at, True), (_TABLE.c.id, id_, True))
            bounds.append(_TABLE.c.id < id_ if self._is_by_id else behind)
        floor = None if self._is_found_by_index else await self._floor(session, bounds)
        conditions = [*self.between, *bounds, *self._above(floor)]
        if self._is_by_id:
            conditions += conditions_of(_TABLE, self.filters)
            query = self._read(_TABLE.columns).where(*conditions).order_by(_TABLE.c.id.desc()).limit(limit)
        else:
            query = newest(
                [*_TABLE.columns],
                at=_TABLE.c.at,
                filters=self.filters,
                leading=self.leading,
                conditions=conditions,
                limit=limit,
            )
        return (await session.execute(query)).all(), floor

    async def count(self, session: AsyncSession) -> int:
        """How many there are among the newest `LOOKED_AT` that the leading filter lets through."""
        floor = await self._floor(session, [])
        conditions = [*conditions_of(_TABLE, self.filters), *self.between, *self._above(floor)]
        number: int = (await session.execute(self._read([func.count()]).where(*conditions))).scalar_one()
        return number

    @property
    def _is_by_id(self) -> bool:
        return self.leading in _BY_ID

    @property
    def _is_found_by_index(self) -> bool:
        """Whether there is nothing to check record by record."""
        return self.filters.keys() <= {self.leading} and self.holds is None and not (self._is_by_id and self.between)

    async def _floor(self, session: AsyncSession, bounds: Sequence[ColumnElement[bool]]) -> _Floor | None:
        """Where `LOOKED_AT` records of the index within these bounds end; None if there are not so many."""
        ends = self._ends()
        place = LOOKED_AT // len(ends) - 1
        if self._is_by_id:
            query = self._read([_TABLE.c.at, _TABLE.c.id]).where(*ends[0], *bounds).order_by(_TABLE.c.id.desc())
            row = (await session.execute(query.offset(place).limit(1))).one_or_none()
            return None if row is None else _Floor(row.at, row.id)
        queries = [
            self._read([_TABLE.c.at])
            .where(*end, *self.between, *bounds)
            .order_by(_TABLE.c.at.desc())
            .offset(place)
            .limit(1)
            .subquery()
            for end in ends
        ]
        # Of several values that lead: below the first end of these, not all was looked at.
        query = select(func.max(union_all(*map(select, queries)).subquery().c.at))
        at = (await session.execute(query)).scalar()
        return None if at is None else _Floor(at)

    def _ends(self) -> list[list[ColumnElement[bool]]]:
        """One condition for each value that leads."""
        if self.leading is None:
            return [[]]
        return [[_TABLE.c[self.leading] == value] for value in self.filters[self.leading]]

    def _above(self, floor: _Floor | None) -> list[ColumnElement[bool]]:
        conditions = [] if self.holds is None else [self.holds]
        if floor is not None:
            conditions.append(_TABLE.c.id >= floor.id if self._is_by_id else _TABLE.c.at >= floor.at)
        return conditions

    def _read(self, columns: Iterable[Any]) -> Select[Any]:
        """From the leading filter's index: left to itself, MariaDB now and then prefers one that it must sort."""
        if self._is_by_id:
            name = next(str(index.name) for index in _TABLE.indexes if index.columns[0].key == self.leading)
        else:
            name = index_of(_TABLE.c.at, self.leading)
        return select(*columns).select_from(_TABLE).with_hint(_TABLE, f"FORCE INDEX ({name})", "mysql")


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

"""Lists of what grows without end, newest first: read off the ends of indexes, so that history's length does not
matter.

Such a table has an instant by which it is listed, and for each filter an index of the filter's column and that
instant. InnoDB ends each index with the primary key, which settles the order within one instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, CompoundSelect, Select, Table, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.clock import EARLIEST

LOOKED_AT = 200_000
"""Rows that a page looks at, at the most: about half a second."""

NOTHING_BELOW = UUID(int=0)
"""The id in the cursor of a page that ended at its floor: all of that instant was looked at."""

Filters = Mapping[str, Sequence[Any]]
"""The values that a column may have, by its name."""


def given(**filters: Sequence[Any]) -> dict[str, list[Any]]:
    """The filters that were given, each value once."""
    return {name: list(dict.fromkeys(values)) for name, values in filters.items() if values}


def conditions_of(table: Table, filters: Filters) -> list[ColumnElement[bool]]:
    """The filters as conditions."""
    return [
        table.c[name] == values[0] if len(values) == 1 else table.c[name].in_(values)
        for name, values in filters.items()
    ]


def newest(
    columns: Sequence[Column[Any]],
    *,
    at: Column[Any],
    filters: Filters,
    leading: str | None,
    conditions: Iterable[ColumnElement[bool]],
    limit: int,
) -> Select[Any]:
    """The newest rows by `at` and id, read off the end of the index of `leading`; the rest is checked row by row.

    Several values of the filter that leads are that many ends of its index, `limit` rows of each: `IN` would make
    the database read and sort all that it ever held of them.
    """
    table = _table(at)
    key = table.c.id
    values = filters[leading] if leading is not None else []
    others = {name: filters[name] for name in filters if name != leading}
    rest = [*conditions_of(table, others), *conditions]
    if leading is None or len(values) < 2:
        first = conditions_of(table, {leading: values}) if leading is not None else []
        return _end(select(*columns), at, leading, [*first, *rest], limit)
    ends = [_end(select(key, at), at, leading, [table.c[leading] == value, *rest], limit) for value in values]
    every = union_all(*(select(end.subquery()) for end in ends)).subquery()
    order = (every.c[at.key].desc(), every.c.id.desc())
    page = select(every).order_by(*order).limit(limit).subquery()
    return select(*columns).join(page, page.c.id == key).order_by(page.c[at.key].desc(), page.c.id.desc())


async def floor(
    session: AsyncSession,
    *,
    at: Column[Any],
    filters: Filters,
    leading: str | None,
    conditions: Sequence[ColumnElement[bool]],
    looked_at: int = LOOKED_AT,
) -> datetime | None:
    """How far down `looked_at` entries of the index of `leading` reach, within conditions on `at` and id alone; None
    where there are fewer.

    What is checked row by row may be rare, or not there at all, and must not make the database read all that it ever
    kept: a page ends there, and the next goes on below.
    """
    values = filters[leading] if leading is not None else [None]
    place = max(looked_at // len(values), 1) - 1
    ends = [
        _end(
            select(at),
            at,
            leading,
            [*(conditions_of(_table(at), {leading: [value]}) if leading is not None else []), *conditions],
            1,
        ).offset(place)
        for value in values
    ]
    every = union_all(*(select(end.subquery()) for end in ends)).subquery()
    # Of several values that lead: below the first of these ends, not all has been looked at.
    found: datetime | None = (await session.execute(select(func.max(every.c[at.key])))).scalar()
    return found


def count_up_to(
    key: Column[Any], *, at: Column[Any], most: Mapping[Any, int], since: datetime = EARLIEST
) -> CompoundSelect[Any]:
    """How many rows since then have each of these values of `key`, as rows of `value` and `count`; of each no more
    are counted than are given with it. Nothing but the index is read."""
    table = _table(at)
    counts = []
    for value, limit in most.items():
        some = (
            select(literal(1).label("one"))
            .select_from(table)
            .with_hint(table, f"FORCE INDEX ({index_of(at, key.key)})", "mysql")
            .where(key == value, at >= since)
            .limit(limit)
            .subquery()
        )
        counts.append(select(literal(value).label("value"), func.count().label("count")).select_from(some))
    return union_all(*counts)


def newest_of_each(key: Column[Any], *, at: Column[Any], values: Iterable[Any]) -> Select[Any]:
    """The id of the newest row for each of these values of `key` that has one; there must be a value."""
    table = _table(at)
    ends = [_end(select(table.c.id), at, key.key, [key == value], 1) for value in dict.fromkeys(values)]
    return select(union_all(*(select(end.subquery()) for end in ends)).subquery())


def _end(
    query: Select[Any], at: Column[Any], leading: str | None, conditions: Iterable[ColumnElement[bool]], limit: int
) -> Select[Any]:
    table = _table(at)
    # Without the hint MariaDB now and then prefers an index that it must sort by, or intersects two of them.
    hinted = query.with_hint(table, f"FORCE INDEX ({index_of(at, leading)})", "mysql")
    return hinted.where(*conditions).order_by(at.desc(), table.c.id.desc()).limit(limit)


def index_of(at: Column[Any], leading: str | None) -> str:
    """The name of the index that lists by `at`, within one value of `leading` where there is one."""
    table = _table(at)
    wanted = [at.key] if leading is None else [leading, at.key]
    return next(str(index.name) for index in table.indexes if [column.key for column in index.columns] == wanted)


def _table(at: Column[Any]) -> Table:
    assert isinstance(at.table, Table)
    return at.table

"""Deliveries: what went out, what was skipped and why, what is planned."""

from __future__ import annotations

from datetime import datetime
from typing import cast
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.deliveries import read
from web.responses import page
from web.routing import RouteTable
from web.schemas.deliveries import Delivery, DeliveryList, DeliveryQuery

route = RouteTable("Reminders")

LINK = {"Link": "The next page"}


def delivery_answer(entry: read.DeliveryEntry) -> Delivery:
    """A delivery; its fields are the contract's."""
    return cast(Delivery, entry._asdict())


async def _list(
    request: web.Request,
    session: AsyncSession,
    actor: Actor,
    query: DeliveryQuery,
    now: datetime,
    task_id: UUID | None,
) -> web.Response:
    found = await read.list_deliveries(
        session,
        actor=actor,
        now=now,
        task_id=task_id,
        since=query.since,
        until=query.until,
        limit=query.limit,
        cursor=query.cursor,
        count=query.count,
    )
    return page(request, [delivery_answer(entry) for entry in found.items], found.next_cursor, total=found.total)


@route(
    "GET",
    "/users/me/deliveries",
    summary="What was and will be sent to me",
    answers={200: DeliveryList},
    success_headers=LINK,
    scope="tasks:read",
)
async def list_my_deliveries(
    request: web.Request, session: AsyncSession, actor: Actor, query: DeliveryQuery, now: datetime
) -> web.Response:
    """Latest fire time first: what is planned, then what went out or was skipped, and why."""
    return await _list(request, session, actor, query, now, None)


@route(
    "GET",
    "/tasks/{task_id}/deliveries",
    summary="What was and will be sent for a task",
    answers={200: DeliveryList},
    success_headers=LINK,
    scope="tasks:read",
)
async def list_task_deliveries(
    request: web.Request,
    session: AsyncSession,
    actor: Actor,
    task_id: UUID,
    query: DeliveryQuery,
    now: datetime,
) -> web.Response:
    """To all its people, but for other people's private reminders."""
    return await _list(request, session, actor, query, now, task_id)

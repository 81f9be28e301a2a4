"""Reminders of tasks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.reminders import manage
from scheduler.reminders.rows import ReminderSpec
from web.responses import answer, hash_of, no_content, page, require_match, write_json
from web.routing import RouteTable
from web.schemas.reminders import Reminder, ReminderCreate, ReminderList, ReminderQuery, Snooze

route = RouteTable("Reminders", "When to be reminded of a task, and what went out")

# A worker that holds a reminder has told nobody yet: to clients it is still to come.
_PUBLIC_STATES = {"claimed": "pending", "sending": "pending"}


def reminder_answer(row: Any) -> Reminder:
    """A reminder, from a row with its columns."""
    return {
        "id": row.id,
        "task_id": row.task_id,
        "user_id": row.user_id,
        "audience": row.audience,
        "offset_minutes": row.offset_minutes,
        "remind_at": row.fire_at,
        "state": _PUBLIC_STATES.get(row.state, row.state),
        "sent_at": row.sent_at,
    }


def reminder_spec(body: ReminderCreate) -> ReminderSpec:
    """What a service takes, from what a client sent."""
    return ReminderSpec(body.offset_minutes, body.remind_at, body.audience)


@route(
    "GET",
    "/tasks/{task_id}/reminders",
    summary="A task's reminders",
    answers={200: ReminderList},
    success_headers={"Link": "The next page"},
    scope="tasks:read",
)
async def list_reminders(
    request: web.Request, session: AsyncSession, actor: Actor, task_id: UUID, query: ReminderQuery
) -> web.Response:
    """Those for the assignees, and my private ones; soonest first."""
    found = await manage.list_reminders(
        session, actor=actor, task_id=task_id, limit=query.limit, cursor=query.cursor, count=query.count
    )
    return page(request, [reminder_answer(row) for row in found.items], found.next_cursor, total=found.total)


@route(
    "POST",
    "/tasks/{task_id}/reminders",
    summary="Add a reminder",
    answers={201: Reminder},
    errors=("forbidden", "already_deleted"),
    scope="tasks:write",
)
async def add_reminder(
    session: AsyncSession, actor: Actor, task_id: UUID, body: ReminderCreate, now: datetime
) -> web.Response:
    """An absolute time that is past is a 422; a relative one is `skipped`."""
    row = await manage.add_reminder(session, actor=actor, task_id=task_id, spec=reminder_spec(body), now=now)
    return answer(reminder_answer(row), status=201)


@route(
    "DELETE",
    "/reminders/{reminder_id}",
    summary="Delete a reminder",
    answers={204: None},
    errors=("forbidden",),
    scope="tasks:write",
)
async def delete_reminder(
    request: web.Request, session: AsyncSession, actor: Actor, reminder_id: UUID, now: datetime
) -> web.Response:
    """What it sent stays in the list of deliveries. Honours `If-Match`."""
    present = await manage.get_for_delete(session, actor=actor, reminder_id=reminder_id)
    require_match(request, hash_of(write_json(reminder_answer(present))))
    await manage.delete_reminder(session, actor=actor, reminder_id=reminder_id, now=now)
    return no_content()


@route(
    "POST",
    "/reminders/{reminder_id}/snooze",
    summary="Remind me again later",
    answers={200: Reminder},
    errors=("forbidden", "already_completed", "already_deleted"),
    scope="tasks:write",
)
async def snooze_reminder(
    session: AsyncSession, actor: Actor, reminder_id: UUID, body: Snooze, now: datetime
) -> web.Response:
    """For me only, also after it was sent. Answers the reminder that will fire."""
    until = body.until or now + timedelta(minutes=body.minutes or 0)  # just one of the two is there
    row = await manage.snooze(session, actor=actor, reminder_id=reminder_id, until=until, now=now)
    return answer(reminder_answer(row))

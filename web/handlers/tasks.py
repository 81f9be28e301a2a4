"""Tasks: create, read, list, change, delete, restore."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.tasks import change, create, read
from web.handlers.reminders import reminder_answer, reminder_spec
from web.responses import entity, no_content, page, wanted_version
from web.routing import API_PREFIX, JSON, MERGE_PATCH, RouteTable
from web.schemas.tasks import Task, TaskChange, TaskCreate, TaskList, TaskQuery

route = RouteTable("Tasks", "Things to do")

ETAG = {"ETag": "The task's `version` in quotes"}


def task_answer(details: read.TaskDetails) -> Task:
    """A task, from its row and what hangs on it."""
    row = details.row
    return {
        "id": row.id,
        "title": row.title,
        "description": row.description,
        "status": row.status,
        "priority": read.PRIORITIES[row.priority - 1],  # type: ignore[typeddict-item]
        "category": row.category,
        "due_at": row.due_at,
        "all_day": row.all_day,
        "timezone": row.timezone,
        "creator": {"id": row.creator_id, "name": row.creator_name},
        "assignees": [{"id": person.id, "name": person.name} for person in details.assignees],
        "shared_with": [
            {"id": person.id, "name": person.name, "permission": person.permission} for person in details.shared_with
        ],
        "reminders": [reminder_answer(reminder) for reminder in details.reminders],
        "completed_at": row.completed_at,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "deleted_at": row.deleted_at,
        "version": row.version,
    }


def _values(body: TaskChange) -> dict[str, Any]:
    """The fields that were sent, as the services take them."""
    values = body.given()
    if "reminders" in values:
        values["reminders"] = [reminder_spec(reminder) for reminder in values["reminders"]]
    return values


async def answer_task(
    request: web.Request, session: AsyncSession, actor: Actor, task_id: UUID, **options: Any
) -> web.Response:
    """The task as it is now, with its ETag; `options` as `entity` takes them."""
    details = await read.get_task(session, actor=actor, task_id=task_id)
    return entity(request, task_answer(details), etag=str(details.row.version), **options)


@route(
    "POST",
    "/tasks",
    summary="Create a task",
    answers={201: Task},
    success_headers={**ETAG, "Location": "Where the task is"},
    scope="tasks:write",
)
async def create_task(
    request: web.Request, session: AsyncSession, actor: Actor, body: TaskCreate, client: Client, now: datetime
) -> web.Response:
    task_id = await create.create_task(session, actor=actor, values=_values(body), now=now, client=client)
    headers = {"Location": f"{API_PREFIX}/tasks/{task_id}"}
    return await answer_task(request, session, actor, task_id, status=201, headers=headers)


@route(
    "GET",
    "/tasks",
    summary="My tasks",
    answers={200: TaskList},
    errors=("forbidden",),
    success_headers={"Link": "The next page"},
    scope="tasks:read",
)
async def list_tasks(request: web.Request, session: AsyncSession, actor: Actor, query: TaskQuery) -> web.Response:
    """Those that I made, am assigned to, or that are shared with me; soonest due first, without a due date last."""
    found = await read.list_tasks(
        session,
        actor=actor,
        everybodys=query.scope == "all",
        statuses=query.status,
        limit=query.limit,
        cursor=query.cursor,
        count=query.count,
    )
    return page(request, [task_answer(details) for details in found.items], found.next_cursor, total=found.total)


@route("GET", "/tasks/{task_id}", summary="A task", answers={200: Task}, success_headers=ETAG, scope="tasks:read")
async def get_task(request: web.Request, session: AsyncSession, actor: Actor, task_id: UUID) -> web.Response:
    """One in the bin is seen by those who may restore it."""
    return await answer_task(request, session, actor, task_id)


@route(
    "PATCH",
    "/tasks/{task_id}",
    summary="Change a task",
    answers={200: Task},
    errors=("forbidden", "already_deleted"),
    media_types=(JSON, MERGE_PATCH),
    success_headers=ETAG,
    scope="tasks:write",
)
async def change_task(
    request: web.Request,
    session: AsyncSession,
    actor: Actor,
    task_id: UUID,
    body: TaskChange,
    client: Client,
    now: datetime,
) -> web.Response:
    """JSON Merge Patch; its reminders follow. Honours `If-Match`."""
    await change.change_task(
        session,
        actor=actor,
        task_id=task_id,
        changes=_values(body),
        now=now,
        client=client,
        if_version=wanted_version(request),
    )
    return await answer_task(request, session, actor, task_id)


@route(
    "DELETE",
    "/tasks/{task_id}",
    summary="Put a task into the bin",
    answers={204: None},
    errors=("forbidden", "already_deleted"),
    scope="tasks:write",
)
async def delete_task(
    request: web.Request, session: AsyncSession, actor: Actor, task_id: UUID, client: Client, now: datetime
) -> web.Response:
    """It stays there for 30 days. Honours `If-Match`."""
    await change.delete_task(
        session, actor=actor, task_id=task_id, now=now, client=client, if_version=wanted_version(request)
    )
    return no_content()


@route(
    "POST",
    "/tasks/{task_id}/restore",
    summary="Take a task out of the bin",
    answers={200: Task},
    errors=("forbidden", "already_restored"),
    success_headers=ETAG,
    scope="tasks:write",
)
async def restore_task(
    request: web.Request, session: AsyncSession, actor: Actor, task_id: UUID, client: Client, now: datetime
) -> web.Response:
    """Reminders still ahead come back."""
    await change.restore_task(session, actor=actor, task_id=task_id, now=now, client=client)
    return await answer_task(request, session, actor, task_id)

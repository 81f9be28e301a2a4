"""Whom a task is assigned to and shared with, one person at a time."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.access import Actor, Permission
from scheduler.accounts.client import Client
from scheduler.tasks import assign, share
from web.handlers.tasks import ETAG, answer_task
from web.responses import no_content, wanted_version
from web.routing import RouteTable
from web.schemas.tasks import Assignment, Share, Task

route = RouteTable("Tasks")


@route(
    "POST",
    "/tasks/{task_id}/assign",
    summary="Assign a task",
    answers={200: Task},
    errors=("forbidden", "already_deleted", "precondition_failed"),
    success_headers=ETAG,
    scope="tasks:write",
)
async def assign_task(
    request: web.Request,
    session: AsyncSession,
    actor: Actor,
    client: Client,
    task_id: UUID,
    body: Assignment,
    now: datetime,
) -> web.Response:
    """Who has it already keeps it, and nothing changes. Honours `If-Match`."""
    await assign.assign(
        session,
        actor=actor,
        task_id=task_id,
        user_id=body.user_id,
        now=now,
        client=client,
        if_version=wanted_version(request),
    )
    return await answer_task(request, session, actor, task_id)


@route(
    "DELETE",
    "/tasks/{task_id}/assign/{user_id}",
    summary="Take a task from one of its assignees",
    answers={204: None},
    errors=("forbidden", "already_deleted", "precondition_failed"),
    scope="tasks:write",
)
async def unassign_task(
    request: web.Request,
    session: AsyncSession,
    actor: Actor,
    client: Client,
    task_id: UUID,
    user_id: UUID,
    now: datetime,
) -> web.Response:
    """Honours `If-Match`, with the task's ETag."""
    await assign.unassign(
        session,
        actor=actor,
        task_id=task_id,
        user_id=user_id,
        now=now,
        client=client,
        if_version=wanted_version(request),
    )
    return no_content()


@route(
    "POST",
    "/tasks/{task_id}/share",
    summary="Share a task",
    answers={200: Task},
    errors=("forbidden", "already_deleted", "precondition_failed"),
    success_headers=ETAG,
    scope="tasks:write",
)
async def share_task(
    request: web.Request,
    session: AsyncSession,
    actor: Actor,
    client: Client,
    task_id: UUID,
    body: Share,
    now: datetime,
) -> web.Response:
    """With somebody who has it shared already: for another permission from now on. Honours `If-Match`."""
    await share.share(
        session,
        actor=actor,
        task_id=task_id,
        user_id=body.user_id,
        permission=Permission(body.permission),
        now=now,
        client=client,
        if_version=wanted_version(request),
    )
    return await answer_task(request, session, actor, task_id)


@route(
    "DELETE",
    "/tasks/{task_id}/share/{user_id}",
    summary="Share a task with somebody no longer",
    answers={204: None},
    errors=("forbidden", "already_deleted", "precondition_failed"),
    scope="tasks:write",
)
async def unshare_task(
    request: web.Request,
    session: AsyncSession,
    actor: Actor,
    client: Client,
    task_id: UUID,
    user_id: UUID,
    now: datetime,
) -> web.Response:
    """Honours `If-Match`, with the task's ETag."""
    await share.unshare(
        session,
        actor=actor,
        task_id=task_id,
        user_id=user_id,
        now=now,
        client=client,
        if_version=wanted_version(request),
    )
    return no_content()

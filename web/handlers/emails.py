"""The outbox of e-mails, for administrators."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.outbox import manage
from web.responses import answer, page
from web.routing import RouteTable
from web.schemas.emails import Email, EmailList, EmailQuery

route = RouteTable("Admin")


def email_answer(row: Any) -> Email:
    """An e-mail, from a row with its columns."""
    return {
        "id": row.id,
        "message_id": row.message_id,
        "to": row.recipient,
        "subject": row.subject,
        "template": row.template,
        "state": row.state,
        "attempts": row.attempts,
        "next_attempt_at": row.next_attempt_at if row.state == "pending" else None,
        "sent_at": row.sent_at,
        "last_error": row.last_error,
        "user_id": row.user_id,
        "created_at": row.created_at,
    }


@route(
    "GET",
    "/admin/emails",
    summary="E-mails",
    answers={200: EmailList},
    auth="admin",
    success_headers={"Link": "The next page"},
    scope="admin",
)
async def list_emails(request: web.Request, session: AsyncSession, query: EmailQuery) -> web.Response:
    """Newest first; `since` and `until` are on when they were written."""
    found = await manage.list_emails(
        session,
        states=query.state,
        templates=query.template,
        since=query.since,
        until=query.until,
        q=query.q,
        limit=query.limit,
        cursor=query.cursor,
        count=query.count,
    )
    return page(request, [email_answer(row) for row in found.items], found.next_cursor, total=found.total)


@route(
    "POST",
    "/admin/emails/{email_id}/retry",
    summary="Try an e-mail again now",
    answers={202: Email},
    errors=("already_sent", "already_sending", "conflict"),
    auth="admin",
    scope="admin",
)
async def retry_email(session: AsyncSession, email_id: UUID, now: datetime) -> web.Response:
    """One that is dead, or waits for its next try. The reminders that it carries are on their way again with it; what
    should not go out any more (the task is done meanwhile, say) does not."""
    return answer(email_answer(await manage.retry_email(session, email_id=email_id, now=now)), status=202)

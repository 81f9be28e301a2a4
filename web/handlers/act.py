"""The pages behind the links in e-mails: GET shows one and changes nothing, POST to the same address acts.

Scanners and previews of mail programs follow links, so nothing may happen by GET. Errors are pages too
(`web.pages`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.accounts import password_reset, verification
from scheduler.accounts.client import Client
from scheduler.accounts.passwords import SHORTEST, Passwords
from scheduler.accounts.preferences import set_reminder_emails, wants_reminder_emails
from scheduler.clock import zone
from scheduler.database import Database
from scheduler.errors import Invalid
from scheduler.links import Links
from scheduler.mail.local_time import local_date_text, local_text
from scheduler.reminders import manage
from scheduler.reminders.linked import Linked, read_link, task_of
from scheduler.settings import Settings
from scheduler.tasks import change
from scheduler.tasks.read import TaskDetails, get_task
from web.handlers.documentation import STATIC
from web.pages import PAGES_PREFIX, page
from web.routing import FORM, JSON, Handler, RouteTable
from web.schemas.act import LinkQuery, SnoozeLinkQuery, UnsubscribeLinkQuery
from web.schemas.passwords import NewPasswordForm

MORNING = time(9)
"""When "tomorrow" begins, on the person's wall clock."""

route = RouteTable("Pages", prefix=PAGES_PREFIX.rstrip("/"))


def _page(
    method: str, path: str, *, media_types: tuple[str, ...] = (JSON,), password: bool = False
) -> Callable[[Handler], Handler]:
    return route(
        method,
        path,
        summary=path,
        answers={200: None},
        auth=None,
        documented=False,
        media_types=media_types,
        password=password,
    )


async def _task(
    session: AsyncSession, links: Links, token: str, now: datetime
) -> tuple[Linked, TaskDetails, dict[str, Any]]:
    """The link, its task, and what the pages show of it."""
    linked = await read_link(session, links=links, token=token, now=now)
    details = await get_task(session, actor=linked.actor, task_id=await task_of(session, linked))
    row = details.row
    due = None
    if row.due_at is not None:
        # An all-day task is due on a date of its own zone, wherever the reader is.
        due = (
            local_date_text(row.due_at, row.timezone) if row.all_day else local_text(row.due_at, linked.actor.timezone)
        )
    shown = {
        "title": row.title,
        "description": row.description,
        "due": due,
        "is_completed": row.status == "completed",
        "is_deleted": row.deleted_at is not None,
        "token": token,
    }
    return linked, details, shown


@_page("GET", "/done")
async def show_done(session: AsyncSession, links: Links, query: LinkQuery, now: datetime) -> web.Response:
    """Asks whether the task is done."""
    _, _, shown = await _task(session, links, query.token, now)
    return page("done.html", acted=False, **shown)


@_page("POST", "/done")
async def act_done(
    session: AsyncSession, links: Links, query: LinkQuery, client: Client, now: datetime
) -> web.Response:
    """Completes the task; doing so twice is no error."""
    linked, details, shown = await _task(session, links, query.token, now)
    if details.row.status != "completed":
        await change.change_task(
            session,
            actor=linked.actor,
            task_id=details.row.id,
            changes={"status": "completed"},
            now=now,
            client=client,
        )
    return page("done.html", acted=True, **{**shown, "is_completed": True})


@_page("GET", "/snooze")
async def show_snooze(session: AsyncSession, links: Links, query: SnoozeLinkQuery, now: datetime) -> web.Response:
    """Asks whether to be reminded again."""
    linked, _, shown = await _task(session, links, query.token, now)
    until = local_text(_until(query, linked, now), linked.actor.timezone)
    return page("snooze.html", acted=False, until=until, minutes=query.minutes, **shown)


@_page("POST", "/snooze")
async def act_snooze(session: AsyncSession, links: Links, query: SnoozeLinkQuery, now: datetime) -> web.Response:
    """Reminds this person again; counted from the click, not from the e-mail."""
    linked, _, shown = await _task(session, links, query.token, now)
    reminder = await manage.snooze(
        session,
        actor=linked.actor,
        reminder_id=linked.reminder_id,
        until=_until(query, linked, now),
        now=now,
    )
    until = local_text(reminder.fire_at, linked.actor.timezone)
    return page("snooze.html", acted=True, until=until, minutes=query.minutes, **shown)


def _until(query: SnoozeLinkQuery, linked: Linked, now: datetime) -> datetime:
    if query.minutes is not None:
        return now + timedelta(minutes=query.minutes)
    local_zone = zone(linked.actor.timezone)
    tomorrow = now.astimezone(local_zone).date() + timedelta(days=1)
    return datetime.combine(tomorrow, MORNING, tzinfo=local_zone)


@_page("GET", "/open")
async def show_task(session: AsyncSession, links: Links, query: LinkQuery, now: datetime) -> web.Response:
    """Shows the task, with what can be done about it."""
    _, _, shown = await _task(session, links, query.token, now)
    return page("open.html", **shown)


@_page("GET", "/unsubscribe")
async def show_unsubscribe(
    session: AsyncSession, links: Links, query: UnsubscribeLinkQuery, now: datetime
) -> web.Response:
    """Asks whether to stop (or to resume) reminder e-mails. The link works at any age: it must never fail to
    stop them."""
    linked = await read_link(session, links=links, token=query.token, now=now, lifetime=None)
    wanted = await wants_reminder_emails(session, user_id=linked.actor.user_id)
    return page("unsubscribe.html", acted=False, wanted=wanted, email=linked.email, token=query.token)


@_page("POST", "/unsubscribe")
async def act_unsubscribe(
    session: AsyncSession, links: Links, query: UnsubscribeLinkQuery, now: datetime
) -> web.Response:
    """Stops them, also by a mail program's own button (RFC 8058: its body `List-Unsubscribe=One-Click` adds
    nothing)."""
    linked = await read_link(session, links=links, token=query.token, now=now, lifetime=None)
    await set_reminder_emails(session, user_id=linked.actor.user_id, enabled=query.again)
    return page("unsubscribe.html", acted=True, wanted=query.again, email=linked.email, token=query.token)


@_page("GET", "/verify")
async def show_verify(session: AsyncSession, query: LinkQuery, now: datetime) -> web.Response:
    """Asks to confirm the address."""
    address = await verification.address_of(session, token=query.token, now=now)
    return page("verify.html", acted=False, address=address, token=query.token)


@_page("POST", "/verify")
async def act_verify(
    session: AsyncSession, query: LinkQuery, client: Client, settings: Settings, now: datetime
) -> web.Response:
    """Verifies the address, or makes it the person's new one."""
    address = await verification.verify_email(session, token=query.token, client=client, settings=settings, now=now)
    return page("verify.html", acted=True, address=address, token=query.token)


@_page("GET", "/reset")
async def show_reset(session: AsyncSession, query: LinkQuery, now: datetime) -> web.Response:
    """Asks for a new password."""
    found = await password_reset.find_reset(session, token=query.token, now=now)
    return _reset_page(query, found.email)


@_page("POST", "/reset", media_types=(FORM, JSON), password=True)
async def act_reset(
    database: Database,
    query: LinkQuery,
    body: NewPasswordForm | None,
    client: Client,
    settings: Settings,
    passwords: Passwords,
    now: datetime,
) -> web.Response:
    """Sets the password that was typed; one that is not taken is told on the page, and the link goes on working."""
    async with database.read() as session:
        found = await password_reset.find_reset(session, token=query.token, now=now)
    try:
        await password_reset.reset_password(
            database,
            token=query.token,
            password=body.password if body else "",
            client=client,
            passwords=passwords,
            settings=settings,
            now=now,
        )
    except Invalid as invalid:
        return _reset_page(query, found.email, objection=invalid.errors[0].message)
    return page("reset.html", acted=True, address=found.email, objection="", token=query.token)


def _reset_page(query: LinkQuery, address: str, *, objection: str = "") -> web.Response:
    return page(
        "reset.html",
        status=422 if objection else 200,
        acted=False,
        address=address,
        objection=objection,
        token=query.token,
        shortest=SHORTEST,
    )


def add_assets(app: web.Application) -> None:
    """The pages' style sheet."""

    async def style(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(STATIC / "pages.css", headers={"Cache-Control": "max-age=3600"})

    app.router.add_get(f"{PAGES_PREFIX}style.css", style)

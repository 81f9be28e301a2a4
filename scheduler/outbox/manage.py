"""What operators do with the outbox: look, and have an e-mail tried again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, Email, Reminder
from models.delivery import DeliveryState
from models.email import EmailState
from models.reminder import ReminderState
from scheduler.database import AFTER_COMMIT
from scheduler.errors import Conflict, NotFound
from scheduler.logs import get_logger
from scheduler.newest import LOOKED_AT, NOTHING_BELOW, conditions_of, floor, given, newest
from scheduler.paging import Page, after, decode_cursor, encode_cursor
from scheduler.tasks.versions import raise_versions

_TABLE = Email.__table__
_SHOWN = [column for column in _TABLE.columns if column is not _TABLE.c.message]

log = get_logger("emails")


async def list_emails(
    session: AsyncSession,
    *,
    states: Sequence[str] = (),
    templates: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    q: str | None = None,
    limit: int,
    cursor: str | None = None,
    count: bool = False,
    looked_at: int = LOOKED_AT,
) -> Page[Row[Any]]:
    """E-mails, newest first, all but their messages; `q` stands in the address or the subject, in any case.

    `since` (inclusive) and `until` (exclusive) are on `created_at`. By template or `q` a page looks at `looked_at`
    e-mails at the most; it may be short then, and the next goes on from there. Raises `BadCursor`.
    """
    filters = given(state=states, template=templates)
    at = _TABLE.c.created_at
    between: list[ColumnElement[bool]] = []
    if since:
        between.append(at >= since)
    if until:
        between.append(at < until)
    checked: list[ColumnElement[bool]] = []
    if q:
        texts = (func.lower(_TABLE.c.recipient), func.lower(_TABLE.c.subject))
        checked.append(or_(*(text.contains(q.lower(), autoescape=True) for text in texts)))
    total = None
    if count:
        query = select(func.count()).select_from(_TABLE).where(*conditions_of(_TABLE, filters), *between, *checked)
        total = (await session.execute(query)).scalar_one()
    if cursor:
        created_at, email_id = decode_cursor(cursor, datetime, UUID)
        between.append(after((at, created_at, True), (_TABLE.c.id, email_id, True)))
    leading = "state" if "state" in filters else None
    lowest = None
    if checked or "template" in filters:
        lowest = await floor(session, at=at, filters=filters, leading=leading, conditions=between, looked_at=looked_at)
    if lowest is not None:
        between.append(at >= lowest)
    conditions = [*between, *checked]
    query = newest(_SHOWN, at=at, filters=filters, leading=leading, conditions=conditions, limit=limit + 1)
    found = (await session.execute(query)).all()
    items = found[:limit]
    if len(found) > limit:
        return Page(items, encode_cursor(items[-1].created_at, items[-1].id), total)
    return Page(items, None if lowest is None else encode_cursor(lowest, NOTHING_BELOW), total)


async def retry_email(session: AsyncSession, *, email_id: UUID, now: datetime) -> Row[Any]:
    """Have an e-mail tried at once: one that is dead, or one that waits for its next try. Returns it.

    What a dead one carried is on its way again: its failed deliveries, and their reminders where they failed with it.
    Before it leaves it is looked at again like any that has waited: who has done the task meanwhile is not reminded.
    Raises `NotFound`, `Conflict` (`already_sent`; `already_sending` while a worker is at it).
    """
    query = select(*_SHOWN, func.length(Email.message).label("size")).where(Email.id == email_id).with_for_update()
    email = (await session.execute(query)).one_or_none()
    if email is None:
        raise NotFound()
    if email.state == EmailState.SENT:
        raise Conflict("This e-mail was sent; a mail server took it.", code="already_sent")
    if email.state == EmailState.SENDING:
        raise Conflict("A worker is sending this e-mail just now; wait for how it ends.", code="already_sending")
    if not email.size:
        raise Conflict("Its message held a link that works once and is not kept; have a new one sent.")
    await session.execute(
        update(_TABLE).where(_TABLE.c.id == email_id).values(state=EmailState.PENDING.value, next_attempt_at=now)
    )
    if email.state == EmailState.DEAD:
        await _revive_deliveries(session, email_id)
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("email.retried", email_id=str(email_id)))
    return (await session.execute(select(*_SHOWN).where(_TABLE.c.id == email_id))).one()


async def _revive_deliveries(session: AsyncSession, email_id: UUID) -> None:
    failed = select(Delivery.id, Delivery.reminder_id, Delivery.task_id, Delivery.fire_at).where(
        Delivery.email_id == email_id, Delivery.state == DeliveryState.FAILED.value
    )
    deliveries = (await session.execute(failed)).all()
    if not deliveries:
        return
    # Tasks before reminders, as a change of a task locks them: in one order there is no deadlock.
    await raise_versions(session, {each.task_id for each in deliveries})
    await session.execute(
        update(Delivery.__table__)
        .where(Delivery.id.in_([each.id for each in deliveries]))
        .values(state=DeliveryState.SENDING.value, reason=None)
    )
    # Those of this firing: one that was snoozed or moved since has a life of its own.
    this_firing = (
        select(Reminder.id)
        .join(Delivery, and_(Delivery.reminder_id == Reminder.id, Delivery.fire_at == Reminder.fire_at))
        .where(Delivery.email_id == email_id, Reminder.state == ReminderState.FAILED.value)
    )
    reminder_ids = sorted((await session.execute(this_firing)).scalars())
    await session.execute(
        update(Reminder.__table__)
        .where(Reminder.id.in_(reminder_ids), Reminder.state == ReminderState.FAILED.value)
        .values(state=ReminderState.SENDING.value, reason=None)
    )

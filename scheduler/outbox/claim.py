"""The e-mail outbox's rows: claim with a lease, settle in bulk, hand back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import Delivery, Email, Reminder
from models.delivery import DeliveryState
from models.email import EmailState
from models.reminder import ReminderState
from scheduler.database import affected
from scheduler.deliveries.settle import Ending, fail
from scheduler.mail.delivery import Envelope
from scheduler.tasks.versions import raise_versions

LEASE = timedelta(seconds=10)
"""Kept ahead by the sender while it lives, so it says how soon a dead one's e-mails are taken up."""
BATCH = 250
GIVE_UP_AFTER = timedelta(days=3)
SECRET_TEMPLATES = frozenset({"verify_email", "change_email", "reset_password", "invitation"})
"""Their tokens are stored as hashes; the message with the link is emptied once it is sent."""
REFUSED = "refused"
GAVE_UP = "gave_up"


class ClaimedEmail(NamedTuple):
    """An e-mail that is ours to send."""

    id: UUID
    attempts: int
    """This one included."""
    created_at: datetime
    envelope: Envelope
    ending: Ending | None = None
    """The delivery that it carries, where this process has just written both; else the database is asked."""
    holds_secret: bool = False
    """Whether it carries a link that must not be kept once it is sent."""


class Failure(NamedTuple):
    """An e-mail that did not leave: `again_at` None means that it never will."""

    id: UUID
    error: str
    again_at: datetime | None
    counts: bool
    """Whether the try counts: it does not when the server could not be reached at all."""
    reason: str = GAVE_UP
    """What the ledger says when it never will."""


async def claim_emails(session: AsyncSession, *, owner: UUID, now: datetime, limit: int = BATCH) -> list[ClaimedEmail]:
    """Take up to `limit` e-mails that are to be tried now, longest waiting first."""
    query = (
        select(
            Email.id,
            Email.attempts,
            Email.created_at,
            Email.message_id,
            Email.sender,
            Email.recipient,
            Email.message,
            Email.template,
        )
        .where(Email.state == EmailState.PENDING.value, Email.next_attempt_at <= now)
        .order_by(Email.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = (await session.execute(query)).all()
    if rows:
        await session.execute(_CLAIM, {"ids": [row.id for row in rows], "owner_id": owner, "until": now + LEASE})
    return [
        ClaimedEmail(
            row.id,
            row.attempts + 1,
            row.created_at,
            Envelope(row.message_id, row.sender, row.recipient, row.message),
            holds_secret=row.template in SECRET_TEMPLATES,
        )
        for row in rows
    ]


async def keep_leases(session: AsyncSession, *, owner: UUID, now: datetime) -> None:
    """Keep the leases of all that `owner` holds ahead."""
    await session.execute(
        update(Email.__table__)
        .where(Email.state == EmailState.SENDING.value, Email.owner == owner)
        .values(lease_until=now + LEASE)
    )


async def settle_sent(session: AsyncSession, *, emails: Sequence[ClaimedEmail], now: datetime) -> None:
    """Record that a server took these e-mails; their deliveries and reminders are sent with them."""
    await session.execute(_SENT, {"ids": [email.id for email in emails], "at": now})
    if secret := [email.id for email in emails if email.holds_secret]:
        await session.execute(update(Email.__table__).where(Email.id.in_(secret)).values(message=b""))
    endings = [email.ending for email in emails if email.ending is not None]
    if unknown := [email.id for email in emails if email.ending is None]:
        endings += await endings_of(session, unknown)
    if not endings:
        return
    ended = await session.execute(_DELIVERIES_SENT, {"ids": [each.delivery_id for each in endings], "at": now})
    if affected(ended) == 0:
        return  # settled before: the commit had landed though its answer was lost
    # Tasks before reminders, as a change of a task locks them.
    await raise_versions(session, {each.task_id for each in endings})
    await session.execute(_REMINDERS_SENT, {"ids": sorted({each.reminder_id for each in endings}), "at": now})


async def settle_failures(session: AsyncSession, *, failures: Iterable[Failure], owner: UUID) -> None:
    """Record what did not leave: to be tried again, or dead. One statement for all that failed alike."""
    alike: dict[tuple[str, datetime | None, bool, str], list[UUID]] = {}
    for failure in failures:
        alike.setdefault(failure[1:], []).append(failure.id)
    for (error, again_at, counts, reason), ids in alike.items():
        values: dict[str, Any] = {"owner": None, "lease_until": None, "last_error": error[:500]}
        if again_at is None:
            values |= {"state": EmailState.DEAD.value}
        else:
            values |= {"state": EmailState.PENDING.value, "next_attempt_at": again_at}
        if not counts:
            values |= {"attempts": Email.attempts - 1}
        await session.execute(
            update(Email.__table__)
            .where(Email.id.in_(ids), Email.owner == owner, Email.state == EmailState.SENDING.value)
            .values(**values)
        )
        if again_at is None:
            await fail(session, await endings_of(session, ids), reason=reason)


async def hand_back(session: AsyncSession, *, owner: UUID, now: datetime, but: Sequence[UUID] = ()) -> int:
    """Give back all that `owner` holds (`but` some), at once and without counting the try. Returns how many."""
    given = await session.execute(
        update(Email.__table__)
        .where(Email.owner == owner, Email.state == EmailState.SENDING.value, Email.id.not_in(but))
        .values(
            state=EmailState.PENDING.value,
            owner=None,
            lease_until=None,
            next_attempt_at=now,
            attempts=Email.attempts - 1,
        )
    )
    return affected(given)


class Lease(NamedTuple):
    """Whose, and until when."""

    owner: UUID | None
    until: datetime


async def expired_leases(session: AsyncSession, *, now: datetime) -> set[Lease]:
    """The leases that have run out by the wall's clock; few, as a sender keeps all of its own at one time."""
    query = (
        select(Email.owner, Email.lease_until)
        .where(
            Email.state == EmailState.SENDING.value,
            # Further ahead than anybody gives: the clock has been set back since.
            or_(Email.lease_until < now, Email.lease_until > now + 3 * LEASE),
        )
        .distinct()
    )
    return {Lease(owner, until) for owner, until in await session.execute(query)}


async def release(session: AsyncSession, *, leases: Iterable[Lease], limit: int = 5000) -> int:
    """Give back what is still held under these very leases: their senders are dead. Returns how many."""
    count = 0
    for lease in leases:
        query = (
            select(Email.id)
            .where(
                Email.state == EmailState.SENDING.value, Email.owner == lease.owner, Email.lease_until == lease.until
            )
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        ids = (await session.execute(query)).scalars().all()
        if ids:
            await session.execute(
                update(Email.__table__)
                .where(Email.id.in_(ids))
                .values(state=EmailState.PENDING.value, owner=None, lease_until=None)
            )
        count += len(ids)
    return count


async def endings_of(session: AsyncSession, email_ids: Sequence[UUID]) -> list[Ending]:
    """The deliveries that these e-mails carry and that are on their way."""
    return [Ending(*row) for row in await session.execute(_DELIVERIES, {"ids": email_ids})]


_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_CLAIM = (
    update(Email.__table__)
    .where(Email.id.in_(_IDS))
    .values(
        state=EmailState.SENDING.value,
        owner=bindparam("owner_id"),
        lease_until=bindparam("until"),
        attempts=Email.attempts + 1,
    )
)
# Not fenced by the state: the server has taken it, so sent it is, whoever holds the row by now.
_SENT = (
    update(Email.__table__)
    .where(Email.id.in_(_IDS), Email.state != EmailState.SENT.value)
    .values(state=EmailState.SENT.value, sent_at=bindparam("at"), owner=None, lease_until=None, last_error=None)
)
_DELIVERIES = select(Delivery.id, Delivery.reminder_id, Delivery.task_id).where(
    Delivery.email_id.in_(_IDS), Delivery.state == DeliveryState.SENDING.value
)
_DELIVERIES_SENT = (
    update(Delivery.__table__)
    .where(Delivery.id.in_(_IDS))
    .values(state=DeliveryState.SENT.value, sent_at=bindparam("at"))
)
_REMINDERS_SENT = (
    update(Reminder.__table__)
    .where(Reminder.id.in_(_IDS), Reminder.state == ReminderState.SENDING.value)
    .values(state=ReminderState.SENT.value, sent_at=bindparam("at"), owner=None)
)

"""Another e-mail address for an account: asked for with the password, done by the link that goes to the new address.

Whoever asks is never told whether the address belongs to somebody else's account: the answer is the same, and takes
as long (OWASP ASVS 5.0, 6.3.8). Its owner gets no link.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from models import Email, User
from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.accounts.confirmation import confirm_password, wrong_password
from scheduler.accounts.notices import SecurityEvent, send_security_notice
from scheduler.accounts.one_time_tokens import LIFETIMES, Purpose, make_token, void_tokens, were_enough
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.revocation import revoke
from scheduler.activity.record import record
from scheduler.database import AFTER_COMMIT, Database
from scheduler.errors import Conflict
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.mail import templates
from scheduler.outbox.write import add_email
from scheduler.settings import Settings

_USER = User.__table__

log = get_logger("security")


class _NewAddress(NamedTuple):
    """To whom the link goes."""

    id: UUID
    email: str
    name: str


async def request_email_change(
    database: Database,
    *,
    actor: Actor,
    address: str,
    password: str,
    client: Client,
    passwords: Passwords,
    settings: Settings,
    now: datetime,
) -> None:
    """Send the link to `address` (normalised), and tell the present one of it. One's own address changes nothing, and
    after ten requests an hour no more e-mails are sent.

    Raises `Forbidden` (`bad_password`).
    """
    stored = await confirm_password(database, user_id=actor.user_id, password=password, passwords=passwords, now=now)

    async def request(session: AsyncSession) -> None:
        user = (await session.execute(select(_USER).where(_USER.c.id == actor.user_id).with_for_update())).one()
        if user.password_hash != stored:
            raise wrong_password()
        if user.email == address:
            return
        # The same statements and the same e-mail's making for an address that is taken: nothing tells them apart.
        is_taken = (await session.execute(select(_USER.c.id).where(_USER.c.email == address))).first() is not None
        if await were_enough(session, user_id=user.id, purpose=Purpose.CHANGE_EMAIL, now=now):
            return
        # Of several links only the newest works: who corrects a typing error must not be taken back by the first.
        await void_tokens(session, user_id=user.id, purposes=(Purpose.CHANGE_EMAIL,), now=now)
        await _send_link(session, user=user, address=address, is_taken=is_taken, settings=settings, now=now)
        await send_security_notice(
            session,
            user=user,
            event=SecurityEvent.EMAIL_CHANGE_REQUESTED,
            client=client,
            settings=settings,
            now=now,
        )
        await _record(session, user.id, "email_change_requested", client=client, now=now)
        told = {"user_id": str(user.id)}
        session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("security.email_change_requested", **told))

    await database.retry_write(request)


async def _send_link(
    session: AsyncSession, *, user: Row[Any], address: str, is_taken: bool, settings: Settings, now: datetime
) -> None:
    purpose = Purpose.CHANGE_EMAIL
    token = await make_token(session, user_id=user.id, purpose=purpose, email=address, now=now)
    rendered = templates.change_email(
        person_name=user.name,
        link=f"{settings.public_url}/act/verify?token={token}",
        hours=int(LIFETIMES[purpose].total_seconds() // 3600),
    )
    email_id = await add_email(
        session,
        user=_NewAddress(user.id, address, user.name),
        rendered=rendered,
        template=purpose.value,
        settings=settings,
        now=now,
    )
    # For a taken address it is written too, and goes again: it is the writing that takes time.
    await session.execute(delete(Email.__table__).where(Email.__table__.c.id == (email_id if is_taken else new_id())))


async def change_address(
    session: AsyncSession, *, former: Row[Any], address: str, client: Client | None, settings: Settings, now: datetime
) -> None:
    """Make `address`, whose owner has just used the link, that of the person whose row `former` is (and is locked). The
    former one is told, and whatever links were sent there work no longer.

    Raises `Conflict` (`email_taken`) where it belongs to somebody else by now.
    """
    user_id = former.id
    taken = Conflict("Somebody else has this e-mail address by now; ask for another one.", code="email_taken")
    if (await session.execute(select(_USER.c.id).where(_USER.c.email == address, _USER.c.id != user_id))).first():
        raise taken
    change = update(_USER).where(_USER.c.id == user_id).values(email=address, email_verified_at=now, updated_at=now)
    try:
        await session.execute(change)
    except IntegrityError:  # somebody took it between the two statements
        raise taken from None
    await void_tokens(session, user_id=user_id, now=now)
    await send_security_notice(
        session, user=former, event=SecurityEvent.EMAIL_CHANGED, client=client, settings=settings, now=now
    )
    changes = {"email": [former.email, address]}
    await _record(session, user_id, "email_changed", client=client, now=now, changes=changes)
    revoke(session, user_id)
    told = {"user_id": str(user_id)}
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("security.email_changed", **told))


async def _record(session: AsyncSession, user_id: UUID, action: str, **more: Any) -> None:
    await record(session, actor_id=user_id, action=action, target_type="user", target_id=user_id, **more)

"""Leaving: a person deactivates their account, or asks for it to be deleted.

Both want the password once more (`scheduler.accounts.confirmation`); what was confirmed is compared again in the
transaction, as the password may be changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import ApiToken, User
from models.user import AccountStatus
from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.accounts.confirmation import wrong_password
from scheduler.accounts.last_admin import check_another_admin
from scheduler.accounts.notices import SecurityEvent, send_security_notice
from scheduler.accounts.revocation import revoke
from scheduler.accounts.users import end_sessions, hold
from scheduler.activity.record import record
from scheduler.database import AFTER_COMMIT
from scheduler.logs import get_logger
from scheduler.mail import templates
from scheduler.mail.local_time import local_date_text
from scheduler.outbox.write import add_email
from scheduler.settings import Settings

GRACE = timedelta(days=14)
"""The contract's: so long signing in takes it back."""
TEMPLATE = "account_deletion"

log = get_logger("security")


async def deactivate_account(
    session: AsyncSession, *, actor: Actor, confirmed: str, client: Client, settings: Settings, now: datetime
) -> None:
    """Deactivate one's own account: only an administrator brings it back.

    `confirmed`: what `confirm_password` returned. Raises `Forbidden` (`bad_password`), `LastAdmin`.
    """
    present = await _leaving(session, actor=actor, confirmed=confirmed)
    # Sessions stay, and are refused as those of an account that is deactivated; they end when it is brought back.
    await _write(session, present, status=AccountStatus.DEACTIVATED, now=now)
    await _record(session, present, action="account_deactivated", client=client, now=now)
    _after_commit(session, lambda: log.info("security.account_deactivated", user_id=str(present.id)))
    event = SecurityEvent.ACCOUNT_DEACTIVATED
    await send_security_notice(session, user=present, event=event, client=client, settings=settings, now=now)


async def request_deletion(
    session: AsyncSession, *, actor: Actor, confirmed: str, client: Client, settings: Settings, now: datetime
) -> None:
    """Have one's own account deleted: sessions and tokens end at once, and after `GRACE` it is erased
    (`scheduler.accounts.erasure`). Raises as `deactivate_account` does.
    """
    present = await _leaving(session, actor=actor, confirmed=confirmed)
    await _write(session, present, status=AccountStatus.DELETING, deletion_requested_at=now, now=now)
    await end_sessions(session, user_id=present.id, now=now)
    await session.execute(delete(ApiToken.__table__).where(ApiToken.user_id == present.id))
    await _record(session, present, action="account_deletion_requested", client=client, now=now)
    _after_commit(session, lambda: log.info("security.account_deletion_requested", user_id=str(present.id)))
    if present.email_verified_at is None and settings.require_verified_email:
        return
    rendered = templates.account_deletion(
        person_name=present.name,
        address=present.email,
        erased_on=local_date_text(now + GRACE, present.timezone),
        days=GRACE.days,
    )
    await add_email(session, user=present, rendered=rendered, template=TEMPLATE, settings=settings, now=now)


async def _leaving(session: AsyncSession, *, actor: Actor, confirmed: str) -> Row[Any]:
    """The actor's row, locked, once nothing speaks against their leaving."""
    present = await hold(session, user_id=actor.user_id)
    stored = (await session.execute(select(User.password_hash).where(User.id == actor.user_id))).scalar_one()
    if stored != confirmed:
        raise wrong_password()
    await check_another_admin(session, present=present)
    return present


async def _write(
    session: AsyncSession, present: Row[Any], *, status: AccountStatus, now: datetime, **columns: Any
) -> None:
    values = {"status": status.value, "updated_at": now, **columns}
    await session.execute(update(User.__table__).where(User.id == present.id).values(values))
    revoke(session, present.id)


async def _record(session: AsyncSession, present: Row[Any], *, action: str, client: Client, now: datetime) -> None:
    await record(
        session,
        actor_id=present.id,
        action=action,
        target_type="user",
        target_id=present.id,
        now=now,
        client=client,
    )


def _after_commit(session: AsyncSession, call: Callable[[], None]) -> None:
    session.info.setdefault(AFTER_COMMIT, []).append(call)

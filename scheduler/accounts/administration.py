"""What administrators do with accounts, over HTTP and on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models import User
from models.run import RunTrigger
from models.user import AccountStatus
from scheduler.access import Actor, Role
from scheduler.accounts import names
from scheduler.accounts.addresses import normalise_email
from scheduler.accounts.client import Client
from scheduler.accounts.erasure import erase
from scheduler.accounts.invitations import send_invitation
from scheduler.accounts.last_admin import check_another_admin
from scheduler.accounts.login_lock import address_digest, forget_failures
from scheduler.accounts.notices import SecurityEvent, send_security_notice
from scheduler.accounts.one_time_tokens import void_tokens
from scheduler.accounts.passwords import Passwords, objection
from scheduler.accounts.profile import write_profile
from scheduler.accounts.revocation import revoke
from scheduler.accounts.sign_up import add_user
from scheduler.accounts.users import end_sessions, get_user, hold, shown_status
from scheduler.accounts.verification import send_verification
from scheduler.activity.record import record
from scheduler.database import AFTER_COMMIT, Database
from scheduler.errors import FieldError, Invalid, NotFound
from scheduler.logs import get_logger
from scheduler.runs.enqueue import enqueue
from scheduler.runs.jobs import JobName
from scheduler.settings import Settings

log = get_logger("security")


async def create_user(
    database: Database,
    *,
    actor: Actor,
    email: str,
    name: str,
    role: Role = Role.USER,
    timezone: str | None = None,
    password: str | None = None,
    client: Client,
    settings: Settings,
    passwords: Passwords,
    now: datetime,
) -> Row[Any]:
    """Make an account for somebody: with a password they are asked to verify the address, without one they get an
    invitation, which does both. Returns the person's row. Raises `Invalid`, `Conflict` (`email_taken`).
    """
    address = _checked(email, name, password)
    password_hash = await passwords.hash(password) if password is not None else None

    async def work(session: AsyncSession) -> Row[Any]:
        user = await add_user(
            session,
            email=address,
            name=name,
            role=role,
            timezone=timezone,
            password_hash=password_hash,
            now=now,
        )
        if password_hash is None:
            inviter = await get_user(session, user_id=actor.user_id)
            await send_invitation(session, user=user, inviter_name=inviter.name, settings=settings, now=now)
        else:
            await send_verification(session, user=user, settings=settings, now=now)
        await _record(session, actor, "user_created", user.id, client, now, {"role": (None, role.value)})
        made = {"user_id": str(user.id), "by_user_id": str(actor.user_id), "role": role.value}
        _after_commit(session, "security.user_created", made)
        return await get_user(session, user_id=user.id)

    return await database.retry_write(work)


async def change_user(
    session: AsyncSession,
    *,
    actor: Actor,
    user_id: UUID,
    changes: Mapping[str, Any],
    client: Client,
    settings: Settings,
    now: datetime,
) -> Row[Any]:
    """Change `role`, `status` (`active` or `deactivated`), `name`, `bio`, `phone`, `timezone`, `locale` of somebody.

    Who is deactivated is refused wherever they are signed in, and is signed out when they are brought back. Bringing
    back takes a deletion back too; deactivating who is to be deleted keeps them from taking it back themselves.
    Returns the person's row. Raises `NotFound`, `LastAdmin`.
    """
    present = await hold(session, user_id=user_id)
    given = {key: value for key, value in changes.items() if key != "status"}
    values = {key: value for key, value in given.items() if getattr(present, key) != value}
    values |= _status_columns(present, changes.get("status", present.status))
    if not values:
        return present
    if _demotes(values):
        await check_another_admin(session, present=present)
    await write_profile(session, user_id=user_id, values=values, now=now)
    if values.keys() & {"role", "status"}:
        revoke(session, user_id)
    if values.get("status") == AccountStatus.ACTIVE:
        await end_sessions(session, user_id=user_id, now=now)
    if changed := _shown_changes(present, values):
        await _record(session, actor, "user_changed", user_id, client, now, changed)
    # Of a person's words no log says more than that they were changed.
    told = {key: str(changed[key][1]) for key in ("role", "status") if key in changed}
    fields = {"user_id": str(user_id), "by_user_id": str(actor.user_id), "fields": sorted(values)}
    _after_commit(session, "security.user_changed", fields | told)
    for event in _events(changed):
        await send_security_notice(session, user=present, event=event, client=None, settings=settings, now=now)
    return await get_user(session, user_id=user_id)


async def delete_user(session: AsyncSession, *, actor: Actor, user_id: UUID, client: Client, now: datetime) -> None:
    """Delete an account for good: what identifies the person goes at once, and a run follows that erases all they left
    behind. Their tasks stay, assigned to them no longer. Raises as `change_user` does.
    """
    present = await hold(session, user_id=user_id)
    await check_another_admin(session, present=present)
    await erase(session, user_id=user_id, with_own_tasks=False, now=now)
    await _record(session, actor, "user_deleted", user_id, client, now)
    await enqueue(session, job=JobName.ERASE_ACCOUNTS.value, trigger=RunTrigger.EVENT, now=now)
    fields = {"user_id": str(user_id), "by_user_id": str(actor.user_id)}
    _after_commit(session, "security.user_deleted", fields)


async def end_all_sessions(
    session: AsyncSession, *, actor: Actor, user_id: UUID, client: Client, settings: Settings, now: datetime
) -> None:
    """Sign a person out everywhere: access and refresh tokens stop working at once. Raises `NotFound`."""
    user = await get_user(session, user_id=user_id)
    await end_sessions(session, user_id=user_id, now=now)
    await _record(session, actor, "sessions_revoked", user_id, client, now)
    fields = {"user_id": str(user_id), "by_user_id": str(actor.user_id)}
    _after_commit(session, "security.sessions_revoked", fields)
    event = SecurityEvent.SESSIONS_REVOKED
    await send_security_notice(session, user=user, event=event, client=None, settings=settings, now=now)


# -- on the command line -------------------------------------------------------------------------------------


async def list_admins(database: Database) -> Sequence[User]:
    """All administrators, by e-mail address."""
    async with database.read() as session:
        query = select(User).where(User.role == Role.ADMIN.value).order_by(User.email)
        return (await session.execute(query)).scalars().all()


async def reset_password(
    database: Database, *, email: str, password: str, settings: Settings, passwords: Passwords, now: datetime
) -> None:
    """Set a new password and end all sessions of the account. Raises `NotFound` or `Invalid`."""
    address = _checked(email, None, password)
    password_hash = await passwords.hash(password)

    async def work(session: AsyncSession) -> None:
        user_id = (await session.execute(select(User.id).where(User.email == address))).scalar_one_or_none()
        if user_id is None:
            raise NotFound(f"There is no account with the address {address}.")
        user = await get_user(session, user_id=user_id, for_update=True)
        await session.execute(
            update(User.__table__).where(User.id == user_id).values(password_hash=password_hash, updated_at=now)
        )
        await end_sessions(session, user_id=user_id, now=now)
        # Nor may a link that somebody else has asked for undo it: to a new address above all.
        await void_tokens(session, user_id=user_id, now=now)
        await forget_failures(session, digest=address_digest(user.email))
        await record(session, actor_id=None, action="password_reset", target_type="user", target_id=user_id, now=now)
        event = SecurityEvent.PASSWORD_RESET
        await send_security_notice(session, user=user, event=event, client=None, settings=settings, now=now)
        _after_commit(session, "security.password_reset", {"user_id": str(user_id)})

    await database.retry_write(work)


# -- what they share -----------------------------------------------------------------------------------------


def _checked(email: str, name: str | None, password: str | None) -> str:
    """The address as it is stored. Raises `Invalid` for all that is wrong with what is given."""
    errors = []
    address = ""
    try:
        address = normalise_email(email)
    except ValueError as error:
        errors.append(FieldError("/email", str(error)))
    if password is not None and (why := objection(password, email=address or email)):
        errors.append(FieldError("/password", why))
    if name is not None and (why := names.objection(name)):
        errors.append(FieldError("/name", why))
    if errors:
        raise Invalid(*errors)
    return address


def _demotes(values: Mapping[str, Any]) -> bool:
    """Whether nobody who is changed so is an active administrator afterwards."""
    is_admin = values.get("role", Role.ADMIN) == Role.ADMIN
    return not is_admin or values.get("status", AccountStatus.ACTIVE) != AccountStatus.ACTIVE


def _status_columns(present: Row[Any], wanted: str) -> dict[str, Any]:
    """What changes where the account is to have this status, as clients know it."""
    if wanted == present.status:
        return {}
    columns: dict[str, Any] = {"status": wanted}
    if wanted == AccountStatus.ACTIVE:
        columns["deletion_requested_at"] = None
    return columns


def _shown_changes(present: Row[Any], values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The old and new values that clients see."""
    changed = {key: (getattr(present, key), value) for key, value in values.items() if key != "deletion_requested_at"}
    if "status" in changed:
        changed["status"] = (shown_status(present.status), values["status"])
    return {key: (old, new) for key, (old, new) in changed.items() if old != new}


def _events(changed: Mapping[str, tuple[Any, Any]]) -> list[SecurityEvent]:
    """What the person is told of."""
    events = [SecurityEvent.ROLE_CHANGED] if "role" in changed else []
    if "status" in changed:
        is_back = changed["status"][1] == AccountStatus.ACTIVE
        events.append(SecurityEvent.ACCOUNT_REACTIVATED if is_back else SecurityEvent.ACCOUNT_DEACTIVATED)
    return events


async def _record(
    session: AsyncSession,
    actor: Actor,
    action: str,
    user_id: UUID,
    client: Client,
    now: datetime,
    changes: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    await record(
        session,
        actor_id=actor.user_id,
        action=action,
        target_type="user",
        target_id=user_id,
        now=now,
        client=client,
        changes=changes,
    )


def _after_commit(session: AsyncSession, event: str, fields: Mapping[str, Any]) -> None:
    session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info(event, **fields))

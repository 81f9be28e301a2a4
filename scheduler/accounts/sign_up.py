"""Sign-up, and accounts made by an administrator."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from models import User
from scheduler.access import Role
from scheduler.accounts import names
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.addresses import normalise_email
from scheduler.accounts.client import Client
from scheduler.accounts.passwords import Passwords, objection
from scheduler.accounts.sign_in import Tokens, open_session
from scheduler.accounts.verification import send_verification
from scheduler.activity.record import record
from scheduler.database import AFTER_COMMIT, Database
from scheduler.errors import Conflict, FieldError, Forbidden, Invalid
from scheduler.identifiers import new_id
from scheduler.logs import get_logger
from scheduler.settings import Settings

log = get_logger("security")


async def sign_up(
    database: Database,
    *,
    email: str,
    password: str,
    name: str,
    timezone: str | None,
    client: Client,
    settings: Settings,
    passwords: Passwords,
    access_tokens: AccessTokens,
    now: datetime,
) -> Tokens:
    """Make an account, sign it in, and send the e-mail that verifies its address.

    Raises `Invalid`, `Conflict` (`email_taken`) or `Forbidden` (`signup_closed`).
    """
    if settings.signup == "closed":
        raise Forbidden("Sign-up is closed here; ask an administrator for an account.", code="signup_closed")
    address = _checked(email, password, name)
    password_hash = await passwords.hash(password)

    async def make(session: AsyncSession) -> Tokens:
        user = await add_user(
            session,
            email=address,
            name=name,
            role=Role.USER,
            timezone=timezone,
            password_hash=password_hash,
            now=now,
        )
        await send_verification(session, user=user, settings=settings, now=now)
        await record(
            session,
            actor_id=user.id,
            action="signed_up",
            target_type="user",
            target_id=user.id,
            client=client,
            now=now,
        )
        told = {"user_id": str(user.id)}
        session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("security.signed_up", **told))
        return await open_session(session, user=user, client=client, access_tokens=access_tokens, now=now)

    return await database.retry_write(make)


async def create_admin(
    database: Database, *, email: str, name: str, password: str, passwords: Passwords, now: datetime
) -> UUID:
    """Make an administrator whose address counts as verified (command line). Raises as `sign_up` does."""
    address = _checked(email, password, name)
    password_hash = await passwords.hash(password)
    async with database.write() as session:
        user = await add_user(
            session,
            email=address,
            name=name.strip(),
            role=Role.ADMIN,
            timezone=None,
            password_hash=password_hash,
            verified=True,
            now=now,
        )
        await record(
            session,
            actor_id=None,
            action="user_created",
            target_type="user",
            target_id=user.id,
            now=now,
            changes={"role": (None, Role.ADMIN.value)},
        )
        told = {"user_id": str(user.id), "role": Role.ADMIN.value}
        session.info.setdefault(AFTER_COMMIT, []).append(lambda: log.info("security.user_created", **told))
        return user.id


async def add_user(
    session: AsyncSession,
    *,
    email: str,
    name: str,
    role: Role,
    timezone: str | None,
    password_hash: str | None,
    now: datetime,
    verified: bool = False,
) -> User:
    """Insert a person. Raises `Conflict` (`email_taken`)."""
    values = {
        "id": new_id(),
        "email": email,
        "name": name,
        "name_folded": names.folded(name),
        "role": role.value,
        "status": "active",
        "password_hash": password_hash,
        "email_verified_at": now if verified else None,
        "bio": "",
        "timezone": timezone or "UTC",
        "locale": "en",
        "created_at": now,
        "updated_at": now,
    }
    taken = Conflict("There is an account with this e-mail address; sign in instead.", code="email_taken")
    if (await session.execute(select(User.id).where(User.email == email))).first():
        raise taken
    try:
        await session.execute(insert(User).values(values))
    except IntegrityError:  # somebody else signed up between the two statements
        raise taken from None
    return User(**values, phone=None, phone_verified_at=None)


def _checked(email: str, password: str, name: str) -> str:
    """The address as it is stored. Raises `Invalid` for all that is wrong with the three."""
    errors = []
    address = ""
    try:
        address = normalise_email(email)
    except ValueError as error:
        errors.append(FieldError("/email", str(error)))
    if why := objection(password, email=address or email):
        errors.append(FieldError("/password", why))
    if why := names.objection(name):
        errors.append(FieldError("/name", why))
    if errors:
        raise Invalid(*errors)
    return address

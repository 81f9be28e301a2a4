"""What the command line does with accounts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update

from models import Session, User
from scheduler.accounts.addresses import normalise_email
from scheduler.accounts.passwords import Passwords, objection
from scheduler.database import Database
from scheduler.errors import FieldError, Invalid, NotFound


async def list_admins(database: Database) -> Sequence[User]:
    """All administrators, by e-mail address."""
    async with database.read() as session:
        query = select(User).where(User.role == "admin").order_by(User.email)
        return (await session.execute(query)).scalars().all()


async def reset_password(database: Database, *, email: str, password: str, passwords: Passwords, now: datetime) -> None:
    """Set a new password and end all sessions of the account. Raises `NotFound` or `Invalid`."""
    try:
        address = normalise_email(email)
    except ValueError as error:
        raise Invalid(FieldError("/email", str(error))) from None
    if why := objection(password, email=address):
        raise Invalid(FieldError("/password", why))
    password_hash = await passwords.hash(password)
    async with database.write() as session:
        user_id = (await session.execute(select(User.id).where(User.email == address))).scalar_one_or_none()
        if user_id is None:
            raise NotFound(f"There is no account with the address {address}.")
        await session.execute(
            update(User).where(User.id == user_id).values(password_hash=password_hash, updated_at=now)
        )
        await session.execute(
            update(Session).where(Session.user_id == user_id, Session.ended_at.is_(None)).values(ended_at=now)
        )

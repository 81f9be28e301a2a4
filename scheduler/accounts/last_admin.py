"""Somebody must be left who can administer the service."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from models.user import AccountStatus
from scheduler.access import Role
from scheduler.accounts.users import lock_admins
from scheduler.errors import Conflict


class LastAdmin(Conflict):
    """This is the last active administrator, and there must be one; make somebody else an administrator first."""

    code = "last_admin"


async def check_another_admin(session: AsyncSession, *, present: Row[Any]) -> None:
    """Raise `LastAdmin` if `present`, a row that is locked (`users.hold`), is the only active administrator.

    The others are locked too: until this transaction ends, none of them can be deleted, deactivated or demoted.
    """
    if present.role != Role.ADMIN or present.status != AccountStatus.ACTIVE:
        return
    if not await lock_admins(session) - {present.id}:
        raise LastAdmin()

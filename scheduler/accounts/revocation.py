"""Whoever changes what requests of a person are judged by (sessions, tokens, role, status, verification) says so here.

Web processes keep who signed in with what; the word makes all of them forget it, after the commit and before the
answer.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

REVOKED = "revoked_users"


def revoke(session: AsyncSession, *user_ids: UUID) -> None:
    """What is remembered of these people's sign-ins is void as soon as the transaction is committed."""
    session.info.setdefault(REVOKED, set()).update(user_ids)

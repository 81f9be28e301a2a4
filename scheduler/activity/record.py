"""Writing down what somebody did, in the transaction that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models import Activity
from scheduler.accounts.client import Client
from scheduler.identifiers import new_id

LONGEST_IP = 45
LONGEST_USER_AGENT = 500


async def record(
    session: AsyncSession,
    *,
    actor_id: UUID | None,
    action: str,
    target_type: str,
    target_id: UUID | None,
    now: datetime,
    client: Client | None = None,
    changes: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Add one row. `action` is a past participle after its noun (`password_changed`); `changes` maps each field to its
    old and new value, which are for the actor's eyes: never a secret. No actor: the service itself did it."""
    await session.execute(
        insert(Activity.__table__).values(
            id=new_id(),
            at=now,
            actor_id=actor_id,
            action=action,
            target_type=target_type,
            target_id=target_id,
            ip=client.ip[:LONGEST_IP] if client else None,
            user_agent=client.user_agent[:LONGEST_USER_AGENT] if client else None,
            changes={field: list(values) for field, values in (changes or {}).items()},
        )
    )

"""The outbox: an e-mail is a row written in the transaction of the change that it tells of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from email.utils import parseaddr
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Row, insert
from sqlalchemy.ext.asyncio import AsyncSession

from models import Email
from models.email import EmailState
from scheduler.identifiers import new_id
from scheduler.mail.message import build_message
from scheduler.mail.templates import Rendered
from scheduler.settings import Settings


class Recipient(Protocol):
    """To whom an e-mail goes: a `User`, or what else has these."""

    @property
    def id(self) -> UUID: ...
    @property
    def email(self) -> str: ...
    @property
    def name(self) -> str: ...


async def add_email(
    session: AsyncSession,
    *,
    user: Recipient | Row[Any],
    rendered: Rendered,
    template: str,
    settings: Settings,
    now: datetime,
    headers: Mapping[str, str] | None = None,
) -> UUID:
    """Put one e-mail to `user` into the outbox; it leaves once the transaction has committed. Returns its
    id.
    """
    row = email_row(
        email_id=new_id(),
        user_id=user.id,
        address=user.email,
        name=user.name,
        rendered=rendered,
        template=template,
        mail_from=settings.mail_from,
        now=now,
        headers=headers or {},
    )
    await session.execute(insert(Email.__table__), [row])
    return UUID(str(row["id"]))


def email_row(
    *,
    email_id: UUID,
    user_id: UUID,
    address: str,
    name: str,
    rendered: Rendered,
    template: str,
    mail_from: str,
    now: datetime,
    headers: Mapping[str, str],
) -> dict[str, Any]:
    """The row of an e-mail, its message complete: every try sends the same bytes under the same
    Message-ID.
    """
    sender, domain = _sender(mail_from)
    message_id = f"<{email_id.hex}@{domain}>"
    message = build_message(
        message_id=message_id,
        date=now,
        sender=mail_from,
        to=address,
        to_name=name,
        subject=rendered.subject,
        text=rendered.text,
        html=rendered.html,
        headers=headers,
    )
    return {
        "id": email_id,
        "message_id": message_id,
        "user_id": user_id,
        "sender": sender,
        "recipient": address,
        "subject": rendered.subject[:500],
        "template": template,
        "message": message,
        "state": EmailState.PENDING.value,
        "attempts": 0,
        "next_attempt_at": now,
        "created_at": now,
    }


@lru_cache(maxsize=8)
def _sender(mail_from: str) -> tuple[str, str]:
    """The bare address and its domain."""
    address = parseaddr(mail_from)[1]
    return address, address.rpartition("@")[2] or "localhost"

"""What the service wrote to people, and what they do with it; and its jobs done by hand. Usable by tests of the web."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from models import Email, Run
from scheduler.database import Database
from scheduler.runs.running import RunningJob
from tests.factories import NOW
from tests.services.engine import dispatch_from, take_all
from tests.services.stored import rows


@dataclass
class Mail:
    """An e-mail in the outbox, as its reader sees it."""

    to: str
    template: str
    subject: str
    text: str
    html: str

    @property
    def token(self) -> str:
        """The one in its link."""
        found = re.search(r"/act/(?:reset|verify)\?token=([\w-]{43})(?![\w-])", self.text)
        assert found is not None, self.text
        assert f"?token={found[1]}" in self.html
        return found[1]


async def mails(database: Database, template: str | None = None, *, to: str | None = None) -> list[Mail]:
    """The e-mails of this template and to this address, the oldest first."""
    found = []
    for row in await rows(database, Email):
        message = message_from_bytes(row.message, policy=policy.default)
        assert isinstance(message, EmailMessage)
        if template in (None, row.template) and to in (None, row.recipient):
            text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
            assert text is not None and html is not None and row.recipient in str(message["To"])
            found.append(
                Mail(row.recipient, row.template, str(message["Subject"]), text.get_content(), html.get_content())
            )
    return found


async def mail(database: Database, template: str, *, to: str | None = None) -> Mail:
    """The newest of them."""
    return (await mails(database, template, to=to))[-1]


async def events(database: Database, *, to: str | None = None) -> list[str]:
    """The subjects of the security notices, the oldest first."""
    return [each.subject for each in await mails(database, "security", to=to)]


async def perform_queued(
    database: Database, perform: Callable[[RunningJob], Awaitable[Any]], *, now: datetime = NOW
) -> list[Any]:
    """Begin the runs that wait, and do them; returns what came of each."""
    dispatched = await dispatch_from(database)
    return [await perform(run) for run in await take_all(database, dispatched.runs, now=now)]


async def arguments_of(database: Database) -> list[Any]:
    """Those of all runs."""
    return [row.arguments for row in await rows(database, Run)]

"""What the jobs of one worker process work with: its connections, and one tick a job."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket

from jobs.tick import Tick
from scheduler.clock import now
from scheduler.database import Database
from scheduler.links import Links
from scheduler.mail.delivery import Transport
from scheduler.outbox.send import Sender
from scheduler.reminders.email import ReminderEmails
from scheduler.reminders.send import send_reminders
from scheduler.runs.reap import Reaper
from scheduler.settings import Settings

REAP_EVERY_S = 3


class Work:
    """Built once in a worker process; arq's functions find it in their context."""

    def __init__(self, settings: Settings, database: Database, transport: Transport) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"
        self.stopping = asyncio.Event()
        self._settings = settings
        self._database = database
        self._emails = ReminderEmails(
            links=Links(settings.secret_keys, public_url=settings.public_url), mail_from=settings.mail_from
        )
        self._sender = Sender(database, transport, settings=settings, worker=self.name)
        self._background: set[asyncio.Task[None]] = set()
        self.send_reminders = Tick("send_reminders", self._send_reminders, every_s=1)
        self.send_emails = Tick("send_emails", self._sender.run, every_s=1)
        self._reaper = Reaper(database, worker=self.name)
        self.reap = Tick("reap", self._reap, every_s=REAP_EVERY_S)
        self.ticks = (self.send_reminders, self.send_emails, self.reap)

    def stop(self) -> None:
        """Take nothing new."""
        self.stopping.set()
        self._sender.stop()

    async def finished(self) -> None:
        """Wait until what is under way has ended."""
        await asyncio.gather(*(tick.finished() for tick in self.ticks), *self._background)
        await self._sender.hand_back()

    async def _send_reminders(self) -> None:
        await send_reminders(
            self._database,
            settings=self._settings,
            emails=self._emails,
            worker=self.name,
            stopping=self.stopping,
            wake_sender=self._wake_sender,
            hand_over=self._sender.hand_over,
        )

    async def _wake_sender(self) -> None:
        # Not through Redis: an e-mail just written here leaves without waiting for anybody.
        task = asyncio.create_task(self.send_emails())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _reap(self) -> None:
        await self._reaper.reap(now=now())

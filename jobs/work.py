"""What the jobs of one worker process work with: its connections, its ticks, and how it performs runs."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from jobs.tick import Tick
from models.run import RunState
from scheduler.clock import now
from scheduler.database import Database
from scheduler.http_requests.client import HttpRequests
from scheduler.links import Links
from scheduler.mail.delivery import Transport
from scheduler.outbox.send import Sender
from scheduler.reminders.email import ReminderEmails
from scheduler.reminders.send import send_reminders
from scheduler.runs.execute import Executor
from scheduler.runs.jobs import JobName
from scheduler.runs.reap import Reaper
from scheduler.runs.running import RunningJob
from scheduler.runs.settle import Settler
from scheduler.schedules.system import TickGate
from scheduler.settings import Settings
from scheduler.storage import Storage

Performer = Callable[["Work", RunningJob], Awaitable[dict[str, Any] | None]]


class Work:
    """Built once in a worker process; arq's functions find it in their context."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        transport: Transport,
        *,
        performers: Mapping[str, Performer],
        name: str | None = None,
        freed: Callable[[], None] = lambda: None,
        hands_back_as: RunState = RunState.QUEUED,
    ) -> None:
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"
        self.settings = settings
        self.database = database
        self.stopping = asyncio.Event()
        self.gate = TickGate()
        self.http = HttpRequests(settings)
        self.storage = Storage(settings.storage_url, settings.data_dir)
        self.settler = Settler(database)
        self.executor = Executor(
            database,
            self.settler,
            worker=self.name,
            performers={job: self._bound(perform) for job, perform in performers.items()},
            concurrency=settings.worker_concurrency,
            freed=freed,
            hands_back_as=hands_back_as,
        )
        self.send_reminders = self._tick(JobName.SEND_REMINDERS, self._send_reminders)
        self.send_emails = self._tick(JobName.SEND_EMAILS, self._send_emails)
        self.reap = self._tick(JobName.REAP, self._reap)
        self.ticks = (self.send_reminders, self.send_emails, self.reap)
        self._emails = ReminderEmails(
            links=Links(settings.secret_keys, public_url=settings.public_url), mail_from=settings.mail_from
        )
        self._sender = Sender(database, transport, settings=settings, worker=self.name)
        self._sending = asyncio.Lock()
        self._reaper = Reaper(database, worker=self.name)
        self._background: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Take nothing new."""
        self.stopping.set()
        self._sender.stop()

    async def finished(self, *, patience_s: float) -> None:
        """Wait until what is under way has ended; runs that take longer than `patience_s` are handed back."""
        await asyncio.gather(
            self.executor.stop(patience_s=patience_s), *(tick.finished() for tick in self.ticks), *self._background
        )
        await self._sender.hand_back()
        await self.settler.drained()

    async def close(self) -> None:
        """Close what only this process's work uses."""
        await self.http.close()
        self.storage.close()

    async def perform_send_reminders(self, run: RunningJob | None = None) -> dict[str, int] | None:
        """Fire what is due; `run`: because somebody asked for it."""
        fired = await send_reminders(
            self.database,
            settings=self.settings,
            emails=self._emails,
            worker=self.name,
            stopping=self.stopping,
            wake_sender=self._wake_sender,
            hand_over=self._sender.hand_over,
            run=run,
        )
        return fired.counts() if fired else None

    async def perform_send_emails(self, run: RunningJob | None = None) -> dict[str, int] | None:
        """Send what is to be tried now."""
        async with self._sending:  # one at a time: it holds its e-mails under one owner
            return await self._sender.run(run)

    async def perform_reap(self, run: RunningJob | None = None) -> dict[str, int] | None:
        """Give back what dead workers held."""
        return await self._reaper.reap(now=now(), run=run)

    async def _send_reminders(self) -> None:
        await self.perform_send_reminders()

    async def _send_emails(self) -> None:
        await self.perform_send_emails()

    async def _reap(self) -> None:
        await self.perform_reap()

    async def _wake_sender(self) -> None:
        # Not through Redis: an e-mail just written here leaves without waiting for anybody.
        task = asyncio.create_task(self.send_emails.now())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _tick(self, job: JobName, work: Callable[[], Awaitable[None]]) -> Tick:
        def is_open(since: datetime, until: datetime) -> bool:
            return self.gate.is_open(job, since=since, until=until)

        return Tick(job, work, is_open=is_open, every_s=1)

    def _bound(self, perform: Performer) -> Callable[[RunningJob], Awaitable[dict[str, Any] | None]]:
        return lambda run: perform(self, run)

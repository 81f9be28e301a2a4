"""The worker: its parts started, kept alive and stopped in order."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from jobs.carrier import Carrier
from jobs.dispatcher import Dispatcher
from jobs.isolation import Command, Isolation, isolated_command, perform_quarantined
from jobs.performers import PERFORMERS
from jobs.watchdog import watchdog
from jobs.work import Performer, Work
from models.run import RunState
from scheduler.accounts.revocation import OwnRevocations
from scheduler.clock import now
from scheduler.database import Database, is_unavailable
from scheduler.logs import get_logger, records, store_records
from scheduler.mail.transport import open_transport
from scheduler.metrics.counters import store_metrics
from scheduler.metrics.loop_lag import watch_worker
from scheduler.runs.dispatch import return_everything_of
from scheduler.runs.heartbeat import EVERY_S, Attempt, Heartbeat, Identity
from scheduler.runs.recover import disown
from scheduler.schedules.system import ensure_system_schedules
from scheduler.settings import Settings

CLEAN_UP_S = 2.0

log = get_logger("worker")


async def run(
    settings: Settings,
    *,
    stop: asyncio.Event | None = None,
    performers: Mapping[str, Performer] = PERFORMERS,
    isolated: str | None = None,
    command: Command = isolated_command,
) -> None:
    """Work until SIGTERM, SIGINT or `stop`; then take nothing new, finish or hand back what is held, and return.

    Returns within `settings.grace_seconds`, whatever is still under way. `isolated`: be the child, of this name, that
    performs quarantined runs one at a time, and return when there are none. `command`: what such a child is started by.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    database = Database(settings.database_url, pool_size=8)
    revocations = OwnRevocations(database, settings)
    # Beats have a connection of their own: a busy pool must not make a living worker look dead.
    beats = Database(settings.database_url, pool_size=1)
    transport = open_transport(settings.mail_url, data_dir=settings.data_dir)
    parts = _Isolated(settings, database, beats) if isolated else _Whole(settings, database, beats, command)
    work = Work(
        settings,
        database,
        transport,
        performers=performers,
        name=isolated,
        freed=parts.freed,
        hands_back_as=parts.hands_back_as,
    )
    _calm_garbage_collector()
    log.info("worker.started", worker=work.name, mail=transport.description)
    parts.start(work)
    ended = asyncio.create_task(parts.until_done(stop), name="until done")
    died = asyncio.create_task(parts.died.wait(), name="until a part dies")
    try:
        await asyncio.wait([ended, died], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
        log.info("worker.stopping", worker=work.name)
        work.stop()
        parts.stop_taking()
        grace_s = max(0.1, settings.grace_seconds - CLEAN_UP_S)
        try:
            async with asyncio.timeout(grace_s):
                # A moment is left for the outcome of what is handed back.
                await asyncio.gather(work.finished(patience_s=max(0.0, grace_s - 1.5)), parts.stopped())
        except TimeoutError:
            log.warning("worker.grace_over", worker=work.name)
        if parts.died.is_set():
            raise RuntimeError("a part of this worker has died, and with it the worker; the log says of what")
    finally:
        for task in (ended, died):
            task.cancel()
        with suppress(Exception):
            async with asyncio.timeout(CLEAN_UP_S):
                await parts.end()
                await records.flush(database)
                await work.close()
                await transport.close()
                await beats.dispose()
                await database.dispose()
                await revocations.close()
        log.info("worker.stopped", worker=work.name)


class _Parts:
    """What every worker process has: beats, the settler, the log's way into the database."""

    hands_back_as = RunState.QUEUED
    """The state of a run that it has not come to the end of when it has to stop."""

    def __init__(self, settings: Settings, database: Database, beats: Database) -> None:
        self.settings = settings
        self.database = database
        self._beats = beats
        self._tasks: list[asyncio.Task[Any]] = []
        self._heartbeat: Heartbeat | None = None
        self.died = asyncio.Event()
        """A part has ended by itself. What went on without it would beat, and do nothing: better to begin anew."""

    def freed(self) -> None:
        """Called whenever a run has ended."""

    def start(self, work: Work) -> None:
        """Start everything."""
        self.work = work
        self._heartbeat = Heartbeat(
            Identity(
                name=work.name,
                version=_version(),
                queues=self.settings.worker_queues,
                concurrency=work.executor.concurrency,
                started_at=now(),
            )
        )
        self._run(self._beat(self._heartbeat), "beats")
        self._run(work.settler.run(), "settler")
        self._run(store_records(self.database), "logs")
        self._run(store_metrics(self.database), "metrics")
        self._run(watch_worker(), "loop lag")
        self._run(watchdog(), "watchdog")

    async def until_done(self, stop: asyncio.Event) -> None:
        """Return when there is nothing more to do, or nothing more shall be done."""
        await stop.wait()

    def stop_taking(self) -> None:
        """Take nothing new."""

    async def stopped(self) -> None:
        """Wait for what `stop_taking` told to stop."""

    async def end(self) -> None:
        """Stop the rest, and say that this worker is gone."""
        await _cancelled(self._tasks)
        if self._heartbeat is not None:
            async with self._beats.write() as session:
                if strangers := await self._heartbeat.strangers(session):
                    await self._disown(session, strangers)
                await self._heartbeat.leave(session)

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._look_at_death)
        self._tasks.append(task)
        return task

    def _look_at_death(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.died.set()
            log.error("worker.part_died", part=task.get_name(), exc_info=error)

    async def _disown(self, session: AsyncSession, strangers: Sequence[Attempt]) -> None:
        await disown(session, attempts=strangers, worker=self.work.name, now=now(), state=self.hands_back_as)

    async def _beat(self, heartbeat: Heartbeat) -> None:
        executor = self.work.executor
        while True:
            try:
                async with self._beats.write() as session:
                    orders = await heartbeat.beat(session, running=executor.running, now=now())
                    if orders.strangers:
                        await self._disown(session, orders.strangers)
            except Exception as error:
                if is_unavailable(error):
                    log.warning("heartbeat.failed", error=f"{type(error).__name__}: {error}"[:200])
                else:
                    log.exception("heartbeat.failed")
            else:
                for attempt in orders.cancel:
                    executor.cancel(attempt)
                for attempt in orders.abandon:
                    executor.abandon(attempt)
            await asyncio.sleep(EVERY_S)


class _Whole(_Parts):
    """A whole worker: the queue, the ticks, the dispatcher, and a child for quarantined runs where there is need."""

    def __init__(self, settings: Settings, database: Database, beats: Database, command: Command) -> None:
        super().__init__(settings, database, beats)
        self._command = command
        self._dispatcher: Dispatcher | None = None
        self._taking: list[asyncio.Task[None]] = []

    def freed(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.freed()

    def start(self, work: Work) -> None:
        super().start(work)
        carrier = Carrier(self.settings, work)
        self._isolation = Isolation(self.database, worker=work.name, command=self._command)
        self._dispatcher = Dispatcher(
            self.database,
            work.executor,
            work.gate,
            queues=self.settings.worker_queues,
            carry=carrier.carry,
            quarantined=self._isolation.wake,
        )
        self.database.wake_workers = self._beats.wake_workers = self._dispatcher.wake
        self._taking = [
            self._run(self._declare_and_dispatch(self._dispatcher), "dispatcher"),
            *(self._run(loop, "queue") for loop in carrier.loops(woken=self._dispatcher.wake)),
            self._run(_tick_when_nobody_does(work), "ticks"),
            self._run(self._isolation.run(), "isolation"),
        ]

    def stop_taking(self) -> None:
        for task in self._taking:
            task.cancel()

    async def stopped(self) -> None:
        await asyncio.gather(*self._taking, return_exceptions=True)
        with suppress(Exception):  # else others return it after the time for runs that nobody begins
            await self.database.retry_write(lambda session: return_everything_of(session, worker=self.work.name))
        await self._isolation.stopped()

    async def _declare_and_dispatch(self, dispatcher: Dispatcher) -> None:
        while True:
            try:
                await self.database.retry_write(lambda session: ensure_system_schedules(session, now=now()))
            except Exception as error:
                if not is_unavailable(error):
                    log.exception("schedules.not_declared")
                await asyncio.sleep(1)
            else:
                break
        await dispatcher.run()


class _Isolated(_Parts):
    """The child that performs quarantined runs, one at a time."""

    hands_back_as = RunState.QUARANTINED

    async def until_done(self, stop: asyncio.Event) -> None:
        await perform_quarantined(self.work, stop)


def _version() -> str:
    try:
        return version("punctual")
    except PackageNotFoundError:
        return "0"


def _calm_garbage_collector() -> None:
    """Look at the objects of the start no more, and at those of a batch less often.

    A claim makes tens of thousands of rows and parameters that live for some milliseconds; by default the collector
    walks all of the process's objects again and again because of them (a tenth of the time of a busy worker).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _tick_when_nobody_does(work: Work) -> None:
    """Call each tick that arq has not called in time: reminders go out while Redis is away, or hangs."""
    while True:
        await asyncio.sleep(0.1)
        for tick in work.ticks:
            if tick.is_overdue():
                asyncio.create_task(tick())  # noqa: RUF006 (the tick holds its own task)

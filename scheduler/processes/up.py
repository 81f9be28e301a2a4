"""`punctual up`: everything in one process tree, started and stopped in order.

    punctual up ─┬─ redis-server       only if PUNCTUAL_REDIS_URL names none
                 ├─ punctual migrate   ends before the next two do anything but load
                 ├─ punctual web       accepts from a socket that this process bound
                 └─ punctual worker

The parent opens neither the database nor Redis, so there is nothing in it that could hang. Each child ends
with it (`lifeline.py`), also after `kill -9`; what such an end leaves in the data folder is repaired by the
next start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from scheduler.processes.banner import banner
from scheduler.processes.commands import punctual_command
from scheduler.processes.embedded_redis import EmbeddedRedis
from scheduler.processes.folder_lock import FolderInUse, FolderLock
from scheduler.processes.health import answers
from scheduler.processes.lifeline import Gate, Lifeline, spawn
from scheduler.processes.listening import ListenError, bind, close
from scheduler.processes.redis_program import RedisStartError
from scheduler.processes.signals import SignalWatch, has_terminal
from scheduler.processes.supervision import Supervised, describe_end, record, say

if TYPE_CHECKING:
    from scheduler.settings import Settings

START_SECONDS = 60.0
"""How long the API may take until it answers, before the start is given up."""

# The whole stop fits into the 15 s of the contract (api.md, section 9): web, then worker, then Redis. Each
# child is told a little less than it is given, so that it ends by itself.
WEB_GRACE_SECONDS, WEB_STOP_SECONDS = 3, 5.0
WORKER_GRACE_SECONDS, WORKER_STOP_SECONDS = 6, 7.0
REDIS_STOP_SECONDS = 1.5
MIGRATION_STOP_SECONDS = 5.0


class StartError(Exception):
    """`punctual up` could not start; the message is one line, or empty if a child has printed it already."""


class _Stop(Exception):
    """A signal asked us to stop."""


class Up:
    """One run of `punctual up`; `run` is the whole life of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = FolderLock(settings.data_dir)
        self._watch = SignalWatch([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        self._children: list[Supervised] = []
        self._redis: EmbeddedRedis | None = None
        self._gate: Gate | None = None
        self._environment = dict(os.environ)
        self._has_terminal = has_terminal()
        self._serves = False
        self._began = time.monotonic()

    def run(self) -> None:
        """Run until Ctrl-C, SIGTERM or the end of the terminal (where there is none, SIGHUP makes the API read its
        certificate again). Raises `StartError`, with nothing left
        running.
        """
        try:
            self._lock.acquire()
        except FolderInUse as error:
            raise StartError(str(error)) from None
        except OSError as error:
            raise StartError(f"PUNCTUAL_DATA_DIR: can't write in {self._settings.data_dir}: {error.strerror}") from None
        try:
            self._listeners = bind(self._settings.host, self._settings.port, share=False)
            self._lifeline = Lifeline()
            try:
                with self._watch:
                    try:
                        self._start()
                        self._supervise()
                    except _Stop:
                        pass
                    finally:
                        self._stop()
            finally:
                self._lifeline.close()
                close(self._listeners)
        except (ListenError, RedisStartError) as error:
            raise StartError(str(error)) from None
        finally:
            self._lock.release()

    # Start

    def _start(self) -> None:
        if self._settings.redis_url is None:
            self._redis = EmbeddedRedis(self._settings.data_dir)
            self._redis.start(pause=self._pause)
            self._environment["PUNCTUAL_REDIS_URL"] = self._redis.url
            redis = Supervised("redis", self._redis.spawn)
            redis.process = self._redis.process
            self._children.append(redis)
        descriptors = [listener.fileno() for listener in self._listeners]
        listen = [f"--listen-fd={descriptor}" for descriptor in descriptors]
        web = Supervised("web", self._starter("web", *listen, grace=WEB_GRACE_SECONDS, descriptors=descriptors))
        migration = Supervised("migrate", self._starter("migrate"))
        worker = Supervised("worker", self._starter("worker", grace=WORKER_GRACE_SECONDS))
        # All load at the same time, and web and worker wait at the gate for the schema.
        self._gate = Gate()
        for child in (web, migration, worker):
            self._children.append(child)
            child.start()
        self._wait_for_schema(migration)
        self._gate.open(2)
        self._gate = None
        self._wait_until_answering()
        self._serves = True
        say(banner(self._settings, time.monotonic() - self._began))

    def _starter(
        self, *arguments: str, grace: int | None = None, descriptors: Sequence[int] = ()
    ) -> Callable[[], subprocess.Popen[bytes]]:
        """A function that starts one of our own commands; what is in the environment is read when it is
        called.
        """

        def start() -> subprocess.Popen[bytes]:
            environment = dict(self._environment)
            if grace is not None:
                environment["PUNCTUAL_GRACE_SECONDS"] = str(min(grace, self._settings.grace_seconds))
            held = {"lifeline": self._lifeline.read_end}
            if self._gate is not None and arguments[0] != "migrate":
                held["gate"] = self._gate.read_end
            return spawn(
                [*punctual_command(*arguments), *(f"--{name}-fd={number}" for name, number in held.items())],
                environment=environment,
                descriptors=[*descriptors, *held.values()],
            )

        return start

    def _wait_for_schema(self, migration: Supervised) -> None:
        while (status := migration.poll()) is None:
            self._check_children()
            self._pause(0.5)
        self._children.remove(migration)
        if status != 0:
            # With exit status 1 it has said why itself, in one line.
            raise StartError("" if status == 1 else f"the migration ended ({describe_end(status)})")

    def _check_children(self) -> None:
        for child in self._children:
            if child.name != "migrate" and (status := child.poll()) is not None:
                quiet = status == 1 and child.name != "redis"
                raise StartError("" if quiet else f"{child.name} ended at its start ({describe_end(status)})")

    def _wait_until_answering(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not answers(self._settings):
            self._check_children()
            if time.monotonic() >= deadline:
                raise StartError(f"the API does not answer after {START_SECONDS:.0f} s")
            self._pause(0.03)

    def _pause(self, seconds: float) -> None:
        """Wait, at most `seconds`, for something to happen. Raises `_Stop` when a signal asks for it."""
        self._watch.wait(seconds)
        for number in self._watch.take():
            if number is not signal.SIGHUP or self._has_terminal:
                raise _Stop
            self._reload()

    def _reload(self) -> None:
        """Tell the API; before it serves it has yet to read what it would read again."""
        for child in self._children:
            if self._serves and child.name == "web" and child.process is not None and child.poll() is None:
                child.process.send_signal(signal.SIGHUP)

    # Life

    def _supervise(self) -> None:
        while True:
            now = time.monotonic()
            for child in self._children:
                status = child.poll()
                if status is not None:
                    pause = child.note_end()
                    say(f"{child.name} ended ({describe_end(status)}); it starts again in {pause:g} s")
                    record(
                        self._settings,
                        "warning",
                        "process.ended",
                        process=child.name,
                        reason=describe_end(status),
                        restart_in_s=pause,
                    )
                elif child.start_again_at is not None and now >= child.start_again_at:
                    self._start_again(child)
            times = [child.start_again_at for child in self._children if child.start_again_at is not None]
            self._pause(max(0.0, min(times) - time.monotonic()) if times else 60.0)

    def _start_again(self, child: Supervised) -> None:
        try:
            child.start()
        except (OSError, RedisStartError) as error:
            pause = child.note_end()
            say(f"{child.name} can't be started ({error}); the next try is in {pause:g} s")
        else:
            record(self._settings, "info", "process.restarted", process=child.name)

    # Stop

    def _stop(self) -> None:
        """Stop in order: nothing new comes in, then what is held gets finished, then Redis goes. Leaves
        nothing.
        """
        if self._gate is not None:
            self._gate.close()
            self._gate = None
        patience = {"web": WEB_STOP_SECONDS, "worker": WORKER_STOP_SECONDS, "migrate": MIGRATION_STOP_SECONDS}
        hurry = False
        for name, seconds in patience.items():
            for child in self._children:
                if child.name == name and child.poll() is None and child.process is not None:
                    child.process.terminate()
                    hurry = self._await_end(child.process, 0.0 if hurry else seconds) or hurry
                    child.process.kill()
                    child.process.wait()
        if self._redis is not None:
            self._redis.stop(REDIS_STOP_SECONDS)

    def _await_end(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Wait for the end of a child, at most `seconds`; True if another signal came and asks us to
        hurry.
        """
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            self._watch.wait(deadline - time.monotonic())
            if self._watch.take():
                say("stopping at once")
                return True
        return False

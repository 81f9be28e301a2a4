"""Mail into a Maildir (D. J. Bernstein, https://cr.yp.to/proto/maildir.html): the default, for a first look.

A message is written to `tmp/`, synced, and linked into `new/`; so a reader never sees half of one, and
neither a crash nor a loss of power leaves one. The file's name comes from the Message-ID, and `link` refuses
a name that is taken: the same message, sent again after a crash, is still one file. That holds once a mail
program has moved it to `cur/` too.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path

from scheduler.mail.delivery import Envelope, ServerUnavailable

_THREADS = 4  # an fsync waits for the disk, and several wait together for little more than one
_LEFTOVER_AGE = 36 * 3600  # seconds; the specification's age at which a file in tmp/ is nobody's any more
_CLOCK_GRAIN = 1.0  # seconds; a folder changed this lately may change again without a new time stamp


class MaildirTransport:
    """See `scheduler.mail.delivery.Transport`."""

    connections = _THREADS

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="maildir")
        self._prepared = False
        self._read_names: frozenset[str] = frozenset()  # what stands in cur/, without the flags
        self._read_names_of = -1.0  # cur/'s time stamp when they were listed

    @property
    def description(self) -> str:
        return f"maildir:{self._folder}"

    async def send(self, envelope: Envelope) -> None:
        await self._in_thread(partial(self._deliver, envelope))

    async def check(self) -> None:
        await self._in_thread(self._try_writing)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def _in_thread(self, function: Callable[[], None]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, function)
        except OSError as error:
            self._prepared = False  # somebody may have removed the folders: make them anew the next time
            # The disk is full, the folder is not ours …: nothing to do with this message.
            raise ServerUnavailable(f"The Maildir {self._folder} can't be written: {error}", stage="file") from error

    def _deliver(self, envelope: Envelope) -> None:
        self._prepare()
        name = maildir_name(envelope.message_id)
        target = self._folder / "new" / name
        if target.exists() or self._was_read(name):
            return
        temporary = self._write_temporary(name, envelope.data.replace(b"\r\n", b"\n"))  # a Maildir's lines end in LF
        try:
            try:
                os.link(temporary, target)
            except FileExistsError:
                return  # another process was quicker, with the same message
            except OSError:
                # A file system without hard links (FAT, some network shares): as safe, but for the race
                # above.
                os.rename(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)

    def _prepare(self) -> None:
        if self._prepared:
            return
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self._folder, *(self._folder / name for name in ("tmp", "new", "cur"))):
            folder.mkdir(mode=0o700, exist_ok=True)  # mail is nobody else's business, whatever the umask
        oldest = time.time() - _LEFTOVER_AGE
        for leftover in (self._folder / "tmp").iterdir():
            with suppress(FileNotFoundError):  # another process has just moved it on
                if leftover.stat().st_mtime < oldest:
                    leftover.unlink()
        self._prepared = True

    def _write_temporary(self, name: str, data: bytes) -> Path:
        path = self._folder / "tmp" / f"{name}.{secrets.token_hex(8)}"  # pids repeat across containers
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _was_read(self, name: str) -> bool:
        """Whether a mail program has taken the message from new/ to cur/, where its name ends in flags
        (":2,S").
        """
        folder = self._folder / "cur"
        changed = folder.stat().st_mtime
        if changed != self._read_names_of:
            self._read_names = frozenset(entry.partition(":")[0] for entry in os.listdir(folder))
            self._read_names_of = changed if time.time() - changed > _CLOCK_GRAIN else -1.0
        return name in self._read_names

    def _try_writing(self) -> None:
        self._prepare()
        self._write_temporary("check", b"").unlink()


def maildir_name(message_id: str) -> str:
    """The file's name for a message: the same for the same Message-ID (with or without angle brackets)."""
    return f"{blake2b(message_id.strip('<> ').encode('utf-8', 'replace'), digest_size=16).hexdigest()}.punctual"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

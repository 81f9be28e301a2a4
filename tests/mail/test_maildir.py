"""The Maildir: one file a message whatever happens, and readable by others."""

from __future__ import annotations

import asyncio
import mailbox
import os
import time
from pathlib import Path

import pytest

from scheduler.mail.maildir import MaildirTransport
from scheduler.mail.transport import Envelope, ServerUnavailable

DATA = b"Message-ID: <1@example.org>\r\nSubject: x\r\n\r\nHello\r\n.\r\nFrom here\r\n"


def envelope(message_id: str = "<1@example.org>") -> Envelope:
    return Envelope(message_id, "punctual@example.org", "alice@example.org", DATA)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder).parent) for path in folder.rglob("*") if path.is_file())


async def test_a_message_is_one_file_that_others_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "mail"
    transport = MaildirTransport(folder)
    await transport.send(envelope())
    await transport.send(envelope("<2@example.org>"))
    await transport.close()
    read = mailbox.Maildir(folder, create=False)
    assert sorted(message["Subject"] for message in read) == ["x", "x"]
    assert read.get_bytes(read.keys()[0]) == DATA.replace(b"\r\n", b"\n")
    assert files(folder) == ["new", "new"]
    assert folder.stat().st_mode & 0o077 == 0


async def test_the_same_message_again_is_still_one_file(tmp_path: Path) -> None:
    first, second = MaildirTransport(tmp_path), MaildirTransport(tmp_path)
    await asyncio.gather(*(transport.send(envelope()) for transport in [first, second] * 50))
    await first.send(envelope("1@example.org"))
    assert files(tmp_path) == ["new"]
    # A mail program takes it into cur/, adds flags, and changes them.
    (path,) = (tmp_path / "new").iterdir()
    seen = path.rename(tmp_path / "cur" / f"{path.name}:2,S")
    await first.send(envelope())
    seen.rename(tmp_path / "cur" / f"{path.name}:2,RS")
    await second.send(envelope())
    assert files(tmp_path) == ["cur"]
    # Later, with the folder's listing remembered.
    long_ago = time.time() - 60
    os.utime(tmp_path / "cur", (long_ago, long_ago))
    await first.send(envelope())
    await first.send(envelope())
    assert files(tmp_path) == ["cur"]
    await first.close()
    await second.close()


async def test_leftovers_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    for name, age in (("old", 40 * 3600), ("young", 3600)):
        path = tmp_path / "tmp" / name
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
    transport = MaildirTransport(tmp_path)
    await transport.check()
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["young"]
    await transport.close()


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("a file, not a folder")
    transport = MaildirTransport(tmp_path / "mail")
    with pytest.raises(ServerUnavailable, match="can't be written"):
        await transport.send(envelope())
    with pytest.raises(ServerUnavailable):
        await transport.check()
    await transport.close()


async def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    transport = MaildirTransport(tmp_path / "mail")
    await transport.send(envelope("<../../etc/x@example.org>"))
    assert files(tmp_path) == ["mail/new"]
    await transport.close()

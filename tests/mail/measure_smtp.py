"""Messages a second through SMTP, ours against aiosmtplib: `python -m tests.mail.measure_smtp [messages]`.

The sink runs in a process of its own; each way gets three rounds, of which the median counts.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiosmtplib
import uvloop

from scheduler.mail.transport import Envelope, open_transport

_CONNECTIONS = 8
_CONTENT = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 42  # 3 KB


async def _ours(port: int, count: int, at_once: int) -> float:
    transport = open_transport(f"smtp://127.0.0.1:{port}?connections={_CONNECTIONS}", data_dir=Path())
    recipients = iter([f"person{number % 500}@example.org" for number in range(count)])

    async def sender(recipients: Iterator[str]) -> None:
        for recipient in recipients:
            await transport.send(Envelope("", "punctual@example.org", recipient, _CONTENT))

    await asyncio.gather(*(sender(iter([f"warm{n}@example.org"])) for n in range(_CONNECTIONS)))
    begin = time.perf_counter()
    await asyncio.gather(*(sender(recipients) for _ in range(at_once)))
    elapsed = time.perf_counter() - begin
    await transport.close()
    return count / elapsed


async def _aiosmtplib(port: int, count: int) -> float:
    clients = [aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) for _ in range(_CONNECTIONS)]
    for client in clients:
        await client.connect()
        await client.ehlo()
    recipients = iter([f"person{number % 500}@example.org" for number in range(count)])

    async def sender(client: aiosmtplib.SMTP) -> None:
        for recipient in recipients:
            await client.sendmail("punctual@example.org", [recipient], _CONTENT)

    begin = time.perf_counter()
    await asyncio.gather(*map(sender, clients))
    elapsed = time.perf_counter() - begin
    for client in clients:
        await client.quit()
    return count / elapsed


def _measure(name: str, way: Callable[[int], Awaitable[float]], *arguments: str) -> None:
    sink = subprocess.Popen(
        [sys.executable, "-m", "tests.mail.smtp_sink", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert sink.stdout is not None
    port = int(sink.stdout.readline())

    async def once() -> float:
        return await way(port)

    rates = [uvloop.run(once()) for _ in range(3)]
    sink.communicate()
    print(f"{name:50} {statistics.median(rates):8,.0f}/s")


if __name__ == "__main__":
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    _measure("aiosmtplib.sendmail, 8 connections", lambda port: _aiosmtplib(port, messages // 4))
    _measure("ours, no PIPELINING, 8 at once", lambda port: _ours(port, messages, 8), "plain")
    _measure("ours, PIPELINING, 8 at once", lambda port: _ours(port, messages, 8))
    _measure("ours, PIPELINING, 16 at once", lambda port: _ours(port, messages, 16))
    _measure("ours, PIPELINING, 500 at once", lambda port: _ours(port, messages, 500))

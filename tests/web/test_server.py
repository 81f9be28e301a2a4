"""The server's beginning and end, on real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket

import pytest

from scheduler.settings import Settings
from tests.web.test_http import head_of
from web.server import serve


@pytest.fixture(params=["sqlite"])
def stack(request: pytest.FixtureRequest, tmp_path):  # type: ignore[no-untyped-def]
    """Which database is behind it makes no difference here."""
    from tests.conftest import _make_stack

    return _make_stack(request, request.param, tmp_path)


class Running:
    """`serve` in this loop, on a socket that was bound before (as `punctual web` does for its processes)."""

    def __init__(self, settings: Settings) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.settings = settings
        self.is_ready = asyncio.Event()

    async def __aenter__(self) -> Running:
        self.task = asyncio.create_task(serve(self.settings, sock=[self.listener], ready=self.is_ready.set))
        ready = asyncio.create_task(self.is_ready.wait())
        await asyncio.wait({self.task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        assert self.is_ready.is_set()
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.task.done():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(self.task, 20)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


async def test_sigterm_finishes_requests_and_closes_idle_connections(settings: Settings) -> None:
    async with Running(settings.model_copy(update={"grace_seconds": 5})) as running:
        idle, idle_writer = await running.connect()
        idle_writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await head_of(idle))[0] == 200
        await idle.readexactly(len(b'{"status":"ok"}'))

        busy, busy_writer = await running.connect()
        body = json.dumps({"email": "a@example.com", "password": "correct horse battery", "name": "A"}).encode()
        busy_writer.write(
            b"POST /api/v1/auth/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        await asyncio.sleep(0.2)  # its head is read: the request is under way

        os.kill(os.getpid(), signal.SIGTERM)
        # Left open a while: a request that its client may be sending now gets an answer, and that says
        # "close".
        idle_writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers = await head_of(idle)
        assert (status, headers["connection"]) == (200, "close")
        await idle.readexactly(len(b'{"status":"ok"}'))
        assert await asyncio.wait_for(idle.read(), 2) == b""
        with pytest.raises(OSError):
            await running.connect()
        busy_writer.write(body)
        status, headers = await head_of(busy)
        assert status == 201
        assert len(await busy.readexactly(int(headers["content-length"]))) > 0
        assert await asyncio.wait_for(busy.read(), 2) == b""
        await asyncio.wait_for(running.task, 10)


async def test_a_request_that_never_ends_does_not_keep_the_process(settings: Settings) -> None:
    async with Running(settings.model_copy(update={"grace_seconds": 1})) as running:
        _, writer = await running.connect()
        writer.write(
            b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9\r\n\r\n{"
        )
        await asyncio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running.task, 6)


async def test_slow_clients_are_cut_off(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real limits, but shorter.
    monkeypatch.setattr("web.server.KEEP_ALIVE_S", 1)
    monkeypatch.setattr("web.parsing.BODY_TIMEOUT_S", 1)
    async with Running(settings) as running:
        reader, writer = await running.connect()
        body, body_writer = await running.connect()
        body_writer.write(
            b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        for byte in b"GET /":  # a head that never ends, a byte at a time
            writer.write(bytes([byte]))
            await asyncio.sleep(0.1)
        status, headers = await head_of(body)
        assert status == 408
        assert json.loads(await body.readexactly(int(headers["content-length"])))["code"] == "request_timeout"
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_an_address_that_is_taken(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError):
            await serve(settings.model_copy(update={"port": other.getsockname()[1]}))

"""The server's beginning and end, on real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import structlog
import uvloop
from structlog.testing import capture_logs

from scheduler.settings import Settings
from tests.web.test_http import head_of
from web.server import serve


@pytest.fixture(params=["sqlite"])
def stack(request: pytest.FixtureRequest, tmp_path):  # type: ignore[no-untyped-def]
    """Which database is behind it makes no difference here."""
    from tests.conftest import _make_stack

    return _make_stack(request, request.param, tmp_path)


# The newer way to say so would put a word into the id of every test in this folder.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:pytest.PytestDeprecationWarning")


@pytest.fixture(scope="module")
def event_loop_policy() -> Any:
    """The loop that serves in life: its transports are others than asyncio's."""
    return uvloop.EventLoopPolicy()


@pytest.fixture(autouse=True)
def _only_warnings_are_logged() -> Iterator[None]:
    """More, here: what a server that works well has to say."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.reset_defaults()


class Running:
    """`serve` in this loop, on a socket that was bound before (as `punctual web` does for its processes)."""

    def __init__(self, settings: Settings) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.settings = settings
        self.is_ready = asyncio.Event()

    async def __aenter__(self) -> Running:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
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
    monkeypatch.setattr("web.server.LINGER_S", 0.5)
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


async def test_a_head_that_never_ends(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.server.HEAD_S", 0.3)
    async with Running(settings) as running:
        patient, patient_writer = await running.connect()
        slow, slow_writer = await running.connect()
        slow_writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ")
        began = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionError):
            while asyncio.get_running_loop().time() - began < 5:  # a byte at a time, and never long without one
                slow_writer.write(b"y")
                await slow_writer.drain()
                await asyncio.sleep(0.02)
        assert asyncio.get_running_loop().time() - began < 2
        with pytest.raises(ConnectionError):
            await slow.readexactly(1)
        # Who is only idle, or sends a head in two parts, is served.
        for part in (b"GET /healthz HTTP/1.1\r\n", b"Host: x\r\n\r\n"):
            patient_writer.write(part)
            await asyncio.sleep(0.1)
        assert (await head_of(patient))[0] == 200
        await asyncio.sleep(0.4)  # the time of the head that came does not go on
        await patient.readexactly(len(b'{"status":"ok"}'))
        patient_writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await head_of(patient))[0] == 200
        patient_writer.close()


ASK = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("reads", [0, 1000], ids=["not at all", "a little"])
async def test_who_does_not_take_an_answer(settings: Settings, monkeypatch: pytest.MonkeyPatch, reads: int) -> None:
    """Or takes it so slowly that it would never end: the connection does, and with it what was held for it."""
    monkeypatch.setattr("web.server.READER_S", 0.5)
    async with Running(settings) as running:
        with socket.socket() as client, capture_logs() as logs:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", running.port))
            await loop.sock_sendall(client, ASK * 30)  # more than any socket holds

            async def read_slowly() -> None:
                with suppress(ConnectionError):
                    while True:
                        if reads:
                            await loop.sock_recv(client, reads)
                        await asyncio.sleep(0.05)

            reading = asyncio.create_task(read_slowly())
            for _ in range(500):
                if any(each["event"] == "http.too_slow" and each["part"] == "reader" for each in logs):
                    break
                await asyncio.sleep(0.01)
            else:
                raise AssertionError("not cut off within five seconds")
            reading.cancel()
            await asyncio.wait({reading})
        _, others = await running.connect()
        others.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
async def test_what_is_left_of_an_answer_does_not_wait_for_ever(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fits into the socket, so that nothing waits for it here; the kernel gives it up."""
    monkeypatch.setattr("web.server.READER_S", 1)
    async with Running(settings) as running:
        with socket.socket() as client, capture_logs() as logs:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", running.port))
            await loop.sock_sendall(client, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 60)
            await asyncio.sleep(0.3)
            assert sum(each["event"] == "http.request" for each in logs) == 60
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(15):
                    while True:  # it says nothing until one asks: by then the kernel has given up
                        await asyncio.sleep(1)
                        await loop.sock_sendall(client, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not any(each["event"] == "http.too_slow" for each in logs)


async def test_an_address_that_is_taken(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError):
            await serve(settings.model_copy(update={"port": other.getsockname()[1]}))

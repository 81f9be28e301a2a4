"""An HTTP server that does as a test says, byte by byte: it may answer slowly, without end, wrongly, or not at all.

No pytest in here: other tests and programs use it too. What arrives is kept in `requests`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it arrived. The names of `headers` are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    names: Sequence[str]
    """Of its headers, as they were spelled and in their order."""
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


Script = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]
"""What to do with a request: it writes the answer, or not. Afterwards the connection is closed."""


def answer(
    status: str = "200 OK", body: bytes = b"", *, length: int | None = None, **headers: str | Sequence[str]
) -> bytes:
    """The bytes of an answer. `content_type="text/plain"` is the header `Content-Type`; a list is one header each."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    for name, values in headers.items():
        spelled = name.replace("_", "-").title()
        lines += [f"{spelled}: {value}" for value in ([values] if isinstance(values, str) else values)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def says(raw: bytes) -> Script:
    """Answer each request with these bytes."""

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return script


def redirects(status: str, location: str) -> Script:
    """Send each request elsewhere."""
    return says(answer(status, location=location))


def writes(*parts: bytes | float) -> Script:
    """Write these bytes one after the other; a number is a pause in seconds."""

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            if isinstance(part, bytes):
                writer.write(part)
                await writer.drain()
            else:
                await asyncio.sleep(part)

    return script


def never_ends(head: bytes, again: bytes) -> Script:
    """Write `head`, then `again` for ever."""

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        # Much at once: what comes in small pieces is slow because of us.
        many = again * max(1, 16_384 // len(again))
        while True:
            writer.write(many)
            await writer.drain()
            await asyncio.sleep(0)

    return script


async def silent(_: Received, writer: asyncio.StreamWriter) -> None:
    """Say nothing until the other side hangs up."""
    await writer.wait_closed()


async def cut(_: Received, writer: asyncio.StreamWriter) -> None:
    """Close without a word."""


async def reset(_: Received, writer: asyncio.StreamWriter) -> None:
    """Cut the connection by a RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class Receiver:
    """Listens on `host` at a free port. `scripts` says what to do by path; other paths are answered with 404."""

    scripts: dict[str, Script] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    reads: bool = True
    """False: it takes connections and reads nothing from them."""
    early: bytes = b""
    """What it says to a connection that it reads nothing from."""
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the other side has closed a connection, or a connection has ended."""
    came: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request has come."""
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def request(self) -> Received:
        """The only one that came."""
        (only,) = self.requests
        return only

    async def start(self) -> None:
        listener = socket.create_server(
            (self.host, self.port), family=socket.AF_INET6 if ":" in self.host else socket.AF_INET
        )
        if not self.reads:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._server = await asyncio.start_server(self._serve, sock=listener, ssl=self.tls, limit=2**20)
        self.port = listener.getsockname()[1] if self.port == 0 else self.port

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        self.connections += 1
        try:
            if not self.reads:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(self.early)
                self.came.set()
                await asyncio.sleep(60)
            received = await _read(reader)
            self.requests.append(received)
            self.came.set()
            script = self.scripts.get(received.path, says(answer("404 Not Found")))
            acting = asyncio.ensure_future(script(received, writer))
            hanging_up = asyncio.ensure_future(reader.read())  # nothing more is sent: the end comes when they close
            await asyncio.wait([acting, hanging_up], return_when=asyncio.FIRST_COMPLETED)
            for each in (acting, hanging_up):
                each.cancel()
            await asyncio.gather(acting, hanging_up, return_exceptions=True)
            if not writer.is_closing():
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            pass  # cancelled: by `stop`
        finally:
            self._writers.discard(writer)
            self.hung_up.set()
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8")
    line, *lines = head[:-4].split("\r\n")
    method, target, _ = line.split(" ")
    pairs = [each.split(": ", 1) if ": " in each else [each.rstrip(":"), ""] for each in lines]
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(pairs), f"a header came twice: {lines}"
    assert "transfer-encoding" not in headers
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method=method, target=target, headers=headers, names=[name for name, _ in pairs], body=body)


@asynccontextmanager
async def http_receiver(
    script: Script | dict[str, Script],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    reads: bool = True,
    early: bytes = b"",
) -> AsyncIterator[Receiver]:
    """A receiver that runs meanwhile. `script`: for every path, or by path."""
    scripts = script if isinstance(script, dict) else _Always(script)
    receiver = Receiver(scripts, host=host, port=port, tls=tls, reads=reads, early=early)
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()


class _Always(dict[str, Script]):
    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    def get(self, path: str, default: object = None) -> Script:
        return self._script

"""An SMTP server that does as a test says: refuses here, goes silent there, cuts the connection at any
point.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

# What a server may do at a point: None is the usual answer; text is written instead (with its CRLF);
# CUT closes the connection, SILENT says nothing more, an event holds the usual answer back until it is set.
CUT, SILENT = object(), object()

# The points: "banner", "EHLO", "MAIL", "RCPT", "DATA", "." (after the content), "RSET", "NOOP", "QUIT".
Script = Callable[[str, int], object]  # (point, number of the connection from 0) -> answer

_USUAL = {
    "banner": "220 scripted",
    "DATA": "354 go on",
    "QUIT": "221 bye",
}


class ScriptedServer:
    """`heard` is every point reached, as (connection, point); `taken` the contents it answered 250 to."""

    def __init__(self, script: Script, pipelining: bool) -> None:
        self.script = script
        self.pipelining = pipelining
        self.heard: list[tuple[int, str]] = []
        self.taken: list[bytes] = []
        self.received: list[bytes] = []  # all contents whose final "." came, taken or not
        self.content_came = asyncio.Event()
        self.connections = 0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._without_sender: set[int] = set()  # connections whose last MAIL was refused

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}?connections=1&timeout=2&content_timeout=2"

    def points(self, connection: int) -> list[str]:
        return [point for number, point in self.heard if number == connection]

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        self._writers.add(writer)
        try:
            if not await self._answer(writer, "banner", number):
                return
            while line := await reader.readline():
                point = line[:4].strip().upper().decode()
                if not await self._answer(writer, point, number) or point == "QUIT":
                    return
                if point == "DATA" and self._last_answer.startswith("354"):
                    content = b""
                    while (line := await reader.readline()) != b".\r\n":
                        if not line:
                            return
                        content += line
                    self.received.append(content)
                    self.content_came.set()
                    if not await self._answer(writer, ".", number):
                        return
                    if self._last_answer.startswith("250"):
                        self.taken.append(content)
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(self, writer: asyncio.StreamWriter, point: str, number: int) -> bool:
        self.heard.append((number, point))
        answer = self.script(point, number)
        if answer is CUT:
            return False
        if answer is SILENT:
            await asyncio.sleep(60)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            answer = None
        if answer is None:
            usual = "250-scripted\r\n250 PIPELINING" if point == "EHLO" and self.pipelining else "250 ok"
            answer = _USUAL.get(point, usual)
            if point in ("RCPT", "DATA") and number in self._without_sender:
                answer = "503 5.5.1 MAIL first"
        assert isinstance(answer, str)
        if point == "MAIL":
            (self._without_sender.discard if answer.startswith("250") else self._without_sender.add)(number)
        self._last_answer = answer
        writer.write(answer.encode() + b"\r\n")
        await writer.drain()
        return not answer.startswith("421")


@asynccontextmanager
async def scripted_server(script: Script, *, pipelining: bool = True) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer(script, pipelining)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def usual(point: str, connection: int) -> object:
    return None

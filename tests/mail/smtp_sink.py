"""A minimal SMTP server for measuring and for tests: takes everything, as fast as Python can.

As a program it serves in a process of its own: `python -m tests.mail.smtp_sink [plain]` prints its port,
then, at the end of its standard input, how many messages it took.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast


class Sink(asyncio.Protocol):
    """One connection. `messages` of the class collects (recipient, content, dots still stuffed) when `keep`
    is set.
    """

    keep = False
    pipelining = True
    count = 0
    connections = 0
    messages: list[tuple[bytes, bytes]]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self._input = b""
        self._in_content = False
        self._recipient = b""
        type(self).connections += 1
        self._transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        data = self._input + data
        replies = []
        while data:
            if self._in_content:
                end = data.find(b"\r\n.\r\n") if not data.startswith(b".\r\n") else -2
                if end == -1:
                    break
                content, data = data[: max(end + 2, 0)], data[end + 5 :]
                self._in_content = False
                type(self).count += 1
                if self.keep:
                    self.messages.append((self._recipient, content))
                replies.append(b"250 taken\r\n")
                continue
            line, found, rest = data.partition(b"\r\n")
            if not found:
                break
            data = rest
            verb = line[:4].upper()
            if verb == b"DATA":
                self._in_content = True
                replies.append(b"354 go on\r\n")
            elif verb == b"EHLO":
                replies.append(b"250-sink\r\n250-PIPELINING\r\n250 SIZE\r\n" if self.pipelining else b"250 sink\r\n")
            elif verb == b"QUIT":
                self._transport.write(b"".join(replies) + b"221 bye\r\n")
                self._transport.close()
                return
            else:
                if verb == b"RCPT":
                    self._recipient = line[9:-1]
                replies.append(b"250 ok\r\n")
        self._input = data
        if replies:
            self._transport.write(b"".join(replies))


async def _serve() -> None:
    Sink.pipelining = "plain" not in sys.argv
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(Sink.count, flush=True)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve())

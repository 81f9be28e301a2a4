"""The SMTP side of the sink: as much of RFC 5321 and 2920 as a client needs, and nothing that costs time.

Bodies are thrown away (unless `keep` is set): what is noted of a message is its Message-ID, its recipients
and when its final dot came. Chunks may split anywhere.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import NamedTuple, cast

END = b"\r\n.\r\n"
_MESSAGE_ID = b"\r\nMessage-ID:"
_MESSAGE_ID_OF_ANY_CASE = re.compile(rb"\r\nmessage-id:((?:[^\r]|\r\n[ \t])*)", re.IGNORECASE)
_ADDRESS = re.compile(rb"<([^>]*)>")

GREETING = b"220 sink ESMTP\r\n"
EHLO = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 52428800\r\n"
OK = b"250 OK\r\n"
START = b"354 go ahead\r\n"


class Arrival(NamedTuple):
    """One message that was taken (it was, or was to be, answered with 250)."""

    message_id: str
    wall: float
    """Seconds since 1970, when the final dot was read."""
    monotonic: float
    recipients: tuple[str, ...]
    body: bytes | None
    """The message as sent, dots still stuffed; None unless the sink keeps bodies."""


@dataclass
class Behaviour:
    """What the sink does to its clients; changed while it runs."""

    keep: bool = False
    refused: dict[str, int] = field(default_factory=dict)
    """Addresses (lower case) refused at RCPT, with the reply code: 550 for good, 450 for now."""
    refuse_all: int = 0
    """When set, this code answers every RCPT."""
    delay: float = 0.0
    """Seconds before each reply after a message's final dot."""
    swallow: int = 0
    """So many more messages are taken and then the connection is cut instead of answering 250."""


class Sink:
    """What all connections share: what came, how to behave, who is connected."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.behaviour = Behaviour()
        self.connections: set[Session] = set()
        self.connections_ever = 0


class Session(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.transport: asyncio.Transport
        self.rest = b""
        self.in_data = False
        self.headers_done = False
        self.message_id = ""
        self.kept: list[bytes] = []
        self.recipients: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.sink.connections.add(self)
        self.sink.connections_ever += 1
        self.transport.write(GREETING)

    def connection_lost(self, exc: Exception | None) -> None:
        self.sink.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        replies: list[bytes] = []
        position = 0
        while True:
            if self.in_data:
                # The terminator's first CRLF may be the one that ended DATA: an empty message.
                end = data.find(END, position)
                self._read_headers(data, position, end)
                if end < 0:
                    # Keep what may be a part of the terminator, and headers until they have been read.
                    keep_from = max(position, len(data) - 4) if self.headers_done else position
                    if self.sink.behaviour.keep:
                        self.kept.append(data[position:keep_from])
                    position = keep_from
                    break
                if self.sink.behaviour.keep:
                    self.kept.append(data[position:end])
                position = end + 5
                if not self._taken(replies):
                    return
            else:
                end = data.find(b"\r\n", position)
                if end < 0:
                    break
                self._command(data[position:end], replies)
                # In data mode the search begins at the CRLF of the command itself; see above.
                position = end if self.in_data else end + 2
        self.rest = data[position:]
        if replies:
            self._reply(b"".join(replies))

    def _read_headers(self, data: bytes, start: int, end: int) -> None:
        if self.headers_done:
            return
        blank = data.find(b"\r\n\r\n", start)
        if blank < 0 and end < 0:
            return
        self.headers_done = True
        stop = blank if blank >= 0 and (end < 0 or blank < end) else end
        found = data.find(_MESSAGE_ID, start, stop)
        if found >= 0:
            line_end = data.find(b"\r\n", found + 13, stop + 2)
            text = data[found + 13 : line_end if line_end >= 0 else stop].strip()
            if text:
                self.message_id = text.decode("ascii", "replace")
                return
        match = _MESSAGE_ID_OF_ANY_CASE.search(data, start, stop)
        if match:
            self.message_id = match[1].strip().decode("ascii", "replace")

    def _taken(self, replies: list[bytes]) -> bool:
        """Note a message. False if the connection was cut in place of an answer."""
        behaviour = self.sink.behaviour
        body = b"".join(self.kept)[2:] + b"\r\n" if behaviour.keep else None
        self.sink.arrivals.append(Arrival(self.message_id, time.time(), time.monotonic(), tuple(self.recipients), body))
        self._reset()
        if behaviour.swallow:
            behaviour.swallow -= 1
            self.transport.abort()
            return False
        replies.append(OK)
        return True

    def _reset(self) -> None:
        self.in_data = False
        self.headers_done = False
        self.message_id = ""
        self.recipients = []
        if self.kept:
            self.kept = []

    def _command(self, line: bytes, replies: list[bytes]) -> None:
        verb = line[:4].upper()
        if verb == b"MAIL":
            self.recipients = []
            replies.append(OK)
        elif verb == b"RCPT":
            match = _ADDRESS.search(line)
            address = match[1].decode("utf-8", "replace") if match else ""
            behaviour = self.sink.behaviour
            code = behaviour.refuse_all or (behaviour.refused and behaviour.refused.get(address.lower(), 0))
            if code:
                replies.append(b"%d no thanks\r\n" % code)
            else:
                self.recipients.append(address)
                replies.append(OK)
        elif verb == b"DATA":
            if self.recipients:
                self.in_data = True
                replies.append(START)
            else:
                replies.append(b"554 no valid recipients\r\n")
        elif verb == b"EHLO":
            replies.append(EHLO)
        elif verb == b"QUIT":
            replies.append(b"221 bye\r\n")
            self.transport.write(b"".join(replies))
            replies.clear()
            self.transport.close()
        elif verb in (b"HELO", b"NOOP", b"RSET"):
            if verb == b"RSET":
                self._reset()
            replies.append(OK)
        else:
            replies.append(b"500 unknown command\r\n")

    def _reply(self, reply: bytes) -> None:
        delay = self.sink.behaviour.delay
        if delay and reply != START:
            asyncio.get_running_loop().call_later(delay, self._write, reply)
        else:
            self._write(reply)

    def _write(self, reply: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(reply)

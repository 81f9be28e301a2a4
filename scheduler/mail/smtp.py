"""Mail by SMTP over a pool of kept-open connections.

Connections are opened when messages wait and none is free, up to `connections`; the most recently used one is
taken first, so that what is not needed falls idle and is closed. A message whose kept-open connection turns
out to be dead goes out over a new one, once, if its content was not yet written; else its fate is unknown,
and the caller is told.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import cast

import aiosmtplib

from scheduler.mail.addresses import ascii_address
from scheduler.mail.delivery import Envelope, MailError, Refused, ServerUnavailable
from scheduler.mail.smtp_connection import Message, SmtpConnection
from scheduler.mail.smtp_opening import Opener, SmtpServer

IDLE_SECONDS = 30.0  # an unused connection is closed after this time
MESSAGES_PER_CONNECTION = 1000  # then a new one: many servers end a session after so many, some impolitely
_PAUSE_AFTER_REFUSAL = 5.0  # seconds in which no connection is added after the server would not give one more
_LONGEST_SWEEP = 1.0  # seconds between two looks at deadlines and idle connections
_GRACE = 5.0  # seconds that `close` gives to what is being sent

_BARE_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class SmtpTransport:
    """See `scheduler.mail.delivery.Transport`. Belongs to the event loop in which it is first used."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self._opener = Opener(server)
        self._waiting: deque[Message] = deque()
        self._again: deque[Message] = deque()  # from connections that had gone stale: for new connections only
        self._live: set[SmtpConnection] = set()
        self._idle: list[SmtpConnection] = []  # the most recently used last
        self._leaving: set[SmtpConnection] = set()  # QUIT is written
        self._opening: set[asyncio.Task[None]] = set()
        self._no_more_before = 0.0  # loop time
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._all_gone = asyncio.Event()

    @property
    def connections(self) -> int:
        # Twice the connections: so each has a message at hand whose commands go out with the content before.
        return self._server.connections * 2

    @property
    def description(self) -> str:
        return self._server.description

    async def send(self, envelope: Envelope) -> None:
        if self._closed:
            raise ServerUnavailable("The mail transport is closed.")
        message = _message(envelope, asyncio.get_running_loop().create_future())
        if self._idle:
            self._idle.pop().begin(message)
        else:
            self._waiting.append(message)
            self._open_more()
        try:
            await message.future
        except asyncio.CancelledError:
            connection = message.connection
            if connection is not None and connection.current is message:
                connection.end("the message was withdrawn")
            raise

    async def check(self) -> None:
        """Connect, sign in, NOOP, QUIT, on a connection of its own. Raises ServerUnavailable."""
        client = await self._opener.open()
        try:
            await client.noop(timeout=self._server.timeout)
            await client.quit(timeout=self._server.timeout)
        except (aiosmtplib.SMTPException, OSError) as error:
            raise ServerUnavailable(str(error), stage="check") from error
        finally:
            client.close()

    async def close(self) -> None:
        self._closed = True
        self._fail_waiting(ServerUnavailable("The mail transport is closed."))
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        while self._idle:
            self._leave(self._idle.pop())
        try:
            async with asyncio.timeout(_GRACE):
                while self._live or self._leaving:
                    self._all_gone.clear()
                    await self._all_gone.wait()
        except TimeoutError:
            pass
        finally:
            for connection in [*self._live, *self._leaving]:
                connection.end("the mail transport was closed")
            if self._sweeper is not None:
                self._sweeper.cancel()
                self._sweeper = None

    # --- what the connections call -------------------------------------------------------------------------

    def next_message(self) -> Message | None:
        while self._waiting:
            message = self._waiting.popleft()
            if not message.future.done():  # else its sender was cancelled
                return message
        return None

    def connection_free(self, connection: SmtpConnection) -> None:
        if self._closed or connection.served >= MESSAGES_PER_CONNECTION:
            self._leave(connection)
            self._open_more()
            return
        message = self.next_message()
        if message is None:
            self._idle.append(connection)
        else:
            connection.begin(message)

    def connection_gone(self, connection: SmtpConnection) -> None:
        self._live.discard(connection)
        self._leaving.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._live and not self._leaving:
            self._all_gone.set()
        self._open_more()

    def send_again(self, message: Message) -> None:
        message.retried = True
        message.connection = None
        if self._closed:
            message.fail(ServerUnavailable("The mail transport is closed."))
            return
        self._again.append(message)
        self._open_more()

    # --- opening and closing -------------------------------------------------------------------------------

    def _open_more(self) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        if self._live and loop.time() < self._no_more_before:
            self._make_do()
            return
        wanted = min(len(self._waiting) + len(self._again), self._server.connections - len(self._live)) - len(
            self._opening
        )
        for _ in range(wanted):
            task = loop.create_task(self._open())
            self._opening.add(task)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            try:
                client = await self._opener.open()
            finally:
                # Not when the task is done: whoever hears of the outcome may want a connection at once.
                self._opening.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            transport = client.transport
            if transport is None or transport.is_closing():
                raise ServerUnavailable("The mail server closed the connection at once.", stage="connect")
        except MailError as error:
            self._opening_failed(error)
            return
        connection = SmtpConnection(
            self,
            cast(asyncio.WriteTransport, transport),
            pipelining=client.supports_extension("pipelining"),
            timeout=self._server.timeout,
            content_timeout=self._server.content_timeout,
            most_messages=MESSAGES_PER_CONNECTION,
            loop=loop,
        )
        transport.set_protocol(connection)  # aiosmtplib's part ends here
        self._live.add(connection)
        if self._sweeper is None:
            self._sweep()
        while self._again:
            message = self._again.popleft()
            if not message.future.done():
                connection.begin(message)
                # Others may be left whose connection was refused while this one was being opened.
                self._open_more()
                return
        self.connection_free(connection)

    def _opening_failed(self, error: MailError) -> None:
        self._no_more_before = asyncio.get_running_loop().time() + _PAUSE_AFTER_REFUSAL
        if self._live:
            self._make_do()
        elif not self._opening:  # the last to try: nobody else will serve those who wait
            self._fail_waiting(error)

    def _make_do(self) -> None:
        """The server gives us no more connections: let those that we have do the work, idle ones at once."""
        self._waiting.extendleft(reversed(self._again))
        self._again.clear()
        while self._idle and (message := self.next_message()) is not None:
            self._idle.pop().begin(message)

    def _fail_waiting(self, error: MailError) -> None:
        for queue in (self._again, self._waiting):
            while queue:
                # One error object each: a traceback grows with each raise.
                queue.popleft().fail(ServerUnavailable(error.message, code=error.code, stage=error.stage))

    def _leave(self, connection: SmtpConnection) -> None:
        self._live.discard(connection)
        self._leaving.add(connection)
        connection.quit()

    def _sweep(self) -> None:
        """Ends what is past its deadline and what has been idle for long; runs while there are
        connections.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [*self._live, *self._leaving]:
            connection.check_deadline(now)
        for connection in [idle for idle in self._idle if now - idle.idle_since > IDLE_SECONDS]:
            self._idle.remove(connection)
            self._leave(connection)
        self._sweeper = None
        if self._live or self._leaving:
            self._sweeper = loop.call_later(min(_LONGEST_SWEEP, self._server.timeout / 4), self._sweep)


def _message(envelope: Envelope, future: asyncio.Future[None]) -> Message:
    """Raises Refused for an address that can't be one: it would never be taken, and must not reach the
    wire.
    """
    try:
        sender = ascii_address(envelope.sender) if envelope.sender else ""
        recipient = ascii_address(envelope.recipient)
    except ValueError as error:
        raise Refused(str(error), code=553, stage="address") from None
    content = envelope.data
    line_ends = content.count(b"\r\n")
    if content.count(b"\n") != line_ends or content.count(b"\r") != line_ends:
        # A bare CR or LF lets some servers see an end of the message where others don't ("SMTP smuggling").
        content = _BARE_LINE_END.sub(b"\r\n", content)
    content = content.replace(b"\r\n.", b"\r\n..")  # RFC 5321 section 4.5.2
    if content.startswith(b"."):
        content = b"." + content
    return Message(sender, recipient, content + (b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"), future)

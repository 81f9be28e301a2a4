"""One kept-open SMTP connection, from the moment it is signed in: messages out, replies in.

This is an `asyncio.Protocol` of our own, because aiosmtplib awaits a reply after each command and drops what
it did not wait for. aiosmtplib opens the connection (`smtp_opening`), then this takes its place
(`transport.set_protocol`).

With PIPELINING (RFC 2920) MAIL, RCPT and DATA go out in one write; and the next message's three go out in one
write with the content of the one before, as section 3.1 of that RFC allows. So a message costs one round
trip, and one
`write`, not four. A content is only ever written after the server's 354 for that very message, and after the
reply for the one before: at any instant there is at most one message a connection that the server may have
taken unknown to us.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from scheduler.mail.delivery import Deferred, MailError, Refused, ServerUnavailable

_LONGEST_LINE = 8192  # octets; RFC 5321 section 4.5.3.1.5 says 512, servers say more
_MOST_LINES = 128  # of one reply
_IDLE_BEFORE_CHECK = 5.0  # seconds; after them a NOOP asks whether the server is still there
_CHECK_TIMEOUT = 5.0  # seconds for the answer to it, and to QUIT
# Replies to MAIL that speak of us, not of the message: sign in first, sign in otherwise, use TLS (RFC 4954
# section 6).
_NOT_SIGNED_IN = frozenset({530, 534, 535, 538})
_COMMANDS = ("MAIL", "RCPT", "DATA")
_NEXT = {"RSET": 0, "MAIL": 1, "RCPT": 2}  # which of them follows a reply, one command at a time


class Message:
    """One message on its way: its commands, its content, and who waits for the outcome."""

    __slots__ = ("commands", "connection", "content", "future", "retried")

    def __init__(self, sender: str, recipient: str, content: bytes, future: asyncio.Future[None]) -> None:
        self.commands = (
            f"MAIL FROM:<{sender}>\r\n".encode(),
            f"RCPT TO:<{recipient}>\r\n".encode(),
            b"DATA\r\n",
        )
        self.content = content  # dot-stuffed, with its final "."
        self.future = future
        self.connection: SmtpConnection | None = None
        self.retried = False

    def fail(self, error: MailError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Pool(Protocol):
    """What a connection asks of and tells to the pool that it is in."""

    def next_message(self) -> Message | None: ...

    def connection_free(self, connection: SmtpConnection) -> None: ...

    def connection_gone(self, connection: SmtpConnection) -> None: ...

    def send_again(self, message: Message) -> None: ...


class SmtpConnection(asyncio.Protocol):
    """`served` counts the messages it has finished with; `idle_since` is the loop's time when the last one
    ended. `content_timeout` is how many seconds the reply to a content may take, `timeout` any other.
    """

    def __init__(
        self,
        pool: Pool,
        transport: asyncio.WriteTransport,
        *,
        pipelining: bool,
        timeout: float,
        content_timeout: float,
        most_messages: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.served = 0
        self.idle_since = loop.time()
        self.current: Message | None = None
        self._following: Message | None = None  # its commands are written, its content is not
        self._pool = pool
        self._transport = transport
        self._pipelining = pipelining
        self._timeout = timeout
        self._content_timeout = content_timeout
        self._most_messages = most_messages
        self._now = loop.time
        self._expected: deque[str] = deque()  # what the replies to come answer, in order
        self._deadline = 0.0
        self._refusal: MailError | None = None  # the first refusal among the current message's commands
        self._mail_refused = self._recipient_taken = self._content_written = False
        self._needs_reset = False  # a transaction was begun and not ended
        self._gone = False
        self._input = b""
        self._reply_lines: list[bytes] = []

    # --- what the pool calls -------------------------------------------------------------------------------

    def begin(self, message: Message) -> None:
        """Send `message` now; the connection must be free."""
        self.current = message
        message.connection = self
        if self.served and self._now() - self.idle_since > _IDLE_BEFORE_CHECK:
            # A kept connection may have died in silence (a NAT that forgot it): find out in 5 s, not in
            # `timeout`.
            self._write(b"NOOP\r\n", ("NOOP",), min(_CHECK_TIMEOUT, self._timeout))
        else:
            self._start_transaction(message)

    def quit(self) -> None:
        """Take leave; the connection must be free."""
        self._write(b"QUIT\r\n", ("QUIT",), min(_CHECK_TIMEOUT, self._timeout))

    def check_deadline(self, now: float) -> None:
        if self._expected and now > self._deadline:
            self.end(f"no reply to {self._expected[0]} within the time-out")

    def end(self, why: str, *, code: int | None = None) -> None:
        """Cut the connection; decide what becomes of the messages on it."""
        if self._gone:
            return
        self._gone = True
        self._transport.abort()
        self._pool.connection_gone(self)
        stage = self._expected[0] if self._expected else ""
        message, following = self.current, self._following
        self.current = self._following = None
        self._expected.clear()
        if message is not None and not message.future.done():
            if self._content_written:
                # Sending it again might make two of it: the caller has to know.
                message.fail(ServerUnavailable(why, code=code, stage=stage, may_have_arrived=True))
            elif self._refusal is not None:
                message.fail(self._refusal)
            elif self.served and not message.retried:
                # A kept connection that had gone stale; nothing of this message was accepted.
                self._pool.send_again(message)
            else:
                message.fail(ServerUnavailable(why, code=code, stage=stage))
        if following is not None and not following.future.done():
            if following.retried:
                following.fail(ServerUnavailable(why, code=code, stage="MAIL"))
            else:
                self._pool.send_again(following)

    # --- what the event loop calls -------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(f"the connection was lost{f': {exc}' if exc else ''}")

    def data_received(self, data: bytes) -> None:
        if self._input:
            data = self._input + data
        *lines, self._input = data.split(b"\n")
        for line in lines:
            if self._gone:
                return
            if len(line) > _LONGEST_LINE or len(self._reply_lines) > _MOST_LINES:
                self.end("its reply is too long")
                return
            code = line[:3]
            if len(code) != 3 or not code.isdigit() or line[3:4] not in (b" ", b"-", b"", b"\r"):
                self.end(f"its reply is not SMTP: {line[:60]!r}")
                return
            if line[3:4] == b"-":
                self._reply_lines.append(line[4:].strip())
                continue
            text = line[4:].strip()
            if self._reply_lines:
                text = b" ".join((*self._reply_lines, text))
                self._reply_lines.clear()
            self._replied(int(code), text)
        if len(self._input) > _LONGEST_LINE:
            self.end("its reply is too long")

    # --- the conversation ----------------------------------------------------------------------------------

    def _write(self, data: bytes, expected: tuple[str, ...], timeout: float | None = None) -> None:
        self._expected.extend(expected)
        self._deadline = self._now() + (self._timeout if timeout is None else timeout)
        if self._transport.is_closing():  # uvloop raises for a write to it; connection_lost is on its way
            self.end("the connection was lost")
        else:
            self._transport.write(data)

    def _start_transaction(self, message: Message) -> None:
        self._refusal = None
        self._mail_refused = self._recipient_taken = self._content_written = False
        if self._pipelining:
            mail, recipient, data = message.commands
            if self._needs_reset:
                self._needs_reset = False
                self._write(b"RSET\r\n" + mail + recipient + data, ("RSET", "MAIL", "RCPT", "DATA"))
            else:
                self._write(mail + recipient + data, ("MAIL", "RCPT", "DATA"))
        elif self._needs_reset:
            self._needs_reset = False
            self._write(b"RSET\r\n", ("RSET",))
        else:
            self._write(message.commands[0], ("MAIL",))

    def _replied(self, code: int, text: bytes) -> None:
        if code == 421 or not self._expected:  # it is about to close, or it speaks when nobody asked
            why = text.decode("utf-8", "replace") or "it closed the connection"
            if self._content_written and self.current is not None and self._expected[0] == "content":
                # A 421 is a refusal: here, and only here, we know that the content did not arrive.
                self.current.fail(ServerUnavailable(why, code=code, stage="content"))
            self.end(why, code=code)
            return
        stage = self._expected[0]
        message = self.current
        if stage == "QUIT" or message is None:
            self.end("we took leave")
            return
        taken = 200 <= code < 300
        if stage in ("NOOP", "RSET", "content") and not taken and (stage != "content" or not 400 <= code < 600):
            self.end(f"it answered {code} to {stage}", code=code)
            return
        self._expected.popleft()
        if stage == "content":
            self._finish(message, None if taken else self._error(stage, code, text))
        elif stage == "DATA":
            self._data_replied(message, code, text)
        elif stage == "NOOP":
            self._start_transaction(message)
        elif not taken:
            self._refuse(stage, code, text)
            if not self._pipelining and not self._gone:
                self._needs_reset = stage == "RCPT"
                self._finish(message, None)
        else:
            self._recipient_taken = stage == "RCPT"
            if not self._pipelining:
                self._write(message.commands[_NEXT[stage]], (_COMMANDS[_NEXT[stage]],))

    def _data_replied(self, message: Message, code: int, text: bytes) -> None:
        if code != 354:
            self._refuse("DATA", code, text)
            if not self._gone:
                self._needs_reset = not self._mail_refused
                self._finish(message, None)
            return
        if message.future.done():  # cancelled since: with no final ".", the server keeps nothing
            self.end("the message was withdrawn")
            return
        if self._refusal is not None and self._recipient_taken:
            # It refused the sender, and yet took recipient and DATA: a lone dot might send them an empty
            # message.
            self.end("it took DATA without a sender")
            return
        timeout = self._timeout
        if self._refusal is None:
            content, self._content_written = message.content, True
            timeout = self._content_timeout
        else:
            content = b".\r\n"  # RFC 2920 section 3.1: no recipient was taken; this ends it, and sends nothing
        following = None
        if self._pipelining and self.served + 2 <= self._most_messages:
            following = self._pool.next_message()
        if following is None:
            self._write(content, ("content",), timeout)
            return
        self._following = following
        following.connection = self
        self._write(content + b"".join(following.commands), ("content", "MAIL", "RCPT", "DATA"), timeout)

    def _refuse(self, stage: str, code: int, text: bytes) -> None:
        """Remember why the current message won't go; the replies to its other commands are still to be
        read.
        """
        error = self._error(stage, code, text)
        if isinstance(error, ServerUnavailable):
            self._refusal = self._refusal or error
            self.end(error.message, code=code)
            return
        if stage == "MAIL":
            self._mail_refused = True
        self._refusal = self._refusal or error

    def _error(self, stage: str, code: int, text: bytes) -> MailError:
        if 400 <= code < 500:
            return Deferred(text, code=code, stage=stage)
        if 500 <= code < 600 and not (stage == "MAIL" and code in _NOT_SIGNED_IN):
            return Refused(text, code=code, stage=stage)
        return ServerUnavailable(text, code=code, stage=stage)

    def _finish(self, message: Message, error: MailError | None) -> None:
        """The current message is done with; go on with the one whose commands are written already, or ask for
        one.
        """
        error = self._refusal or error
        if not message.future.done():
            if error is None:
                message.future.set_result(None)
            else:
                message.future.set_exception(error)
        self.served += 1
        self.current, self._following = self._following, None
        if self.current is not None:
            self._refusal = None
            self._mail_refused = self._recipient_taken = self._content_written = False
            self._deadline = self._now() + self._timeout
        else:
            self.idle_since = self._now()
            self._pool.connection_free(self)

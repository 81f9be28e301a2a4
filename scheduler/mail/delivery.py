"""What is handed to a transport, what a transport is, and how sending can fail."""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

_LONGEST_TEXT = 500  # characters of a server's words that we keep
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Envelope(NamedTuple):
    """A ready message and who it goes from and to (bare addresses; `sender` "" is the null reverse-path,
    `<>`).
    """

    message_id: str
    sender: str
    recipient: str
    data: bytes


class MailError(Exception):
    """The message did not leave.

    `code` is the server's reply code, None where there was no reply; `message` says what happened, on one
    line, bounded;
    `stage` names what was answered so ("MAIL", "RCPT", "DATA", "content", "connect", …).
    """

    def __init__(self, message: str | bytes, *, code: int | None = None, stage: str = "") -> None:
        if isinstance(message, bytes):
            message = message.decode("utf-8", "replace")
        message = _UNPRINTABLE.sub(" ", message).strip()
        self.message = message if len(message) <= _LONGEST_TEXT else message[: _LONGEST_TEXT - 1] + "…"
        self.code = code
        self.stage = stage
        super().__init__(f"{code} {self.message}" if code else self.message)


class ServerUnavailable(MailError):
    """The server can't be used now: no connection, TLS or AUTH failed, connection lost, time-out, 421.

    This says nothing of the one message: keep it, and try again once the server is back.
    `may_have_arrived` is True where the connection was lost after our final "." and before the reply: the
    server may have the message; what is sent again must bear the same Message-ID.
    """

    def __init__(
        self,
        message: str | bytes,
        *,
        code: int | None = None,
        stage: str = "",
        may_have_arrived: bool = False,
    ) -> None:
        super().__init__(message, code=code, stage=stage)
        self.may_have_arrived = may_have_arrived


class Deferred(MailError):
    """The server can't take this message for now (4xx): try it again later."""


class Refused(MailError):
    """The server won't take this message, now or later (5xx): don't send it again."""


class Transport(Protocol):
    """Where messages leave. An instance belongs to one event loop."""

    @property
    def connections(self) -> int:
        """How many `send` calls are worth having under way at once; more may be made, and wait their turn."""

    @property
    def description(self) -> str:
        """Where messages go, for people; never a password."""

    async def send(self, envelope: Envelope) -> None:
        """Hand over one message. Returns when the far end has taken it; raises MailError."""

    async def check(self) -> None:
        """Find out whether sending could work now (connect, sign in, NOOP), sending nothing. Raises
        MailError.
        """

    async def close(self) -> None:
        """Let what is being sent finish for a few seconds, then end every connection; waiting messages
        fail.
        """

"""How a connection to an SMTP server comes about: connect, EHLO, STARTTLS, AUTH, all by aiosmtplib."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass, field
from typing import Literal

import aiosmtplib

from scheduler.mail.delivery import ServerUnavailable

_HOST_NAME_TIMEOUT = 5.0  # seconds; finding our own name asks the DNS, which may hang

CONTENT_TIMEOUT = 600.0
"""Seconds that a server may take over a message that it has whole: giving up sooner makes a second one of it (RFC
5321, 4.5.3.2.6)."""


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where the server is and how to speak to it. `timeout` in seconds, for each step but one:
    `content_timeout` is for the reply to a content (after the final ".").
    """

    host: str
    port: int
    security: Literal["none", "starttls", "tls"] = "none"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    connections: int = 8
    timeout: float = 30.0
    content_timeout: float = CONTENT_TIMEOUT

    @property
    def description(self) -> str:
        scheme = "smtps" if self.security == "tls" else "smtp"
        host = f"[{self.host}]" if ":" in self.host else self.host
        details = ", ".join(
            (["STARTTLS"] if self.security == "starttls" else []) + (["signed in"] if self.username else [])
        )
        return f"{scheme}://{host}:{self.port}" + (f" ({details})" if details else "")


class Opener:
    """Opens connections to one server; what costs time and stays the same (trust store, our name) is found
    once.
    """

    def __init__(self, server: SmtpServer) -> None:
        self.server = server
        self._tls_context: ssl.SSLContext | None = None
        self._local_host_name: str | None = None

    async def open(self) -> aiosmtplib.SMTP:
        """A client that is connected, greeted, and signed in where there are credentials.

        Takes `timeout` seconds at the most, all steps together. Raises ServerUnavailable.
        """
        server = self.server
        try:
            async with asyncio.timeout(server.timeout):
                if self._local_host_name is None:
                    self._local_host_name = await _local_host_name()
                if self._tls_context is None and server.security != "none":
                    # In a thread: reading the trust store takes 10-50 ms. Honours SSL_CERT_FILE and
                    # SSL_CERT_DIR.
                    self._tls_context = await asyncio.to_thread(ssl.create_default_context)
                client = aiosmtplib.SMTP(
                    hostname=server.host,
                    port=server.port,
                    use_tls=server.security == "tls",
                    start_tls=server.security == "starttls",
                    tls_context=self._tls_context,
                    username=server.username,
                    password=server.password,
                    local_hostname=self._local_host_name,
                    timeout=server.timeout,
                )
                try:
                    await client.connect()
                    # What was known before STARTTLS is void (RFC 3207 section 4.2), so ask (again) what is
                    # offered.
                    if client.is_ehlo_or_helo_needed:
                        try:
                            await client.ehlo()
                        except aiosmtplib.SMTPHeloError:
                            if not client.is_connected:  # it answered 421: that is what there is to tell
                                raise
                            await client.helo()
                except BaseException:
                    client.close()
                    raise
                return client
        except TimeoutError:
            raise self._unavailable(f"no answer within {server.timeout:g} s") from None
        except aiosmtplib.SMTPAuthenticationError as error:
            raise self._unavailable(f"it refused our user name or password: {error.message}", error.code) from error
        except aiosmtplib.SMTPResponseException as error:
            raise self._unavailable(error.message, error.code) from error
        except aiosmtplib.SMTPException as error:
            raise self._unavailable(error.message) from error
        except ssl.SSLCertVerificationError as error:
            raise self._unavailable(f"its certificate is not to be trusted: {error.verify_message}") from error
        # Mostly OSError. But whatever it is: messages wait for this connection, and must hear of it.
        except Exception as error:
            raise self._unavailable(str(error) or type(error).__name__) from error

    def _unavailable(self, why: str, code: int | None = None) -> ServerUnavailable:
        return ServerUnavailable(
            f"The mail server {self.server.host}:{self.server.port} can't be used: {why}",
            code=code,
            stage="connect",
        )


async def _local_host_name() -> str:
    """What we call ourselves in EHLO: our full name, else an address literal (RFC 5321 section 4.1.4)."""
    try:
        async with asyncio.timeout(_HOST_NAME_TIMEOUT):
            name = (await asyncio.to_thread(socket.getfqdn)).strip(".")
    except TimeoutError:
        name = ""
    if "." in name and name.isascii() and all(character.isalnum() or character in ".-" for character in name):
        return name
    return "[127.0.0.1]"

"""The way out for mail, chosen by `PUNCTUAL_MAIL_URL`; with what a caller of it needs.

`maildir:` (in the data folder), `maildir:/some/folder`, `smtp://user:password@host:port?starttls=1`,
`smtps://…`.
"""

from __future__ import annotations

import ipaddress
import math
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import idna

from scheduler.mail.delivery import Deferred, Envelope, MailError, Refused, ServerUnavailable, Transport
from scheduler.mail.maildir import MaildirTransport
from scheduler.mail.smtp import SmtpTransport
from scheduler.mail.smtp_opening import CONTENT_TIMEOUT, SmtpServer

__all__ = [
    "Deferred",
    "Envelope",
    "MailError",
    "Refused",
    "ServerUnavailable",
    "Transport",
    "open_transport",
]

_DEFAULT_PORTS = {"smtp": 25, "smtps": 465}
_MOST_CONNECTIONS = 100
_LONGEST_TIMEOUT = 600.0  # seconds
_LONGEST_CONTENT_TIMEOUT = 3600.0
_YES, _NO = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


def open_transport(mail_url: str, *, data_dir: Path) -> Transport:
    """The transport that `mail_url` names; nothing is connected yet, and no folder made.

    Options of smtp and smtps: `connections` (default 8), `timeout` in seconds for each step (default 30),
    `content_timeout` in seconds for the reply to a content (default 600); of smtp, `starttls` (default 0). Raises
    ValueError with one line for people, which never holds the password.
    """
    try:
        parts = urlsplit(mail_url.strip())
    except ValueError as error:
        raise ValueError(f"The mail URL can't be read: {error}.") from None
    if parts.scheme == "maildir":
        return MaildirTransport(_maildir_folder(parts, data_dir))
    if parts.scheme in _DEFAULT_PORTS:
        return SmtpTransport(_smtp_server(parts))
    raise ValueError("The mail URL must begin with maildir:, smtp:// or smtps://.")


def _maildir_folder(parts: SplitResult, data_dir: Path) -> Path:
    if parts.netloc or parts.query or parts.fragment:
        raise ValueError("A maildir URL takes the form maildir: or maildir:/some/folder.")
    if not parts.path:
        return data_dir / "mail"
    folder = Path(unquote(parts.path))
    if not folder.is_absolute():
        raise ValueError("The folder of a maildir URL must be absolute: maildir:/some/folder.")
    return folder


def _smtp_server(parts: SplitResult) -> SmtpServer:
    if parts.path not in ("", "/") or parts.fragment:
        # Most likely a "/" or "#" in the password, which then reads as the end of the host.
        raise ValueError(
            "The mail URL takes the form smtp://user:password@host:port?starttls=1; in user and password, "
            "write / ? # @ : and % as %2F %3F %23 %40 %3A and %25."
        )
    try:
        port = parts.port
    except ValueError:
        raise ValueError("The port in the mail URL must be a number from 1 to 65535.") from None
    if port == 0:
        raise ValueError("The port in the mail URL must be a number from 1 to 65535.")
    host = _host(parts.hostname)
    username = unquote(parts.username) if parts.username is not None else None
    password = unquote(parts.password) if parts.password is not None else None
    if (username is None) != (password is None) or username == "":
        raise ValueError("The mail URL must hold both a user name and a password, or neither.")
    options = _options(parts.query)
    starttls = _switch(options.pop("starttls", "0"), "starttls")
    if starttls and parts.scheme == "smtps":
        raise ValueError("In the mail URL, smtps:// is TLS from the start: leave out starttls, or use smtp://.")
    connections = _number(options.pop("connections", "8"), "connections", _MOST_CONNECTIONS)
    if connections != int(connections):
        raise ValueError("In the mail URL, connections must be a whole number.")
    timeout = _number(options.pop("timeout", "30"), "timeout", _LONGEST_TIMEOUT)
    patience = options.pop("content_timeout", str(max(timeout, CONTENT_TIMEOUT)))
    content_timeout = _number(patience, "content_timeout", _LONGEST_CONTENT_TIMEOUT)
    if options:
        raise ValueError(
            f"The mail URL has an unknown option, {min(options)!r}; "
            "known: connections, content_timeout, starttls, timeout."
        )
    security: Literal["none", "starttls", "tls"] = (
        "tls" if parts.scheme == "smtps" else "starttls" if starttls else "none"
    )
    if security == "none" and username is not None and not _is_loopback(host):
        raise ValueError(
            f"The mail URL would send the password to {host} unencrypted: add ?starttls=1, or use smtps://."
        )
    return SmtpServer(
        host=host,
        port=port or _DEFAULT_PORTS[parts.scheme],
        security=security,
        username=username,
        password=password,
        connections=int(connections),
        timeout=timeout,
        content_timeout=content_timeout,
    )


def _host(host: str | None) -> str:
    if not host:
        raise ValueError("The mail URL names no host.")
    try:
        return host if host.isascii() else idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise ValueError("The host in the mail URL is not a valid name.") from None


def _options(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) != len(pairs):
        raise ValueError("The mail URL has an option twice.")
    return options


def _switch(text: str, name: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise ValueError(f"In the mail URL, {name} must be 1 or 0.")


def _number(text: str, name: str, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= most:
        raise ValueError(f"In the mail URL, {name} must be a number above 0, at most {most:g}.")
    return number


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

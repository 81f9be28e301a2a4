"""Against a whole SMTP server (aiosmtpd): STARTTLS, TLS, AUTH, with certificates made for the test."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from scheduler.mail.transport import Deferred, Refused, ServerUnavailable, Transport, open_transport
from scheduler.mail.transport import Envelope as OurEnvelope

CONTENT = b"Subject: x\r\n\r\nHello\r\n.dot\r\n"


class Handler:
    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self.secure: list[bool] = []
        self.signed_in: list[bool] = []

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        if address.startswith("nobody"):
            return "550 5.1.1 nobody here"
        if address.startswith("later"):
            return "451 4.7.1 later"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        if b"spam" in envelope.content:
            return "554 5.7.1 spam"
        self.contents.append(envelope.content)
        self.secure.append(session.ssl is not None)
        self.signed_in.append(bool(session.authenticated))
        return "250 ok"


def _authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    right = (data.login, data.password) == (b"us@er", "pä/ss".encode())
    return AuthResult(success=right, handled=right)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def _trust(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with authority.cert_pem.tempfile() as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)
        yield


@asynccontextmanager
async def server(
    handler: Handler, *, issuer: trustme.CA, name: str = "127.0.0.1", tls: bool = False, **options: Any
) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issuer.issue_cert(name).configure_cert(context)
    loop = asyncio.get_running_loop()

    def factory() -> SMTP:
        starttls = None if tls else context
        return SMTP(handler, hostname="test", loop=loop, tls_context=starttls, **options)

    listening = await loop.create_server(factory, "127.0.0.1", 0, ssl=context if tls else None)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


def envelope(recipient: str = "alice@example.org", content: bytes = CONTENT) -> OurEnvelope:
    return OurEnvelope("<1@example.org>", "punctual@example.org", recipient, content)


def opened(url: str) -> Transport:
    return open_transport(url, data_dir=Path())


USER = "us%40er:p%C3%A4%2Fss"


@pytest.mark.parametrize(
    ("scheme", "options", "user", "tls"),
    [
        ("smtp", "", "", False),
        ("smtp", "&starttls=1", "", False),
        ("smtps", "", "", True),
        ("smtp", "&starttls=1", f"{USER}@", False),
        ("smtps", "", f"{USER}@", True),
        ("smtp", "", f"{USER}@", False),
    ],
)
async def test_send(scheme: str, options: str, user: str, tls: bool, authority: trustme.CA) -> None:
    handler = Handler()
    settings: dict[str, Any] = {"authenticator": _authenticate, "auth_require_tls": False}
    async with server(handler, issuer=authority, tls=tls, **settings) as port:
        transport = opened(f"{scheme}://{user}127.0.0.1:{port}?connections=3{options}")
        await transport.check()
        await asyncio.gather(*(transport.send(envelope()) for _ in range(20)))
        outcomes = await asyncio.gather(
            transport.send(envelope("nobody@example.org")),
            transport.send(envelope("later@example.org")),
            transport.send(envelope(content=b"spam\r\n")),
            transport.send(envelope()),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [Refused, Deferred, Refused, type(None)]
        await transport.close()
    assert handler.contents == [CONTENT] * 21
    # aiosmtpd's session.ssl is only set by STARTTLS; with smtps nothing else could have come through.
    assert handler.secure == [bool(options)] * 21
    assert handler.signed_in == [bool(user)] * 21


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"smtp://{USER}x@127.0.0.1:{{}}?starttls=1", "user name or password"),
        (f"smtps://{USER}x@127.0.0.1:{{}}", "user name or password"),
    ],
)
async def test_wrong_password(url: str, reason: str, authority: trustme.CA) -> None:
    handler = Handler()
    # auth_require_tls: aiosmtpd knows of TLS only where it began by STARTTLS.
    settings: dict[str, Any] = {
        "authenticator": _authenticate,
        "auth_require_tls": not url.startswith("smtps"),
    }
    async with server(handler, issuer=authority, tls=url.startswith("smtps"), **settings) as port:
        transport = opened(url.format(port) + ("&" if "?" in url else "?") + "timeout=10")
        for attempt in (partial(transport.send, envelope()), transport.check):
            with pytest.raises(ServerUnavailable, match=reason) as refused:
                await attempt()
            assert refused.value.code == 535
            assert "pä/ss" not in str(refused.value)
        await transport.close()
    assert handler.contents == []


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("fault", ["unknown issuer", "another name"])
async def test_wrong_certificate(fault: str, tls: bool, authority: trustme.CA) -> None:
    issuer, name = (trustme.CA(), "127.0.0.1") if fault == "unknown issuer" else (authority, "mail.example.org")
    handler = Handler()
    async with server(handler, issuer=issuer, name=name, tls=tls) as port:
        transport = opened(f"smtps://127.0.0.1:{port}" if tls else f"smtp://127.0.0.1:{port}?starttls=1")
        for attempt in (partial(transport.send, envelope()), transport.check):
            with pytest.raises(ServerUnavailable, match="certificate"):
                await attempt()
        await transport.close()
    assert handler.contents == []


async def test_no_starttls_no_password(authority: trustme.CA) -> None:
    """Somebody between us and the server strips STARTTLS: then nothing is said."""
    handler = Handler()
    heard: list[str] = []

    class Listening(SMTP):
        async def smtp_AUTH(self, arg: str) -> None:
            heard.append(arg)
            await super().smtp_AUTH(arg)

    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: Listening(handler, hostname="test", auth_require_tls=False, authenticator=_authenticate),
        "127.0.0.1",
        0,
    )
    port = listening.sockets[0].getsockname()[1]
    transport = opened(f"smtp://{USER}@127.0.0.1:{port}?starttls=1")
    with pytest.raises(ServerUnavailable, match="STARTTLS"):
        await transport.send(envelope())
    assert not heard
    assert not handler.contents
    await transport.close()
    listening.close()


async def test_tls_spoken_to_a_plain_server_and_nobody_there() -> None:
    handler = Handler()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: SMTP(handler, hostname="test"), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    transport = opened(f"smtps://127.0.0.1:{port}?timeout=3")
    with pytest.raises(ServerUnavailable):
        await transport.send(envelope())
    listening.close()
    await listening.wait_closed()
    with pytest.raises(ServerUnavailable, match="can't be used"):
        await transport.send(envelope())
    await transport.close()

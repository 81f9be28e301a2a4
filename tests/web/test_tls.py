"""TLS at the API itself: what is offered, and certificates that are changed while it serves."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from scheduler.settings import Settings
from tests.web.test_http import head_of
from tests.web.test_server import Running
from tests.web.test_server import _only_warnings_are_logged as _only_warnings_are_logged
from tests.web.test_server import event_loop_policy as event_loop_policy
from tests.web.test_server import pytestmark as pytestmark
from tests.web.test_server import stack as stack  # which database is behind it makes no difference here

AUTHORITY = trustme.CA()
NAME = "punctual.example"


class Certificate:
    """A certificate for `NAME`, with its key, in two files that a test may write again."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.renew()

    def renew(self) -> int:
        """A new one; returns its serial number."""
        issued = AUTHORITY.issue_cert(NAME)
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        return serial_of(ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode()))


def serial_of(der: bytes) -> int:
    from cryptography.x509 import load_der_x509_certificate

    return load_der_x509_certificate(der).serial_number


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


@pytest.fixture
def tls_settings(settings: Settings, certificate: Certificate) -> Settings:
    return settings.model_copy(update={"tls_cert": certificate.cert, "tls_key": certificate.key, "grace_seconds": 2})


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


class Connection:
    """A connection over TLS that is kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, running: Running, context: ssl.SSLContext | None = None) -> Connection:
        return cls(
            *await asyncio.open_connection(
                "127.0.0.1", running.port, ssl=context or client_context(), server_hostname=NAME
            )
        )

    @property
    def tls(self) -> ssl.SSLObject:
        found = self.writer.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        return found

    @property
    def serial(self) -> int:
        der = self.tls.getpeercert(binary_form=True)
        assert der is not None
        return serial_of(der)

    async def ask(self, sent: bytes = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") -> tuple[int, dict[str, str]]:
        self.writer.write(sent)
        status, headers = await head_of(self.reader)
        await self.reader.readexactly(int(headers["content-length"]))
        return status, headers

    def close(self) -> None:
        self.writer.transport.abort()


async def test_answers_over_tls_say_so(tls_settings: Settings) -> None:
    async with Running(tls_settings) as running:
        connection = await Connection.open(running)
        for sent, wanted in (
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
            (b"GET /nowhere HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n", 400),
        ):
            status, headers = await connection.ask(sent)
            assert status == wanted
            # A year at the least (RFC 6797; OWASP ASVS 3.4.1).
            assert headers["strict-transport-security"] == "max-age=31536000"
        connection.close()


async def test_what_is_offered(tls_settings: Settings) -> None:
    async with Running(tls_settings) as running:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context()
            context.minimum_version = context.maximum_version = version
            connection = await Connection.open(running, context)
            name, _, bits = connection.tls.cipher() or ("", "", 0)
            assert bits >= 128 and ("GCM" in name or "CHACHA20" in name), name
            connection.close()
        old = client_context()
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        weak = client_context()
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers(
            "AES256-GCM-SHA384:ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA384"
        )  # no secrecy, or no AEAD
        for refused in (old, weak):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await Connection.open(running, refused)
        # Who speaks no TLS gets nothing, and harms nobody.
        reader, writer = await running.connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in await asyncio.wait_for(reader.read(), 5)
        writer.close()
        connection = await Connection.open(running)
        assert (await connection.ask())[0] == 200
        connection.close()


async def test_a_handshake_that_never_ends(tls_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.server.HEAD_S", 0.3)
    async with Running(tls_settings) as running:
        silent, _ = await running.connect()
        slow, slow_writer = await running.connect()
        slow_writer.write(b"\x16\x03\x01\x02\x00\x01\x00")  # how a handshake begins
        for reader in (silent, slow):
            assert await asyncio.wait_for(reader.read(), 3) == b""
        connection = await Connection.open(running)
        assert (await connection.ask())[0] == 200
        connection.close()


async def test_sighup_reads_the_certificate_again(tls_settings: Settings, certificate: Certificate) -> None:
    async with Running(tls_settings) as running:
        before = await Connection.open(running)
        serial = certificate.renew()
        assert before.serial != serial
        with capture_logs() as logs:
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: any(each["event"] == "tls.reloaded" for each in logs))
        after = await Connection.open(running)
        assert after.serial == serial
        assert (await after.ask())[0] == 200
        assert (await before.ask())[0] == 200  # a connection that stands goes on
        for each in (before, after):
            each.close()


@pytest.mark.parametrize("broken", ["another key", "no certificate", "missing"])
async def test_a_certificate_that_is_none_leaves_the_old_one(
    tls_settings: Settings, certificate: Certificate, broken: str
) -> None:
    async with Running(tls_settings) as running:
        before = await Connection.open(running)
        old_key = certificate.key.read_bytes()
        serial = certificate.renew()
        if broken == "another key":
            certificate.key.write_bytes(old_key)  # as between the two writes of a renewal
        elif broken == "no certificate":
            certificate.cert.write_text("none")
        else:
            certificate.cert.unlink()
        with capture_logs() as logs:
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: any(each["event"] == "tls.not_reloaded" for each in logs))
        after = await Connection.open(running)
        assert after.serial == before.serial != serial
        assert (await after.ask())[0] == 200
        for each in (before, after):
            each.close()


async def until(true: Callable[[], bool]) -> None:
    """Wait until it holds."""
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within five seconds")

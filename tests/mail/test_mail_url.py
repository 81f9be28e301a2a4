"""PUNCTUAL_MAIL_URL: what is understood, and what is refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.mail.smtp import SmtpTransport
from scheduler.mail.smtp_opening import SmtpServer
from scheduler.mail.transport import open_transport

DATA_DIR = Path("data")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.org", SmtpServer("mail.example.org", 25)),
        ("smtp://mail.example.org?starttls=1", SmtpServer("mail.example.org", 25, "starttls")),
        ("smtps://mail.example.org/", SmtpServer("mail.example.org", 465, "tls")),
        (
            "smtp://us%40er:p%3Aa%2Fs%23s%25@[::1]:2525?connections=3&timeout=1.5",
            SmtpServer("::1", 2525, "none", "us@er", "p:a/s#s%", 3, 1.5, 600),
        ),
        (
            "smtp://mail.example.org?timeout=5&content_timeout=900",
            SmtpServer("mail.example.org", 25, timeout=5, content_timeout=900),
        ),
        ("smtp://u:secret@localhost", SmtpServer("localhost", 25, "none", "u", "secret")),
        (
            "smtp://u:secret@mail.example.org:587?starttls=true",
            SmtpServer("mail.example.org", 587, "starttls", "u", "secret"),
        ),
        ("smtp://bücher.example", SmtpServer("xn--bcher-kva.example", 25)),
    ],
)
def test_smtp(url: str, expected: SmtpServer) -> None:
    transport = open_transport(url, data_dir=DATA_DIR)
    assert isinstance(transport, SmtpTransport)
    assert transport._server == expected
    if expected.password:
        assert expected.password not in transport.description + repr(transport._server)


@pytest.mark.parametrize(("url", "folder"), [("maildir:", DATA_DIR / "mail"), ("maildir:/srv/m%20ail", "/srv/m ail")])
def test_maildir(url: str, folder: object) -> None:
    assert open_transport(url, data_dir=DATA_DIR).description == f"maildir:{folder}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example.org",
        "http://mail.example.org",
        "maildir:relative",
        "maildir://host/folder",
        "smtp://",
        "smtp:///path",
        "smtp://host/path",
        "smtp://host:0",
        "smtp://host:99999",
        "smtp://host:port",
        "smtp://[::1",
        "smtp://user@localhost",
        "smtp://:secret@localhost",
        "smtp://user:secret@mail.example.org",
        "smtp://user:secret@10.0.0.1",
        "smtp://user:secret@localhost.example.org",
        "smtps://host?starttls=1",
        "smtp://host?starttls=maybe",
        "smtp://host?starttls=1&starttls=0",
        "smtp://host?tls=1",
        "smtp://host?connections=0",
        "smtp://host?connections=1.5",
        "smtp://host?connections=1000",
        "smtp://host?timeout=nan",
        "smtp://host?timeout=-1",
        "smtp://host?content_timeout=0",
        "smtp://host?content_timeout=3601",
        "smtp://user:sec/secret@host?starttls=1",
        "smtp://user:sec#secret@host?starttls=1",
        "smtp://user:sec?secret@host",
    ],
)
def test_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"mail URL|maildir URL") as refused:
        open_transport(url, data_dir=DATA_DIR)
    message = str(refused.value)
    assert "\n" not in message
    assert "secret" not in message

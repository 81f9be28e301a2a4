"""The bytes of a message, held to the standard library's reading of them."""

from __future__ import annotations

import email
import email.header
import email.policy
import re
import time
from datetime import UTC, datetime, timedelta, timezone
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.mail.addresses import ascii_address, split_mailbox
from scheduler.mail.message import build_message

ARGUMENTS: dict[str, Any] = {
    "message_id": "<0192f1c0.1@punctual.example.org>",
    "date": datetime(2026, 11, 20, 9, 5, 7, tzinfo=timezone(timedelta(hours=1))),
    "sender": "Punctual <punctual@example.org>",
    "to": "alice@example.org",
    "to_name": "Alice",
    "subject": "Reminder: Pay rent",
    "text": "Hello\n",
    "html": "<p>Hello</p>\n",
}


def read(data: bytes) -> EmailMessage:
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def build(**changes: Any) -> bytes:
    data = build_message(**{**ARGUMENTS, **changes})
    assert data.isascii()
    assert data.endswith(b"\r\n")
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", data), "a line end that is not CRLF"
    assert max(map(len, data.split(b"\r\n"))) <= 998
    body = data.partition(b"\r\n\r\n")[2]
    assert max(map(len, body.split(b"\r\n"))) <= 76
    return data


def bodies(data: bytes) -> tuple[str, str]:
    message = read(data)
    assert message.get_content_type() == "multipart/alternative"
    parts = list(message.iter_parts())
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    text, html = (part.get_content().replace("\r\n", "\n") for part in parts)
    return text, html


def as_sent(text: str) -> str:
    """What build_message says it does to a body."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else text + "\n"


def without_controls(text: str) -> str:
    return re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text)


def test_headers() -> None:
    message = read(build(headers={"List-Unsubscribe": "<https://example.org/act/unsubscribe?token=1>"}))
    assert message["From"] == "Punctual <punctual@example.org>"
    assert message["To"] == "Alice <alice@example.org>"
    assert message["Subject"] == "Reminder: Pay rent"
    assert message["Date"] == "Fri, 20 Nov 2026 08:05:07 +0000"
    assert message["Message-ID"] == "<0192f1c0.1@punctual.example.org>"
    assert message["MIME-Version"] == "1.0"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["List-Unsubscribe"] == "<https://example.org/act/unsubscribe?token=1>"


SUBJECTS = [
    "",
    "Pay rent 🏠 — now",
    "👩‍👩‍👧‍👦" * 20,
    "שלום עולם, להזכיר לשלם שכר דירה " * 5,
    "تذكير: ادفع الإيجار",
    "家賃" * 100,
    "x" * 200,
    "word " * 40,
    "  spaces at  both ends  ",
    "tab\tinside",
    "=?utf-8?q?not_encoded?=",
    "é=?utf-8?b?aGk=?= x",
    'quotes " and \\ backslashes, <angles>; (parens)',
    "a" * 67 + " b",
    "\U0001f600 " * 60,
]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_subject(subject: str) -> None:
    data = build(subject=subject)
    assert read(data)["Subject"] == without_controls(subject)
    head = data.partition(b"\r\n\r\n")[0]
    assert max(map(len, head.split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    "injection",
    [
        "Hi\r\nBcc: eve@example.org",
        "Hi\nBcc: eve@example.org",
        "Hi\rX: y",
        "\0",
        "a\r\n\r\nbody",
        "a\x85b\u2028c",
    ],
)
def test_no_text_begins_a_header(injection: str) -> None:
    message = read(build(subject=injection, to_name=injection, sender=f"{injection} <p@example.org>"))
    assert message["Subject"] == without_controls(injection)
    assert message["Bcc"] is None
    assert message["X"] is None
    assert message["To"].addresses[0].addr_spec == "alice@example.org"
    assert message["From"].addresses[0].addr_spec == "p@example.org"


@pytest.mark.parametrize(
    "field",
    [
        {"to": "alice@example.org\r\nBcc: eve@example.org"},
        {"to": "alice@example.org\n"},
        {"to": "alice@exa\0mple.org"},
        {"to": "alice@example.org>, <eve@example.org"},
        {"to": "alice"},
        {"to": "alice@example.org eve@example.org"},
        {"to": "a" * 65 + "@example.org"},
        {"to": "a@" + "b." * 130 + "org"},
        {"to": "ålice@example.org"},
        {"to": "alice@exa\u2028mple.org"},
        {"sender": "Punctual <punctual@example.org"},
        {"sender": "Punctual <punctual@example.org\r\n>"},
        {"message_id": "<a@b>\r\nBcc: eve@example.org"},
        {"message_id": "<a@b>\n"},
        {"message_id": "no at sign"},
        {"message_id": "a" * 300 + "@b"},
        {"headers": {"X-A": "b\r\nBcc: eve@example.org"}},
        {"headers": {"X-A\r\nBcc": "b"}},
        {"headers": {"X-A": "é"}},
        {"headers": {"X-A": "x" * 1000}},
        {"headers": {"subject": "another"}},
        {"headers": {"": "b"}},
        {"date": datetime(2026, 11, 20, 9)},
    ],
)
def test_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        build_message(**{**ARGUMENTS, **field})


def test_why_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="before the @ must be ASCII"):
        ascii_address("josé@example.org")


def test_internationalised_domain() -> None:
    assert ascii_address("anna@Bücher.example") == "anna@xn--bcher-kva.example"
    assert read(build(to="anna@bücher.example"))["To"].addresses[0].addr_spec == "anna@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("mailbox", "expected"),
    [
        ("punctual@localhost", ("", "punctual@localhost")),
        ("<p@example.org>", ("", "p@example.org")),
        ('"Tasks, \\"daily\\"" <p@example.org>', ('Tasks, "daily"', "p@example.org")),
        ("Pünktlich <p@bücher.example>", ("Pünktlich", "p@xn--bcher-kva.example")),
    ],
)
def test_split_mailbox(mailbox: str, expected: tuple[str, str]) -> None:
    assert split_mailbox(mailbox) == expected
    sender = read(build(sender=mailbox))["From"].addresses[0]
    assert (sender.display_name, sender.addr_spec) == expected


NAMES = [
    "",
    "Alice",
    "Anna Müller",
    "Müller, Anna",
    'Anna "Ann" \\M',
    "עֲנָת",
    "安娜",
    "🎉",
    "=?utf-8?b?aGk=?=",
    "a@b.c",
]


@pytest.mark.parametrize("name", [*NAMES, "Anna-Sophie " * 16, "Anna, " * 30, "  odd   spaces "])
def test_display_name(name: str) -> None:
    data = build(to_name=name)
    address = read(data)["To"].addresses[0]
    assert address.addr_spec == "alice@example.org"
    assert address.display_name == " ".join(name.split())


@pytest.mark.parametrize("name", ["Zoë " * 40, "日本" * 60, "x" * 300])
def test_display_name_of_several_encoded_words(name: str) -> None:
    """Read the old way: Python 3.11's new parser puts a space between encoded words in a name (RFC 2047,
    6.2).
    """
    data = build(to_name=name)
    assert read(data)["To"].addresses[0].addr_spec == "alice@example.org"
    raw = email.message_from_bytes(data)["To"].rpartition(" ")[0]
    assert str(email.header.make_header(email.header.decode_header(raw))).strip() == " ".join(name.split())


BODIES = [
    "",
    "\n",
    ".\n..\n.leading dot\n\n.\n",
    "x" * 5000,
    "é" * 5000,
    "word " * 2000,
    "trailing spaces   \nand a tab\t\n",
    "ends in a space ",
    "From the start\nFrom here\n",
    "= equals =3D =\n=",
    "mixed\r\nline\rends\n\r",
    "🎉" * 500,
    "שלום\n" * 50,
    "\0\x01\x0b\x0c\x1c\x85\u2028 controls",
    "--=_boundary\n--\n",
]


@pytest.mark.parametrize("body", BODIES)
def test_bodies(body: str) -> None:
    assert bodies(build(text=body, html=f"<p>{body}</p>")) == (as_sent(body), as_sent(f"<p>{body}</p>"))


def test_encoding_follows_the_text() -> None:
    text, html = read(build(text="mostly ASCII, and an é", html="家賃" * 50)).iter_parts()
    assert text["Content-Transfer-Encoding"] == "quoted-printable"
    assert html["Content-Transfer-Encoding"] == "base64"


def test_the_boundary_cannot_be_in_a_body() -> None:
    boundary = read(build()).get_boundary()
    assert boundary is not None
    body = f"--{boundary}\n--{boundary}--\n"
    assert bodies(build(text=body, html=body)) == (body, body)
    assert read(build(message_id="another@example.org")).get_boundary() != boundary


def test_lone_surrogates_become_replacement_characters() -> None:
    data = build(subject="a\ud800b", text="a\udfffb", html="ok")
    assert read(data)["Subject"] == "a\ufffdb"
    assert bodies(data)[0] == "a\ufffdb\n"


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(subject=ANY_TEXT, text=ANY_TEXT, html=ANY_TEXT, name=ANY_TEXT)
def test_round_trip(subject: str, text: str, html: str, name: str) -> None:
    data = build(subject=subject, text=text, html=html, to_name=name)
    # The reader takes white space off the front of a header, encoded or not: so compare without it.
    assert read(data)["Subject"].strip() == without_controls(subject).strip()
    assert bodies(data) == (as_sent(text), as_sent(html))
    assert [address.addr_spec for address in read(data)["To"].addresses] == ["alice@example.org"]


def test_speed() -> None:
    """A typical reminder, 3 KB of HTML, in 46 µs here; the bound leaves room for a busy machine."""
    html = '<p style="margin:0 0 8px;font:16px sans-serif">Some text, and an <b>é</b> here.</p>\n' * 36

    def once() -> float:
        begin = time.perf_counter()
        for _ in range(200):
            build_message(**{**ARGUMENTS, "html": html, "date": datetime.now(UTC)})
        return (time.perf_counter() - begin) / 200

    assert min(once() for _ in range(10)) < 250e-6

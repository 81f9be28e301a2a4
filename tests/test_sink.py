"""The SMTP sink of the tests and the benchmark: it must not lose or misread a message, however it is sent."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Iterator

import pytest

from bench.sink import SinkProcess

MESSAGE = b"Subject: x\r\nMessage-Id:\r\n <1@a>\r\nTo: b@b.example\r\n\r\nMessage-ID: <not this>\r\n..dot\r\nend\r\n"


@pytest.fixture(scope="module")
def shared_sink() -> Iterator[SinkProcess]:
    with SinkProcess() as sink:
        yield sink


@pytest.fixture
def sink(shared_sink: SinkProcess) -> SinkProcess:
    shared_sink.reset()
    return shared_sink


def client(sink: SinkProcess) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", sink.port, local_hostname="test", timeout=10)


def test_every_split_of_a_pipelined_stream_is_read_alike(sink: SinkProcess) -> None:
    sink.keep_bodies()
    envelope = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<B@b.example>\r\nDATA\r\n"
    stream = envelope + MESSAGE + b".\r\n" + envelope + b".\r\n"
    for split in range(1, len(stream), 3):
        with (
            socket.create_connection(("127.0.0.1", sink.port)) as connection,
            connection.makefile("rb") as replies,
        ):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(stream[:split])
            connection.sendall(stream[split:] + b"NOOP\r\nQUIT\r\n")
            codes = [line[:3].decode() for line in replies]
        assert codes == ["220", *["250", "250", "354", "250"] * 2, "250", "221"]
    sink.keep_bodies(False)
    messages = sink.messages()
    assert len(messages) == 2 * len(range(1, len(stream), 3))
    assert {(m.message_id, m.recipients, m.body) for m in messages} == {
        ("<1@a>", ("B@b.example",), MESSAGE),
        ("", ("B@b.example",), b"\r\n"),
    }
    assert messages == sorted(messages, key=lambda message: message.monotonic)


def test_a_large_message_in_many_chunks(sink: SinkProcess) -> None:
    with client(sink) as smtp:
        smtp.sendmail("a@a.example", ["b@b.example", "c@c.example"], MESSAGE + b"X" * 70 * 50_000 + b"\r\n")
    (message,) = sink.messages()
    assert message.message_id == "<1@a>"
    assert message.recipients == ("b@b.example", "c@c.example")
    assert message.body is None


def test_refusals(sink: SinkProcess) -> None:
    sink.refuse({"bad@b.example": 550, "later@b.example": 450})
    with client(sink) as smtp:
        refused = smtp.sendmail("a@a.example", ["bad@b.example", "later@b.example", "good@b.example"], MESSAGE)
        assert {address: code for address, (code, _) in refused.items()} == {
            "bad@b.example": 550,
            "later@b.example": 450,
        }
        sink.refuse({})
        sink.refuse_all(451)
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            smtp.sendmail("a@a.example", "good@b.example", MESSAGE)
        sink.refuse_all(0)
        smtp.sendmail("a@a.example", "good@b.example", MESSAGE)
    assert [message.recipients for message in sink.messages()] == [("good@b.example",)] * 2


def test_going_away_cuts_connections_and_forgets_nothing(sink: SinkProcess) -> None:
    smtp = client(sink)
    smtp.sendmail("a@a.example", "b@b.example", MESSAGE)
    sink.go_away()
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        smtp.sendmail("a@a.example", "b@b.example", MESSAGE)
    smtp.close()
    with pytest.raises(ConnectionRefusedError):
        client(sink)
    sink.come_back()
    with client(sink) as again:
        again.sendmail("a@a.example", "b@b.example", MESSAGE)
    assert sink.count() == 2
    assert len(sink.messages(since=1)) == 1


def test_a_swallowed_answer_is_a_message_that_landed(sink: SinkProcess) -> None:
    sink.swallow(1)
    with client(sink) as smtp, pytest.raises(smtplib.SMTPServerDisconnected):
        smtp.sendmail("a@a.example", "b@b.example", MESSAGE)
    assert sink.count() == 1

"""What becomes of a message when the server refuses, falls silent or cuts, at every stage, with PIPELINING
and without.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler.mail import smtp, smtp_connection
from scheduler.mail.transport import Deferred, Envelope, Refused, ServerUnavailable, Transport, open_transport
from tests.mail.scripted_server import CUT, SILENT, Script, ScriptedServer, scripted_server, usual

CONTENT = b"Subject: x\r\n\r\nHello\r\n.dot\r\n..\r\n.\r\nend\r\n"
STUFFED = b"Subject: x\r\n\r\nHello\r\n..dot\r\n...\r\n..\r\nend\r\n"


def envelope(number: int = 0, data: bytes = CONTENT) -> Envelope:
    return Envelope(f"<{number}@example.org>", "punctual@example.org", f"person{number}@example.org", data)


def opened(server: ScriptedServer, **options: object) -> Transport:
    chosen = {"connections": 1, "timeout": 2, **options}
    chosen.setdefault("content_timeout", chosen["timeout"])
    query = "&".join(f"{name}={value}" for name, value in chosen.items())
    return open_transport(f"smtp://127.0.0.1:{server.port}?{query}", data_dir=Path())


@pytest.fixture(params=[True, False], ids=["pipelining", "plain"])
def pipelining(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def first_and_second(script: Script, pipelining: bool) -> tuple[object, ScriptedServer]:
    """The outcome of a first message (None or its error); a second one must then go through."""
    async with scripted_server(script, pipelining=pipelining) as server:
        transport = opened(server)
        outcome = (await asyncio.gather(transport.send(envelope(1)), return_exceptions=True))[0]
        await transport.send(envelope(2, b"second\r\n"))
        await transport.close()
        assert server.taken[-1] == b"second\r\n"
        return outcome, server


async def test_messages_go_out_over_one_kept_connection(pipelining: bool) -> None:
    async with scripted_server(usual, pipelining=pipelining) as server:
        transport = opened(server)
        await transport.send(envelope(1))
        await asyncio.gather(*(transport.send(envelope(number)) for number in range(2, 30)))
        assert server.taken == [STUFFED] * 29
        assert server.connections == 1
        await transport.close()
        assert server.points(0)[-1] == "QUIT"
        with pytest.raises(ServerUnavailable):
            await transport.send(envelope(3))


@pytest.mark.parametrize(
    ("point", "answer", "kind"),
    [
        ("MAIL", "451 4.3.0 later", Deferred),
        ("MAIL", "550 5.7.1 not you", Refused),
        ("RCPT", "450-4.2.0 greylisted\r\n450 come again", Deferred),
        ("RCPT", "550 5.1.1 nobody here", Refused),
        ("DATA", "451 4.3.0 later", Deferred),
        ("DATA", "554 5.5.1 no", Refused),
        (".", "452 4.2.2 full", Deferred),
        (".", "554 5.7.1 spam", Refused),
    ],
)
async def test_refusals(point: str, answer: str, kind: type[Exception], pipelining: bool) -> None:
    """The message alone is refused; the connection goes on, after an RSET where a transaction was left
    open.
    """
    done: list[str] = []

    def script(at: str, connection: int) -> object:
        if at == point and not done:
            done.append(at)
            return answer
        return None

    outcome, server = await first_and_second(script, pipelining)
    assert type(outcome) is kind
    assert isinstance(outcome, (Deferred, Refused))
    assert outcome.code == int(answer[:3])
    assert outcome.stage == ("content" if point == "." else point)
    assert server.connections == 1
    assert [content for content in server.taken if content] == [b"second\r\n"]
    if pipelining and point in ("MAIL", "RCPT"):
        # This server answers 354 to DATA without a recipient: a lone dot ended that, and nothing was sent.
        assert server.received == ([b""] if point == "RCPT" else []) + [b"second\r\n"]
    elif point in ("RCPT", "DATA"):
        assert "RSET" in server.points(0)


async def test_no_lone_dot_where_a_recipient_was_taken() -> None:
    """A server that refuses MAIL, takes RCPT and then DATA: an empty message might go to that recipient."""

    def script(at: str, connection: int) -> object:
        return {"MAIL": "550 no", "RCPT": "250 ok", "DATA": "354 go on"}.get(at)

    async with scripted_server(script) as server:
        transport = opened(server)
        with pytest.raises(Refused) as refused:
            await transport.send(envelope(1))
        assert refused.value.stage == "MAIL"
        await transport.close()
        assert server.received == []


@pytest.mark.parametrize("code", [530, 535])
async def test_mail_refused_for_want_of_a_sign_in(code: int, pipelining: bool) -> None:
    def script(at: str, connection: int) -> object:
        return f"{code} sign in first" if at == "MAIL" and connection == 0 else None

    outcome, _ = await first_and_second(script, pipelining)
    assert isinstance(outcome, ServerUnavailable)
    assert outcome.code == code


@pytest.mark.parametrize("answer", [CUT, "421 4.3.2 shutting down", SILENT, "what?", "999999", "250-" + "x" * 9000])
@pytest.mark.parametrize("point", ["banner", "EHLO", "MAIL", "RCPT", "DATA", "."])
async def test_connection_lost_at_every_stage(point: str, answer: object, pipelining: bool) -> None:
    """On a new connection the caller is told; only after our final "." may the message have arrived."""

    def script(at: str, connection: int) -> object:
        return answer if (at == point or (at, point) == ("HELO", "EHLO")) and connection == 0 else None

    async with scripted_server(script, pipelining=pipelining) as server:
        transport = opened(server, timeout=0.4)
        begin = time.monotonic()
        with pytest.raises(ServerUnavailable) as lost:
            await transport.send(envelope(1))
        assert time.monotonic() - begin < 5
        no_reply = point == "." and not (isinstance(answer, str) and answer.startswith("421"))
        assert lost.value.may_have_arrived is no_reply
        if answer == "421 4.3.2 shutting down":
            assert lost.value.code == 421
        assert len(server.received) == (1 if point == "." else 0)
        await transport.send(envelope(2, b"second\r\n"))
        assert server.taken[-1] == b"second\r\n"
        await transport.close()


@pytest.mark.parametrize("answer", [CUT, "421 4.4.2 idle too long", SILENT])
@pytest.mark.parametrize("point", ["MAIL", "RCPT", "DATA"])
async def test_a_stale_connection_is_replaced_unseen(point: str, answer: object, pipelining: bool) -> None:
    """Nothing was accepted, so the message goes out once more, over a new connection, and arrives once."""
    asked: list[str] = []

    def script(at: str, connection: int) -> object:
        if at == point and connection == 0:
            asked.append(at)
            return answer if len(asked) == 2 else None
        return None

    async with scripted_server(script, pipelining=pipelining) as server:
        transport = opened(server, timeout=0.4)
        await transport.send(envelope(1, b"first\r\n"))
        await transport.send(envelope(2, b"second\r\n"))
        assert server.taken == [b"first\r\n", b"second\r\n"]
        assert server.connections == 2
        await transport.close()


async def test_after_the_final_dot_nothing_is_sent_again(pipelining: bool) -> None:
    def script(at: str, connection: int) -> object:
        return CUT if at == "." and len(server.received) == 2 else None

    async with scripted_server(script, pipelining=pipelining) as server:
        transport = opened(server)
        await transport.send(envelope(1))
        with pytest.raises(ServerUnavailable) as lost:
            await transport.send(envelope(2))
        assert lost.value.may_have_arrived
        assert len(server.received) == 2
        await transport.close()


async def test_one_more_try_is_all(pipelining: bool) -> None:
    def script(at: str, connection: int) -> object:
        return CUT if at == "MAIL" and len(server.taken) == 1 else None

    async with scripted_server(script, pipelining=pipelining) as server:
        transport = opened(server)
        await transport.send(envelope(1))
        with pytest.raises(ServerUnavailable) as lost:
            await transport.send(envelope(2))
        assert not lost.value.may_have_arrived
        assert server.connections == 2
        await transport.close()


async def test_the_next_one_survives_the_loss_of_the_one_before() -> None:
    """Its commands had gone out with the content of the lost one; its content had not."""

    def script(at: str, connection: int) -> object:
        return CUT if at == "." and connection == 0 else None

    async with scripted_server(script) as server:
        transport = opened(server)
        outcomes = await asyncio.gather(
            *(transport.send(envelope(n, b"%d\r\n" % n)) for n in range(5)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [ServerUnavailable] + [type(None)] * 4
        assert sorted(server.received) == [b"%d\r\n" % n for n in range(5)]
        await transport.close()


async def test_refusals_in_the_middle_of_many(pipelining: bool) -> None:
    asked: list[str] = []

    def script(at: str, connection: int) -> object:
        if at == "RCPT":
            asked.append(at)
            return "550 no" if len(asked) % 3 == 0 else None
        return None

    async with scripted_server(script, pipelining=pipelining) as server:
        transport = opened(server)
        outcomes = await asyncio.gather(
            *(transport.send(envelope(n, b"%d\r\n" % n)) for n in range(30)), return_exceptions=True
        )
        sent = [n for n, outcome in enumerate(outcomes) if outcome is None]
        assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 10
        # A lone dot may be answered 250: it carries nothing.
        assert [content for content in server.taken if content] == [b"%d\r\n" % n for n in sent]
        assert server.connections == 1
        await transport.close()


async def test_replies_in_pieces() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(text: bytes) -> None:
            for start in range(0, len(text), 2):
                writer.write(text[start : start + 2])
                await asyncio.sleep(0.001)

        await say(b"220-hello\r\n220 there\r\n")
        await reader.readline()
        await say(b"250-me\r\n250 PIPELINING\r\n")
        while line := await reader.readline():
            if line.startswith(b"QUIT"):
                await say(b"221 bye\r\n")
                break
            if line.startswith(b"DATA"):
                await say(b"354-go\r\n354 on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
            await say(b"250-2.0.0 fine\r\n250-\r\n250 2.0.0 so\r\n" if line[:4] == b"DATA" else b"250 ok\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = open_transport(f"smtp://127.0.0.1:{port}?connections=1&timeout=5", data_dir=Path())
    await asyncio.gather(*(transport.send(envelope(number)) for number in range(3)))
    await transport.close()
    server.close()


@pytest.fixture
async def slow() -> AsyncIterator[ScriptedServer]:
    """Falls silent after the first content."""

    def script(at: str, connection: int) -> object:
        return SILENT if at == "." and connection == 0 else None

    async with scripted_server(script) as server:
        yield server


async def test_cancelling_cuts_the_connection(slow: ScriptedServer) -> None:
    transport = opened(slow, timeout=30)
    first = asyncio.create_task(transport.send(envelope(1, b"first\r\n")))
    following = asyncio.create_task(transport.send(envelope(2, b"second\r\n")))
    waiting = asyncio.create_task(transport.send(envelope(3, b"third\r\n")))
    await slow.content_came.wait()
    waiting.cancel()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.wait_for(following, 5)
    assert slow.received == [b"first\r\n", b"second\r\n"]
    assert slow.connections == 2
    await transport.close()


async def test_cancelling_the_next_one_leaves_the_present_one_alone() -> None:
    async with scripted_server(usual) as server:
        transport = opened(server)
        await transport.send(envelope(0, b"0\r\n"))
        sends = [asyncio.create_task(transport.send(envelope(n, b"%d\r\n" % n))) for n in range(1, 6)]
        await asyncio.sleep(0)
        sends[1].cancel()
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        assert isinstance(outcomes[1], asyncio.CancelledError)
        assert [outcome for n, outcome in enumerate(outcomes) if n != 1] == [None] * 4
        assert b"2\r\n" not in server.received
        await transport.close()


async def test_closing_gives_up_on_a_silent_server(slow: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "_GRACE", 0.2)
    transport = opened(slow, timeout=30)
    sending = asyncio.create_task(transport.send(envelope(1)))
    await slow.content_came.wait()
    await transport.close()
    with pytest.raises(ServerUnavailable) as lost:
        await sending
    assert lost.value.may_have_arrived


async def test_server_restarts_while_connections_are_kept() -> None:
    async with scripted_server(usual) as server:
        transport = opened(server, connections=4)
        await asyncio.gather(*(transport.send(envelope(n)) for n in range(40)))
        await server.stop()
        with pytest.raises(ServerUnavailable):
            await transport.send(envelope(1))
        outcomes = await asyncio.gather(*(transport.send(envelope(n)) for n in range(40)), return_exceptions=True)
        assert all(isinstance(outcome, ServerUnavailable) for outcome in outcomes)
        assert len({id(outcome) for outcome in outcomes}) == 40
        await server.start()
        taken = len(server.taken)
        await asyncio.gather(*(transport.send(envelope(n)) for n in range(40)))
        assert len(server.taken) == taken + 40
        await transport.close()


async def test_the_server_gives_only_one_connection() -> None:
    """The others are told 421 in the banner: what waits goes out over the one there is."""

    def script(at: str, connection: int) -> object:
        return "421 too many connections from you" if at == "banner" and connection > 0 else None

    async with scripted_server(script) as server:
        transport = opened(server, connections=8)
        await transport.send(envelope(0))
        await asyncio.gather(*(transport.send(envelope(n)) for n in range(50)))
        assert len(server.taken) == 51
        await transport.close()


async def keep_two_connections(server: ScriptedServer, transport: Transport, hold: asyncio.Event) -> None:
    """Send two messages over a connection each. The server holds back its answer to the first content by `hold`."""
    first = asyncio.create_task(transport.send(envelope(0)))
    await server.content_came.wait()
    await transport.send(envelope(1))
    hold.set()
    await first
    assert server.connections == len(server.taken) == 2


async def test_an_idle_connection_takes_what_no_new_one_is_given_for(pipelining: bool) -> None:
    """One kept connection has gone stale, the server gives no other: the one that idles does the work."""
    meanwhile: list[int] = []  # the connections that are cut
    hold = asyncio.Event()

    def script(at: str, connection: int) -> object:
        if at == "." and not hold.is_set() and connection == 0:
            return hold
        if at == "banner" and connection > 1:
            return "421 too many connections from you"
        if at == "MAIL" and not meanwhile and len(server.taken) == 2:
            meanwhile.append(connection)
        return CUT if connection in meanwhile else None

    async with scripted_server(script, pipelining=pipelining) as server:
        transport = opened(server, connections=2)
        await keep_two_connections(server, transport, hold)
        async with asyncio.timeout(5):
            await transport.send(envelope(2, b"third\r\n"))
        assert server.taken[-1] == b"third\r\n"
        assert meanwhile
        await transport.close()


async def test_those_whose_new_connection_is_refused_wait_for_the_one_that_is_not(pipelining: bool) -> None:
    """Both kept connections have gone stale; of the two new ones the server gives one, after refusing the other."""

    hold = asyncio.Event()

    def script(at: str, connection: int) -> object:
        if at == "." and not hold.is_set() and connection == 0:
            return hold
        if at == "banner" and connection == 2:
            return "421 too many connections from you"
        return CUT if connection < 2 and at == "MAIL" and len(server.taken) == 2 else None

    async with scripted_server(script, pipelining=pipelining) as server:
        transport = opened(server, connections=2)
        await keep_two_connections(server, transport, hold)
        async with asyncio.timeout(5):
            await asyncio.gather(*(transport.send(envelope(n)) for n in range(2, 4)))
        assert len(server.taken) == 4
        await transport.close()


async def test_the_reply_to_a_content_may_take_longer_than_others(pipelining: bool) -> None:
    """Who gives up on a server that has the message whole sends it twice (RFC 5321, 4.5.3.2.6)."""
    slow = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        while line := await reader.readline():
            answer = b"250 ok"
            if line.startswith(b"EHLO"):
                answer = b"250-me\r\n250 PIPELINING" if pipelining else b"250 me"
            elif line.startswith(b"DATA"):
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                await asyncio.sleep(0.8)
            elif line.startswith(b"MAIL") and slow.is_set():
                await asyncio.sleep(0.8)
            writer.write(answer + b"\r\n")
            if line.startswith(b"QUIT"):
                break
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    url = f"smtp://127.0.0.1:{port}?connections=1&timeout=0.3"
    patient = open_transport(url + "&content_timeout=5", data_dir=Path())
    await asyncio.gather(*(patient.send(envelope(number)) for number in range(2)))
    slow.set()
    with pytest.raises(ServerUnavailable) as lost:
        await patient.send(envelope(2))
    assert not lost.value.may_have_arrived
    slow.clear()
    impatient = open_transport(url + "&content_timeout=0.3", data_dir=Path())
    with pytest.raises(ServerUnavailable) as lost:
        await impatient.send(envelope(3))
    assert lost.value.may_have_arrived
    await patient.close()
    await impatient.close()
    listening.close()


async def test_a_connection_carries_so_many_messages_and_no_more(
    pipelining: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "MESSAGES_PER_CONNECTION", 10)
    async with scripted_server(usual, pipelining=pipelining) as server:
        transport = opened(server)
        await asyncio.gather(*(transport.send(envelope(n)) for n in range(35)))
        assert server.connections == 4
        assert [server.points(n).count("MAIL") for n in range(4)] == [10, 10, 10, 5]
        assert server.points(0)[-1] == "QUIT"
        await transport.close()


async def test_idle_connections_are_asked_first_and_closed_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smtp_connection, "_IDLE_BEFORE_CHECK", 0.1)
    monkeypatch.setattr(smtp, "_LONGEST_SWEEP", 0.05)
    async with scripted_server(usual) as server:
        transport = opened(server)
        await transport.send(envelope(1))
        await asyncio.sleep(0.2)
        await transport.send(envelope(2))
        assert server.points(0)[-5:] == ["NOOP", "MAIL", "RCPT", "DATA", "."]
        monkeypatch.setattr(smtp, "IDLE_SECONDS", 0.1)
        await asyncio.sleep(0.4)
        assert server.points(0)[-1] == "QUIT"
        await transport.send(envelope(3))
        assert server.connections == 2
        await transport.close()


@pytest.mark.parametrize("recipient", ["a@b.c>\r\nRCPT TO:<eve@b.c", "", "no at sign", "ü@b.c", "a b@c.d", "a@b.c\0"])
async def test_no_address_reaches_the_wire_unless_it_is_one(recipient: str) -> None:
    async with scripted_server(usual) as server:
        transport = opened(server)
        with pytest.raises(Refused):
            await transport.send(Envelope("<1@b.c>", "punctual@b.c", recipient, CONTENT))
        assert server.connections == 0
        await transport.close()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a\nb\rc", b"a\r\nb\r\nc\r\n"),
        (b".\r\nx", b"..\r\nx\r\n"),
        (b"a\n.\r\nMAIL FROM:<eve@b.c>\r\n", b"a\r\n..\r\nMAIL FROM:<eve@b.c>\r\n"),
        (b"a\r\n.\rb\n.\n", b"a\r\n..\r\nb\r\n..\r\n"),
        (b"", b"\r\n"),
    ],
)
async def test_no_content_ends_itself(data: bytes, expected: bytes, pipelining: bool) -> None:
    async with scripted_server(usual, pipelining=pipelining) as server:
        transport = opened(server)
        await transport.send(envelope(1, data))
        await transport.send(Envelope("<2@b.c>", "", "anna@bücher.example", b"second\r\n"))
        assert server.taken == [expected, b"second\r\n"]
        await transport.close()


async def test_check() -> None:
    async with scripted_server(usual) as server:
        transport = opened(server)
        await transport.check()
        assert server.points(0) == ["banner", "EHLO", "NOOP", "QUIT"]
        await server.stop()
        with pytest.raises(ServerUnavailable, match="can't be used"):
            await transport.check()
        await server.start()
        await transport.close()

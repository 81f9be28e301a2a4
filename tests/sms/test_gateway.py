"""The SMS gateway's client, held against a real HTTP server: what it sends, what it makes of the answers."""

from __future__ import annotations

import base64
import ssl
from urllib.parse import parse_qsl

import pytest
import trustme

from scheduler.settings import Settings
from scheduler.sms import gateway as sms
from scheduler.sms.gateway import SmsFailed, SmsGateway, open_gateway
from tests.http_receiver import Receiver, Script, answer, cut, http_receiver, redirects, says, silent

PATH = "/2010-04-01/Accounts/AC%2F1/Messages.json"
TO, TEXT = "+4930901820", "123456 is your code – ключ"
TAKEN = says(answer("201 Created", b'{"sid": "SM42"}', content_type="application/json"))


def settings(url: str) -> Settings:
    return Settings(sms_url=url)


def opened(receiver: Receiver, *, sender: str = "+15550100", host: str = "127.0.0.1", query: str = "") -> SmsGateway:
    gateway = open_gateway(settings(f"twilio://AC%2F1:to%3Aken@{host}:{receiver.port}/{sender}{query}"))
    assert gateway is not None
    return gateway


async def send(gateway: SmsGateway, *, tls: ssl.SSLContext | None = None) -> str | None:
    return await gateway.send(to=TO, text=TEXT, settings=Settings(), tls=tls)


def test_none_is_set() -> None:
    assert open_gateway(Settings()) is None


async def test_the_request_is_twilios() -> None:
    async with http_receiver({PATH: TAKEN}) as receiver:
        assert await send(opened(receiver)) == "SM42"
    request = receiver.request
    assert (request.method, request.path) == ("POST", PATH)
    scheme, credentials = request.headers["authorization"].split()
    assert scheme == "Basic" and base64.b64decode(credentials) == b"AC/1:to:ken"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert dict(parse_qsl(request.body.decode())) == {"To": TO, "From": "+15550100", "Body": TEXT}


@pytest.mark.parametrize(
    ("sender", "fields"),
    [
        ("whatsapp:+15550100", {"From": "whatsapp:+15550100", "To": f"whatsapp:{TO}"}),
        ("whatsapp%3A%2B15550100", {"From": "whatsapp:+15550100", "To": f"whatsapp:{TO}"}),
        ("Punctual", {"From": "Punctual", "To": TO}),
        ("MG" + "0a" * 16, {"MessagingServiceSid": "MG" + "0a" * 16, "To": TO}),
    ],
)
async def test_senders(sender: str, fields: dict[str, str]) -> None:
    async with http_receiver(TAKEN) as receiver:
        await send(opened(receiver, sender=sender))
    assert dict(parse_qsl(receiver.request.body.decode())) == {**fields, "Body": TEXT}


@pytest.mark.parametrize(
    ("raw", "permanent"),
    [
        (answer("400 Bad Request", b'{"code": 21211, "message": "To +4930901820 is bad"}'), True),
        (answer("401 Unauthorized", b"no JSON"), True),
        (answer("404 Not Found", b"[]"), True),
        (answer("408 Request Timeout"), False),
        (answer("429 Too Many Requests", b'{"code": 20429}'), False),
        (answer("500 Internal Server Error"), False),
        (answer("503 Service Unavailable", b'{"code": "x"}'), False),
    ],
)
async def test_refusals(raw: bytes, permanent: bool) -> None:
    async with http_receiver(says(raw)) as receiver:
        with pytest.raises(SmsFailed) as caught:
            await send(opened(receiver))
    assert caught.value.is_permanent is permanent
    for secret in (TO[1:], "123456", "to:ken"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"null", b'{"sid": 5}', b"<html>", b'{"other": true}'])
async def test_taken_without_an_id(body: bytes) -> None:
    async with http_receiver(says(answer("202 Accepted", body))) as receiver:
        assert await send(opened(receiver)) is None


async def test_credentials_go_nowhere_else() -> None:
    async with (
        http_receiver(TAKEN) as elsewhere,
        http_receiver(redirects("307 Temporary Redirect", f"{elsewhere.url}/")) as receiver,
    ):
        with pytest.raises(SmsFailed) as caught:
            await send(opened(receiver))
    assert elsewhere.requests == [] and "307" in str(caught.value)


@pytest.mark.parametrize("script", [cut, silent])
async def test_no_answer_is_tried_again(monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
    monkeypatch.setattr(sms, "TIMEOUT_S", 0.3)
    async with http_receiver(script) as receiver:
        with pytest.raises(SmsFailed) as caught:
            await send(opened(receiver))
    assert not caught.value.is_permanent


@pytest.mark.parametrize(
    ("status", "well"),
    [("200 OK", True), ("404 Not Found", True), ("401 Unauthorized", False), ("403 Forbidden", False)],
)
async def test_whether_it_takes_our_credentials(status: str, well: bool) -> None:
    async with http_receiver(says(answer(status, b"{}"))) as receiver:
        gateway = opened(receiver)
        if well:
            await gateway.check(settings=Settings())
        else:
            with pytest.raises(SmsFailed):
                await gateway.check(settings=Settings())
    assert (receiver.request.method, receiver.request.path) == ("GET", "/2010-04-01/Accounts/AC%2F1.json")
    assert receiver.request.body == b""
    with pytest.raises(SmsFailed):
        await gateway.check(settings=Settings())


async def test_nobody_listens() -> None:
    async with http_receiver(TAKEN) as receiver:
        gateway = opened(receiver)
    with pytest.raises(SmsFailed) as caught:
        await send(gateway)
    assert not caught.value.is_permanent


# -- TLS -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "is_plain"),
    [
        ("twilio://a:b@api.twilio.com/+1", False),
        ("twilio://a:b@10.0.0.5:8080/+1", False),
        ("twilio://a:b@10.0.0.5:8080/+1?tls=off", True),
        ("twilio://a:b@sms.internal/+1?tls=on", False),
        ("twilio://a:b@127.0.0.1:8025/+1", True),
        ("twilio://a:b@[::1]:8025/+1", True),
        ("twilio://a:b@localhost:8025/+1", True),
    ],
)
def test_tls_unless_nobody_can_listen(url: str, is_plain: bool) -> None:
    gateway = open_gateway(settings(url))
    assert gateway is not None
    assert gateway.url.startswith("http://" if is_plain else "https://")
    assert "token='b'" not in repr(gateway)


async def test_the_certificate_is_checked() -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with http_receiver(TAKEN, tls=server) as receiver:
        gateway = opened(receiver)
        gateway = SmsGateway(
            host=gateway.host, is_plain=False, account=gateway.account, token=gateway.token, sender=gateway.sender
        )
        assert await send(gateway, tls=trusting) == "SM42"
        with pytest.raises(SmsFailed):
            await send(gateway)
    assert len(receiver.requests) == 1

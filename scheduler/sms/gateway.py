"""The SMS gateway: Twilio's Messages resource, or whatever else speaks its language (`PUNCTUAL_SMS_URL`)."""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import orjson

from scheduler.http_requests.addresses import is_localhost
from scheduler.http_requests.answers import Answer
from scheduler.http_requests.client import HttpRequests, Request, RequestFailed
from scheduler.logs import get_logger
from scheduler.settings import Settings

TIMEOUT_S = 10.0
WHATSAPP = "whatsapp:"
_MESSAGING_SERVICE = "MG"
"""What the id of a messaging service begins with; it stands in a field of its own."""
_NO_REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Credentials go to the host that the operator named, and nowhere else."""
_TRY_AGAIN = frozenset({408, 409, 425, 429})

log = get_logger("sms")


class SmsFailed(Exception):
    """The gateway has not taken the message; the words hold neither its text nor its number."""

    def __init__(self, message: str, *, is_permanent: bool) -> None:
        super().__init__(message)
        self.is_permanent = is_permanent
        """Whether asking again changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsGateway:
    """Where text messages are sent through."""

    host: str
    """With its port."""
    is_plain: bool
    account: str
    token: str = field(repr=False)
    sender: str
    """A number, a name, a messaging service, or any of them for WhatsApp."""

    @property
    def url(self) -> str:
        """Of the account, without an ending."""
        scheme = "http" if self.is_plain else "https"
        return f"{scheme}://{self.host}/2010-04-01/Accounts/{quote(self.account, safe='')}"

    async def send(self, *, to: str, text: str, settings: Settings, tls: ssl.SSLContext | None = None) -> str | None:
        """Have `text` sent to the number `to` (E.164). Returns the gateway's id of the message, where it gives one.

        `tls`: what its certificate is held against; None: the system's trust store. Raises `SmsFailed`.
        """
        form = urlencode(self._form(to, text)).encode()
        answer = await self._ask("POST", "/Messages.json", form, settings=settings, tls=tls)
        told = _read(answer.body)
        if 200 <= answer.status < 300:
            return str(told["sid"])[:100] if isinstance(told.get("sid"), str) else None
        # Its message may hold the number; its code says the same to the operator.
        code = f", code {told['code']}" if isinstance(told.get("code"), int) else ""
        is_permanent = answer.status < 500 and answer.status not in _TRY_AGAIN
        log.warning("sms.refused", status=answer.status, gateway_code=told.get("code"), is_permanent=is_permanent)
        raise SmsFailed(f"The SMS gateway refused the message: {answer.status}{code}.", is_permanent=is_permanent)

    async def check(self, *, settings: Settings) -> None:
        """Whether it answers, and takes our credentials. Raises `SmsFailed`."""
        answer = await self._ask("GET", ".json", None, settings=settings)
        if answer.status in (401, 403):
            raise SmsFailed(f"The SMS gateway refuses the account or its token: {answer.status}.", is_permanent=True)

    async def _ask(
        self, method: str, path: str, body: bytes | None, *, settings: Settings, tls: ssl.SSLContext | None = None
    ) -> Answer:
        # The operator's own host may be private, unlike those that people name.
        allowed = settings.model_copy(update={"allowed_private_hosts": (self.host,)})
        requests = HttpRequests(allowed, tls=tls)
        credentials = base64.b64encode(f"{self.account}:{self.token}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            return await requests.send(
                Request(
                    method=method,
                    url=self.url + path,
                    headers=headers,
                    body=body,
                    timeout_s=TIMEOUT_S,
                    final=_NO_REDIRECTS,
                )
            )
        except RequestFailed as error:
            raise SmsFailed(f"The SMS gateway gave no answer: {error}", is_permanent=error.is_permanent) from None
        finally:
            await requests.close()

    def _form(self, to: str, text: str) -> dict[str, str]:
        sender, number = self.sender, to
        if sender.startswith(WHATSAPP):
            number = WHATSAPP + to
        field_name = "MessagingServiceSid" if sender.startswith(_MESSAGING_SERVICE) and len(sender) == 34 else "From"
        return {"To": number, field_name: sender, "Body": text}


def open_gateway(settings: Settings) -> SmsGateway | None:
    """The gateway that the setting names; None where there is none."""
    if settings.sms_url is None:
        return None
    parts = urlsplit(settings.sms_url)
    host = parts.hostname or ""
    written = f"[{host}]" if ":" in host else host
    return SmsGateway(
        host=f"{written}:{parts.port}" if parts.port else written,
        is_plain=_is_this_machine(host) or "tls=off" in parts.query.split("&"),
        account=unquote(parts.username or ""),
        token=unquote(parts.password or ""),
        sender=unquote(parts.path.removeprefix("/")),
    )


def _is_this_machine(host: str) -> bool:
    """Nobody between us can listen."""
    if is_localhost(host):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _read(body: str) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}

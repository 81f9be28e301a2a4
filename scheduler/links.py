"""The links in reminder e-mails: a token says which reminder and which person, signed, so that nothing need
be stored."""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from scheduler.errors import InvalidToken

LIFETIME = timedelta(days=90)
_BODY = struct.Struct(">I16s16s")  # made at (POSIX seconds), reminder, person
_MAC_BYTES = 16  # HMAC-SHA-256 cut to 128 bits (RFC 2104, 5)


class Link(NamedTuple):
    """What a token says."""

    reminder_id: UUID
    user_id: UUID
    made_at: datetime


class Links:
    """Signs with the newest secret key, verifies with all of them."""

    def __init__(self, secret_keys: Sequence[str], *, public_url: str) -> None:
        self._keys = [hmac.digest(secret.encode(), b"punctual link", "sha256") for secret in secret_keys]
        self.public_url = public_url

    def token(self, *, reminder_id: UUID, user_id: UUID, now: datetime) -> str:
        """The token for the links of one e-mail."""
        body = _BODY.pack(int(now.timestamp()), reminder_id.bytes, user_id.bytes)
        mac = hmac.digest(self._keys[0], body, "sha256")[:_MAC_BYTES]
        return base64.urlsafe_b64encode(body + mac).decode().rstrip("=")

    def read(self, token: str, *, now: datetime, lifetime: timedelta | None = LIFETIME) -> Link:
        """What a token says. Raises `InvalidToken` when it is not ours or older than `lifetime` (None: any
        age)."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise InvalidToken() from None
        body, mac = raw[: _BODY.size], raw[_BODY.size :]
        if len(body) != _BODY.size or not any(
            hmac.compare_digest(hmac.digest(key, body, "sha256")[:_MAC_BYTES], mac) for key in self._keys
        ):
            raise InvalidToken()
        seconds, reminder_id, user_id = _BODY.unpack(body)
        made_at = datetime.fromtimestamp(seconds, UTC)
        if lifetime is not None and now - made_at > lifetime:
            raise InvalidToken()
        return Link(UUID(bytes=reminder_id), UUID(bytes=user_id), made_at)

"""Access tokens: signed JWTs with a pinned algorithm (RFC 8725, 3.1) in the shape of RFC 9068."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import jwt

from scheduler.errors import Unauthenticated
from scheduler.identifiers import new_id, parse_id

ALGORITHM = "HS256"
ISSUER = "punctual"
AUDIENCE = "punctual-api"
LIFETIME = timedelta(minutes=15)
LEEWAY = timedelta(seconds=10)
LONGEST = 2048  # characters; ours have some 400


class Claims(NamedTuple):
    """What a verified access token says."""

    user_id: UUID
    session_id: UUID


class AccessTokens:
    """Signs with the newest key, verifies with all of them; `kid` says which."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        keys = [hmac.digest(secret.encode(), b"punctual access token", "sha256") for secret in secret_keys]
        self._keys = {hashlib.sha256(key).hexdigest()[:16]: key for key in keys}
        self._newest = next(iter(self._keys))

    def issue(self, *, user_id: UUID, session_id: UUID, now: datetime) -> str:
        """A token for one sign-in session, good for 15 minutes."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": str(new_id()),
            "iat": int(now.timestamp()),
            "exp": int((now + LIFETIME).timestamp()),
        }
        headers = {"kid": self._newest, "typ": "at+jwt"}
        return jwt.encode(claims, self._keys[self._newest], algorithm=ALGORITHM, headers=headers)

    def verify(self, token: str, *, now: datetime) -> Claims:
        """What the token says. Raises `Unauthenticated`, with code `token_expired` where only its time is
        over."""
        try:
            if len(token) > LONGEST:
                raise jwt.InvalidTokenError("too long")
            header = jwt.get_unverified_header(token)
            key = self._keys.get(str(header.get("kid")))
            if key is None or header.get("typ") != "at+jwt":
                raise jwt.InvalidTokenError("not one of ours")
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                # The times are checked below, against the clock that we are given.
                options={
                    "require": ["exp", "iat", "sub", "sid", "jti"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            user_id, session_id = parse_id(str(claims["sub"])), parse_id(str(claims["sid"]))
            issued, expires = _posix_seconds(claims["iat"]), _posix_seconds(claims["exp"])
        except (jwt.InvalidTokenError, ValueError, TypeError, UnicodeError):
            raise Unauthenticated("This access token is not valid; sign in again.") from None
        if user_id is None or session_id is None or issued > (now + LEEWAY).timestamp():
            raise Unauthenticated("This access token is not valid; sign in again.")
        if expires <= (now - LEEWAY).timestamp():
            raise Unauthenticated(
                "This access token has expired; get a new one at /auth/refresh-token.", code="token_expired"
            )
        return Claims(user_id, session_id)


def _posix_seconds(value: object) -> int:
    # Ours are whole numbers; a NaN would compare as neither before nor after anything.
    if type(value) is not int:
        raise ValueError("not a time")
    return value

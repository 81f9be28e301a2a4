"""Access tokens: signed JWTs with a pinned algorithm (RFC 8725, 3.1) in the shape of RFC 9068."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import jwt

from scheduler.errors import Unauthenticated
from scheduler.identifiers import new_id, parse_id

ALGORITHM = "HS256"
TYPE = "at+jwt"
ISSUER = "punctual"
AUDIENCE = "punctual-api"
LIFETIME = timedelta(minutes=15)
LEEWAY = timedelta(seconds=10)
LONGEST = 2048  # characters; ours have some 400
MOST_VERIFIED = 10_000
"""Tokens of which a process remembers that their signature is right: some 5 MB."""

# Exactly as we write them: base64url without padding. What decoders let pass (other characters, bits behind the last
# byte: of the 43 characters of 32 bytes the last carries but four) would make many texts of one token.
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)


class Claims(NamedTuple):
    """What a verified access token says."""

    user_id: UUID
    session_id: UUID


class _Signed(NamedTuple):
    """What we have signed once; whether its time has come, or is over, is another question."""

    claims: Claims
    issued: int
    expires: int


class AccessTokens:
    """Signs with the newest key, verifies with all of them; `kid` says which."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        keys = [hmac.digest(secret.encode(), b"punctual access token", "sha256") for secret in secret_keys]
        self._keys = {hashlib.sha256(key).hexdigest()[:16]: key for key in keys}
        self._newest = next(iter(self._keys))
        # Of each token what it says, as long as the process lives and has room; refusals are not kept.
        self._signed = lru_cache(maxsize=MOST_VERIFIED)(self._read)

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
        headers = {"kid": self._newest, "typ": TYPE}
        return jwt.encode(claims, self._keys[self._newest], algorithm=ALGORITHM, headers=headers)

    def verify(self, token: str, *, now: datetime) -> Claims:
        """What the token says. Raises `Unauthenticated`, with code `token_expired` where only its time is
        over."""
        if len(token) > LONGEST:
            raise _not_valid()
        try:
            signed = self._signed(token)
        except (jwt.InvalidTokenError, ValueError, TypeError, UnicodeError):
            raise _not_valid() from None
        if signed.issued > (now + LEEWAY).timestamp():
            raise _not_valid()
        if signed.expires <= (now - LEEWAY).timestamp():
            raise Unauthenticated(
                "This access token has expired; get a new one at /auth/refresh-token.", code="token_expired"
            )
        return signed.claims

    def forget(self) -> None:
        """Check each signature anew."""
        self._signed.cache_clear()

    def _read(self, token: str) -> _Signed:
        """Check all but the times, which depend on when one asks."""
        if _FORM.fullmatch(token) is None:
            raise jwt.InvalidTokenError("not in the form of ours")
        header = jwt.get_unverified_header(token)
        key = self._keys.get(str(header.get("kid")))
        # No other parameters either: a `crit` or `b64` would want to be understood (RFC 7515, 4.1.11).
        if key is None or header != {"alg": ALGORITHM, "typ": TYPE, "kid": header["kid"]}:
            raise jwt.InvalidTokenError("not one of ours")
        claims = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={
                "require": ["exp", "iat", "sub", "sid", "jti"],
                "strict_aud": True,
                "verify_exp": False,
                "verify_iat": False,
            },
        )
        user_id, session_id = parse_id(str(claims["sub"])), parse_id(str(claims["sid"]))
        if user_id is None or session_id is None:
            raise ValueError("names nobody")
        return _Signed(Claims(user_id, session_id), _posix_seconds(claims["iat"]), _posix_seconds(claims["exp"]))


def _not_valid() -> Unauthenticated:
    return Unauthenticated("This access token is not valid; sign in again.")


def _posix_seconds(value: object) -> int:
    # Ours are whole numbers; a NaN would compare as neither before nor after anything.
    if type(value) is not int:
        raise ValueError("not a time")
    return value

"""Codes for two-factor sign-in: of an authenticator (TOTP, RFC 6238), and for when that is lost. Pure rules."""

from __future__ import annotations

import hmac
import secrets
import unicodedata
from datetime import datetime

import pyotp

ISSUER = "Punctual"
STEP_S = 30
"""Seconds for which an authenticator shows one code (RFC 6238, 4.1: the default, and all that most programs know)."""
SKEW_STEPS = 1
"""How far the clock of an authenticator may be off, either way (RFC 6238, 5.2)."""
DIGITS = 6

RECOVERY_CODES = 10
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's Base32: what looks alike is one character, whichever way it is typed."""
_LOOKALIKES = str.maketrans("oil", "011")
_RECOVERY_LENGTH = 24  # of 5 bits each: 120; from 112 on a plain digest may be stored (OWASP ASVS 5.0, 6.5.2)
_GROUP = 4
_LEFT_OUT = str.maketrans("", "", " -‐–—\t")
"""How people and programs set off groups of a code."""


def new_totp_secret() -> str:
    """160 random bits (RFC 4226, 4), in base32 as authenticators take it."""
    return pyotp.random_base32(32)


def otpauth_uri(secret: str, *, account: str) -> str:
    """What an authenticator reads off the QR code; `account` is how it calls it beside our name."""
    return pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=ISSUER)


def step_of(instant: datetime) -> int:
    """The time step that an instant lies in (RFC 6238, 4.2)."""
    return int(instant.timestamp()) // STEP_S


def totp_code(secret: str, step: int) -> str:
    """The code of one time step."""
    return pyotp.TOTP(secret, digits=DIGITS).generate_otp(step)


def matching_step(secret: str, code: str, *, now: datetime, last_step: int | None) -> int | None:
    """The time step that `code` (normalised) is right for, or None: within one step of now, and after the last that was
    taken, so that a code works once (RFC 6238, 5.2).

    All steps are tried, so that the time it takes says nothing about the code.
    """
    present = step_of(now)
    given = code.encode()
    found = None
    for step in range(present - SKEW_STEPS, present + SKEW_STEPS + 1):
        right = hmac.compare_digest(totp_code(secret, step).encode(), given)
        if right and found is None and (last_step is None or step > last_step):
            found = step
    return found


def new_recovery_code() -> str:
    """120 random bits, as they are shown: `x7k2-9mqd-0tzr-h4cw-5pvn-e8ja`."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_RECOVERY_LENGTH))
    return "-".join(letters[start : start + _GROUP] for start in range(0, _RECOVERY_LENGTH, _GROUP))


def normalise_code(text: str) -> str:
    """A code of either kind as it is compared: without its spaces and dashes, in lower case, ASCII where it has an
    equal in it (NFKC: full-width digits)."""
    return unicodedata.normalize("NFKC", text).translate(_LEFT_OUT).lower()


def is_totp_shaped(code: str) -> bool:
    """Whether a normalised code is one of an authenticator: all others can only be recovery codes."""
    return len(code) == DIGITS and code.isascii() and code.isdigit()


def recovery_form(code: str) -> str | None:
    """A normalised code as the recovery code that is stored, or None where it can be none."""
    plain = code.translate(_LOOKALIKES)
    return plain if len(plain) == _RECOVERY_LENGTH and set(plain) <= set(_ALPHABET) else None

"""Security notices: the e-mail by which a person learns that something serious happened to their account, whoever did
it (OWASP ASVS 5.0, 6.3.7; NIST SP 800-63B, 6.1.2.3)."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.accounts.client import Client
from scheduler.mail import templates
from scheduler.mail.local_time import local_text
from scheduler.outbox.write import Recipient, add_email
from scheduler.settings import Settings

TEMPLATE = "security"


class SecurityEvent(StrEnum):
    """What a person is told of by e-mail."""

    PASSWORD_CHANGED = "password_changed"
    PASSWORD_RESET = "password_reset"
    TWO_FACTOR_ENABLED = "two_factor_enabled"
    TWO_FACTOR_DISABLED = "two_factor_disabled"
    RECOVERY_CODE_USED = "recovery_code_used"
    EMAIL_CHANGE_REQUESTED = "email_change_requested"
    EMAIL_CHANGED = "email_changed"
    PHONE_CHANGED = "phone_changed"
    ROLE_CHANGED = "role_changed"
    API_TOKEN_CREATED = "api_token_created"
    SESSIONS_REVOKED = "sessions_revoked"
    ACCOUNT_DEACTIVATED = "account_deactivated"
    ACCOUNT_REACTIVATED = "account_reactivated"


class Told(Recipient, Protocol):
    """Who is told: a `User`, or what else has these."""

    @property
    def timezone(self) -> str: ...
    @property
    def email_verified_at(self) -> datetime | None: ...


class _Words(NamedTuple):
    subject: str
    what: str
    advice: str


_RESET = "choose a new password at once (“forgot password” where you sign in), which ends all sessions"
_ASK = "tell an administrator of this service at once"

_WORDS = {
    SecurityEvent.PASSWORD_CHANGED: _Words(
        "Your password was changed",
        "Your password was changed, and every other session was signed out.",
        _RESET,
    ),
    SecurityEvent.PASSWORD_RESET: _Words(
        "Your password was reset",
        "A new password was set for your account, and all sessions were signed out.",
        _RESET + ", and make sure that nobody else reads your e-mail",
    ),
    SecurityEvent.TWO_FACTOR_ENABLED: _Words(
        "Two-factor sign-in is on",
        "From now on signing in to your account takes a one-time code as well as the password.",
        _ASK + ", as you can't sign in without the code",
    ),
    SecurityEvent.TWO_FACTOR_DISABLED: _Words(
        "Two-factor sign-in is off",
        "From now on signing in to your account takes the password alone.",
        "turn it on again, and " + _RESET,
    ),
    SecurityEvent.RECOVERY_CODE_USED: _Words(
        "A recovery code was used",
        "One of your recovery codes took the place of a one-time code. It does not work again.",
        _RESET + ", then turn two-factor sign-in off and on for new codes",
    ),
    SecurityEvent.EMAIL_CHANGE_REQUESTED: _Words(
        "A new e-mail address was given for your account",
        "Somebody who knows your password asked for another e-mail address for your account. It takes the place of "
        "this one once the link that was sent there is used.",
        _RESET + " and makes that link void",
    ),
    SecurityEvent.EMAIL_CHANGED: _Words(
        "Your e-mail address was changed",
        "Your account has another e-mail address now; this one does not sign in any longer.",
        _ASK,
    ),
    SecurityEvent.PHONE_CHANGED: _Words(
        "Your telephone number was changed",
        "Your account has another telephone number now, confirmed by a code.",
        _RESET,
    ),
    SecurityEvent.ROLE_CHANGED: _Words(
        "Your role was changed",
        "What you may do in this service was changed.",
        _ASK,
    ),
    SecurityEvent.API_TOKEN_CREATED: _Words(
        "An API token was made",
        "A token was made with which a program can act in your name.",
        "take the token back, and " + _RESET,
    ),
    SecurityEvent.SESSIONS_REVOKED: _Words(
        "You were signed out everywhere",
        "All sessions of your account were ended. Sign in again to go on.",
        _ASK,
    ),
    SecurityEvent.ACCOUNT_DEACTIVATED: _Words(
        "Your account was deactivated",
        "Nobody can sign in to your account, and it sends no reminders, until an administrator brings it back.",
        _ASK,
    ),
    SecurityEvent.ACCOUNT_REACTIVATED: _Words(
        "Your account was brought back",
        "Your account is active again: you can sign in, and reminders are sent.",
        _ASK,
    ),
}


async def send_security_notice(
    session: AsyncSession,
    *,
    user: Told | Row[Any],
    event: SecurityEvent,
    client: Client | None,
    settings: Settings,
    now: datetime,
    detail: str = "",
) -> None:
    """Put the notice into the outbox, in the transaction of what it tells of.

    `user`: to whom, as the row was before the change (of a changed address the old one is told). `client`: where the
    person's own request came from; None where it was an administrator, the command line or the service itself.
    `detail`: one more line, such as the name of a token; never a secret. To an address that is not verified, where
    that is required, nothing is sent (contract, section 9).
    """
    if user.email_verified_at is None and settings.require_verified_email:
        return
    words = _WORDS[event]
    rendered = templates.security(
        person_name=user.name,
        subject=words.subject,
        what=words.what,
        detail=detail,
        when=local_text(now, user.timezone),
        where=f"{client.ip or 'an unknown address'}, {program_name(client.user_agent)}" if client else "",
        advice=words.advice,
    )
    await add_email(session, user=user, rendered=rendered, template=TEMPLATE, settings=settings, now=now)


# What a program says of itself is a stranger's text: it is named in our words, so that no notice carries theirs.
_PROGRAMS = (
    ("Edg", "Edge"),
    ("OPR", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("CriOS", "Chrome"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
)
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
_PRODUCT = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,39})(?:/[0-9A-Za-z.+-]+)?(?= |$)")  # RFC 9110, 10.1.5; without dots


def program_name(user_agent: str) -> str:
    """A program in words: "Firefox on Linux", "curl", or "an unknown program"."""
    if user_agent.startswith("Mozilla/"):
        browser = next((name for mark, name in _PROGRAMS if f"{mark}/" in user_agent), "a browser")
        system = next((name for mark, name in _SYSTEMS if mark in user_agent), None)
        return f"{browser} on {system}" if system else browser
    found = _PRODUCT.match(user_agent)
    return found[1] if found else "an unknown program"

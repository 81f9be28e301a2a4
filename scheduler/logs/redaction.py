"""What must not be logged: secrets and personal data, found by the name of a field and by the look of a text.

By name: what is called `password`, `X-Api-Key`, `accessToken`, `recovery_codes`, `recipient`, `phone` and the like,
however it is spelled, loses its value. By look (scheduler.logs.look): tokens, keys, passwords in URLs, `password=…` in
any text, e-mail addresses and telephone numbers. What an operator needs to follow something stays: ids (of sessions
too), instants, numbers, IP addresses and Message-IDs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from structlog.typing import EventDict, WrappedLogger

from scheduler.logs.look import REDACTED, redact_text

LONGEST_VALUE = 4000  # characters of one text
LONGEST_RECORD = 32_000  # characters of all the texts within a record's lists and objects
MOST_ITEMS = 100  # of one list or object
DEEPEST = 8  # lists and objects within each other
_MARGIN = 4000  # characters; so much more is looked through than is kept, lest a cut leave half a secret
_SHORT = 40  # characters; texts up to here are mostly names, which come again
_ID_LENGTH = 36
_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_SMALLEST_INTEGER, _GREATEST_INTEGER = -(2**63), 2**64 - 1  # what orjson writes
_LEAST_PHONE_NUMBER = 10**6
_ENDS_MATTER = frozenset({"exception", "traceback"})
"""What a traceback says last is what it is about."""

# The words of a name, however it is spelled: secret_key, X-Api-Key, accessToken, APIKey.
_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")
_SECRET_NAME: Final = re.compile(
    r"""(?ix)
    # Also as the end of a longer word: accesstoken, dbpassword.
    (?: pass\ ?(?:word|phrase|code) | passwd | \b pwd | secret | token | cookie | credential ) s? \d* (?! \w )
    | \b (?: authorization | jwts? | bearer | [xc]srf | (?:t|h)?otp (?:\ ?codes?)? | otpauth \w* | p256dh
           | signature | ticket ) \b
    | (?: api | private | secret | access | signing | encryption | master | session | ssh | hmac ) \ ? keys? \d* \b
    | \b (?: recovery | backup | verification | confirmation | sms | one\ ?time | 2\ ?fa | mfa | login | security )
        \ ? (?: code | pin ) s? \b
    | \b (?: basic | http )? auth $
    """
)
_PERSONAL_NAME: Final = re.compile(
    r"""(?ix)
    \b (?: e\ ?mails? | recipients? | (?:tele)?phones? | mobile | msisdn | iban
         | (?: first | last | full | sur | given | family | display ) \ ? names? | birth \ ? (?:day|date)
         | subject | body | bodies | html ) \b
    (?! \ (?: ids? | counts? | states? | types? | bytes | size ) \b )
    """
)
_PERSONAL, _SECRET = 1, 2


def redact(_: WrappedLogger | None, __: str, event: EventDict) -> EventDict:
    """Hide what must not be logged, and cut what is too long; changes `event` and returns it.

    What comes out holds JSON's kinds only, and text that UTF-8 can hold: logging must never break what is logged.
    """
    room: _Room | None = None
    for key, value in event.items():
        kind = type(value)
        if kind is str:
            event[key] = REDACTED if _weight(key) else _redacted_text(value, key)
        elif kind is int:
            if _weight(key) or not _SMALLEST_INTEGER <= value <= _GREATEST_INTEGER:
                event[key] = _redacted_number(value, key)
        elif value is not None:
            if room is None:
                room = _Room()
            event[key] = _redacted(key, value, room, 1)
    return event


class _Room:
    """How much may still stand in one record's lists and objects."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = LONGEST_RECORD

    def take(self, text: str) -> str:
        """As much of the text as there is room for."""
        if len(text) > self.left:
            text = text[: max(0, self.left)] + "…"
        self.left -= len(text) + 4
        return text


@lru_cache(maxsize=2048)
def _weight(name: str) -> int:
    """What a field's name says of its value: nothing, that it is personal, or that it is secret."""
    words = _WORD_BREAK.sub(" ", unicodedata.normalize("NFKC", name[:200]))
    if _SECRET_NAME.search(words):
        return _SECRET
    return _PERSONAL if _PERSONAL_NAME.search(words) else 0


def _redacted(key: str, value: Any, room: _Room, depth: int) -> Any:
    """A value of any kind, as one of JSON's."""
    if value is None:
        return None
    weight = _weight(key)
    if weight == _SECRET:
        return REDACTED
    if isinstance(value, str):
        return REDACTED if weight else room.take(_redacted_text(str.__str__(value), key))
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return _redacted_number(value, key)
    if isinstance(value, Mapping):
        return _redacted_object(key if weight else "", value, room, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return _redacted_list(key if weight else "", value, room, depth)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    return REDACTED if weight else room.take(_redacted_text(_text_of(value), key))


def _redacted_number(value: int, key: str) -> int | str:
    weight = _weight(key)
    # Counts of e-mails and the size of a body are no secret.
    if weight == _SECRET or (weight and abs(value) >= _LEAST_PHONE_NUMBER):
        return REDACTED
    return int(value) if _SMALLEST_INTEGER <= value <= _GREATEST_INTEGER else _text_of(value)


def _redacted_object(within: str, value: Mapping[Any, Any], room: _Room, depth: int) -> Any:
    """`within`: the name of something personal that this is a part of."""
    if depth > DEEPEST:
        return "…"
    made: dict[str, Any] = {}
    for place, (key, inner) in enumerate(value.items()):
        if place == MOST_ITEMS or room.left <= 0:
            made["…"] = f"{len(value) - place} more"
            break
        name = _text_of(key)
        made[room.take(_redacted_text(name, ""))] = _redacted(f"{within} {name}", inner, room, depth + 1)
    return made


def _redacted_list(within: str, value: Iterable[Any], room: _Room, depth: int) -> Any:
    if depth > DEEPEST:
        return "…"
    items = list(value)
    # One of a list of headers: ("Authorization", "Bearer …").
    if len(items) == 2 and isinstance(items[0], str | bytes) and _weight(_text_of(items[0])):
        return [room.take(_redacted_text(_text_of(items[0]), "")), REDACTED]
    made: list[Any] = []
    for place, inner in enumerate(items):
        if place == MOST_ITEMS or room.left <= 0:
            made.append(f"… {len(items) - place} more")
            break
        room.left -= 4
        made.append(_redacted(within, inner, room, depth + 1))
    return made


def _text_of(value: Any) -> str:
    """What is no text as text, whatever it does when it is asked."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[: 2 * LONGEST_VALUE]).decode("utf-8", "replace")
    if isinstance(value, datetime):
        return value.isoformat()
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _redacted_text(text: str, key: str) -> str:
    """A text without what it gives away, of at most `LONGEST_VALUE` characters."""
    length = len(text)
    if length <= _SHORT:
        # An id is nearly always the only one of its kind: it must not push names out of the cache.
        return text if length == _ID_LENGTH and _ID.fullmatch(text) else _redacted_short(text)
    if length <= LONGEST_VALUE:
        return _utf8(redact_text(text))
    if key in _ENDS_MATTER:
        return "…" + _utf8(redact_text(text[-LONGEST_VALUE - _MARGIN :]))[-LONGEST_VALUE:]
    return _utf8(redact_text(text[: LONGEST_VALUE + _MARGIN]))[:LONGEST_VALUE] + "…"


@lru_cache(maxsize=4096)
def _redacted_short(text: str) -> str:
    return _utf8(redact_text(text))


def _utf8(text: str) -> str:
    """With question marks for lone surrogates, which UTF-8 does not hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()

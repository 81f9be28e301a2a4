"""Headers of requests: which a person may give, which we add, and which go along to where a redirect leads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version

USER_AGENT = f"Punctual/{version('punctual')}"
MOST_HEADERS = 50
LONGEST_NAME = 200  # characters
LONGEST_VALUE = 8000  # bytes; more is refused by most servers
DEFAULT_CONTENT_TYPE = "text/plain; charset=utf-8"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
# They are about the connection or about how the message is framed, and that is ours (RFC 9110, 7.6.1).
_OURS = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"content-length", "expect", "http2-settings", "transfer-encoding", "upgrade"}
)
# What describes a body that is not sent along when the method becomes GET (RFC 9110, 15.4).
_OF_THE_BODY = re.compile(r"(?i)content-.*|digest|last-modified")
# What is meant for one origin alone: RFC 9110, 15.4 names the first two; the rest by what their names say.
_OF_THE_ORIGIN = re.compile(
    r"(?i)authorization|cookie"
    r"|(?!idempotency)(.*[_-])?(authori[sz]ation|auth|cookie2?|tokens?|secret|(api)?key|password|signature|session)([_-].*)?"
)


def check_header(name: str, value: str) -> None:
    """Raise ValueError, in words that follow the header's name, for one that a person may not give."""
    if not _TOKEN.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ValueError("is not the name of a header")
    if name.lower() == "host":
        raise ValueError("can't be given: it is the host of the URL")
    if name.lower() in _OURS:
        raise ValueError("can't be given: it is about the connection, which is the service's own")
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError("must hold whole characters") from None
    if length > LONGEST_VALUE:
        raise ValueError(f"must have at most {LONGEST_VALUE} bytes")
    if _CONTROL.search(value):
        raise ValueError("must be one line without control characters")


def sent_headers(given: Mapping[str, str], *, has_body: bool) -> dict[str, str]:
    """What is sent: what the person gave, and defaults for what they left out."""
    defaults = {
        "User-Agent": USER_AGENT,
        "Accept": "*/*",
        # What is kept of the answer is text of at most 64 KiB: not worth packing.
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    if has_body:
        defaults["Content-Type"] = DEFAULT_CONTENT_TYPE
    names = {name.lower() for name in given}
    return {name: value for name, value in defaults.items() if name.lower() not in names} | dict(given)


def redirected_headers(given: Mapping[str, str], *, same_origin: bool, keeps_body: bool) -> dict[str, str]:
    """Those that go along to where a redirect leads."""
    return {
        name: value
        for name, value in given.items()
        if (same_origin or not _OF_THE_ORIGIN.fullmatch(name)) and (keeps_body or not _OF_THE_BODY.fullmatch(name))
    }

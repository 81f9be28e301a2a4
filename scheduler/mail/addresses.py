"""E-mail addresses as SMTP and message headers take them: plain ASCII, nothing that could end a line."""

from __future__ import annotations

import re
from functools import lru_cache

import idna

# RFC 5322 section 3.4.1: a dot-atom on the left; a host name (or an address literal) on the right. Quoted
# local parts ("two words"@example.org) are left out: no sign-up form takes them, and they are a way to
# smuggle things.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Za-z.:]+\])")
_LONGEST_ADDRESS = 254  # RFC 5321 section 4.5.3.1.3: a path has 256 octets, angle brackets included
_LONGEST_LOCAL_PART = 64  # RFC 5321 section 4.5.3.1.1

# "Name <address>", "address" or "<address>".
_MAILBOX = re.compile(r"\s*(?:(?P<name>[^<>]*?)\s*<(?P<bracketed>[^<>]*)>|(?P<bare>[^<>]*?))\s*", re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


@lru_cache(maxsize=4096)
def ascii_address(address: str) -> str:
    """The address as it is written on the wire: an internationalised domain becomes its A-label (IDNA 2008).

    Raises ValueError, with a sentence for people, for anything that is no address, that holds a control
    character or a space, or whose local part (left of the @) is not ASCII: that would need SMTPUTF8 (RFC
    6531) at every server on the way.
    """
    if not address.isascii():
        local_part, separator, domain = address.rpartition("@")
        if not separator or not local_part.isascii():
            raise ValueError(f"{_shown(address)} can't be written to: the part before the @ must be ASCII.")
        try:
            address = f"{local_part}@{idna.encode(domain, uts46=True).decode('ascii')}"
        except (idna.IDNAError, UnicodeError):
            raise ValueError(f"{_shown(address)} can't be written to: its domain is not a valid name.") from None
    if _ADDRESS.fullmatch(address) is None:
        raise ValueError(f"{_shown(address)} is not an e-mail address.")
    if len(address) > _LONGEST_ADDRESS or address.index("@") > _LONGEST_LOCAL_PART:
        raise ValueError(f"{_shown(address)} is too long for an e-mail address.")
    return address


@lru_cache(maxsize=64)
def split_mailbox(mailbox: str) -> tuple[str, str]:
    """`("Punctual", "punctual@example.org")` of `Punctual <punctual@example.org>`; the name is "" for a bare
    address.

    The address is checked as in `ascii_address`. Raises ValueError.
    """
    match = _MAILBOX.fullmatch(mailbox)
    if match is None:
        raise ValueError(f"{_shown(mailbox)} is neither an address nor a “Name <address>”.")
    if match["bare"] is not None:
        return "", ascii_address(match["bare"])
    name = match["name"]
    if len(name) >= 2 and name[0] == name[-1] == '"':
        name = _QUOTED_PAIR.sub(r"\1", name[1:-1])
    return name, ascii_address(match["bracketed"])


def _shown(text: str) -> str:
    """`text` as it may stand in an error: one line, quoted, bounded."""
    return repr(text if len(text) <= 80 else text[:79] + "…")

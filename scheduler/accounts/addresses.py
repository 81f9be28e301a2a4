"""E-mail addresses of accounts: checked for form, compared without case."""

from __future__ import annotations

from scheduler.mail.addresses import ascii_address

LONGEST_LABEL = 63  # octets of a part of a host name (RFC 1035, 2.3.4)


def normalise_email(text: str) -> str:
    """The address as it is stored and compared: trimmed, its domain in ASCII, in lower case.

    Raises ValueError with words for the person. Addresses of a private network (no dot, .test, .local) are fine:
    the service is self-hosted. A bare IP address as the domain is not: no mail provider gives one out.
    """
    try:
        address = ascii_address(text.strip()).lower()
    except ValueError as error:
        raise ValueError(f"is not an e-mail address: {error}") from None
    domain = address.rpartition("@")[2]
    if domain.endswith("]") or max(map(len, domain.split("."))) > LONGEST_LABEL:
        raise ValueError("is not an e-mail address: its domain is not the name of a host")
    return address

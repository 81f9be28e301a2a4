"""URLs that people give: read once, strictly, so that what is checked is what is connected to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urljoin

from yarl import URL

from scheduler.http_requests.addresses import Address, written_address

LONGEST_URL = 8000  # characters; RFC 9110, 4.1 asks for no fewer of whoever takes URLs

# Spaces and control characters are dropped or kept by one parser and the next, and a backslash is a slash to browsers.
_UNFIT = re.compile(r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff]")
_BEGINNING = re.compile(r"https?://(?P<authority>[^/?#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.%]*:[^\[\]]*\]|[^:\[\]]+)(?::[0-9]*)?")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes."""

    url: URL
    """Whole, without a fragment; an address in its canonical spelling, a name as IDNA has it."""
    host: str
    """A name in lower case without a final dot, or an address."""
    port: int
    address: Address | None
    """When the URL spells an address."""

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port (RFC 6454, 4)."""
        return self.url.scheme, self.host, self.port

    def __str__(self) -> str:
        """For messages. Never path or query: they hold other people's secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.url.is_default_port() else f"{host}:{self.port}"


def read_url(text: str) -> Target:
    """Read an absolute http or https URL. Raises ValueError with words that follow "The URL"."""
    if len(text) > LONGEST_URL:
        raise ValueError(f"must have at most {LONGEST_URL} characters")
    if _UNFIT.search(text):
        raise ValueError("must not hold spaces, control characters or backslashes; write them as %20 and so on")
    beginning = _BEGINNING.match(text)
    if beginning is None:
        raise ValueError("must begin with http:// or https://")
    if "@" in beginning["authority"]:
        raise ValueError("must not hold a user name or password; send them in a header")
    if beginning["authority"].partition(":")[0] == "":
        raise ValueError("must name a host")
    try:
        if not _AUTHORITY.fullmatch(beginning["authority"]):
            raise ValueError()
        url = URL(text).with_fragment(None)
        host, port = url.raw_host or "", url.port
    except ValueError:
        raise ValueError("is not a URL: look at its host and port") from None
    if not port:
        raise ValueError("must have a port from 1 to 65535")
    try:
        address = written_address(host)
    except ValueError as error:
        raise ValueError(f"must name a host that exists: {host[:100]} {error}") from None
    if address is not None:
        return Target(url.with_host(str(address)), str(address), port, address)
    name = host.removesuffix(".")
    if not _NAME.fullmatch(name):
        raise ValueError("must name a host by letters, digits, hyphens and dots")
    return Target(url, name, port, None)


def read_location(location: str, *, base: Target) -> Target:
    """Where a redirect from `base` leads. Raises ValueError as `read_url` does."""
    # As browsers do: what servers write into the header is seldom escaped as it should be.
    text = location.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip(" \t")
    try:
        joined = urljoin(str(base.url), text.replace(" ", "%20"))
    except ValueError:
        raise ValueError("is not a URL: look at its host and port") from None
    return read_url(joined)

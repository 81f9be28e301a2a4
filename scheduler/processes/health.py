"""Does our own API answer? A look from outside, through the socket, as a load balancer has it."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.settings import Settings

SECONDS = 1.0
"""How long one look may take."""

_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # nosec B104


def reachable_host(host: str) -> str:
    """A host to connect to for what listens on `host`: "any address" is none that one can connect to."""
    return _ANY_ADDRESS.get(host, host)


def base_url(settings: Settings) -> str:
    """The address of the API as seen from this machine, without a slash at its end."""
    host = reachable_host(settings.host)
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{settings.port}"


def answers(settings: Settings) -> bool:
    """Whether `/healthz` answers 200 now."""
    host, port = reachable_host(settings.host), settings.port
    connection: http.client.HTTPConnection
    if settings.tls_cert:
        # Only whether we answer is asked here; the certificate is for a public name, not for this address.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/healthz", headers={"Connection": "close"})
        return connection.getresponse().status == 200
    return False

"""The certificate of a service that runs: SIGHUP to `punctual web` or to `punctual up` is all that a renewal needs."""

from __future__ import annotations

import http.client
import signal
import ssl
import time
from pathlib import Path

import pytest
import trustme

from tests.process_tree.running import Tree, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

AUTHORITY = trustme.CA()


def renew(folder: Path) -> str:
    """Write a new certificate for localhost; returns it."""
    issued = AUTHORITY.issue_cert("localhost")
    (folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    return issued.cert_chain_pems[0].bytes().decode()


def shown(port: int) -> str | None:
    """The certificate that the API shows, if it answers."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    connection = http.client.HTTPSConnection("localhost", port, timeout=5, context=context)
    try:
        connection.request("GET", "/healthz")
        tls = connection.sock
        assert isinstance(tls, ssl.SSLSocket)
        der = tls.getpeercert(binary_form=True)
        assert connection.getresponse().status == 200 and der is not None
        return ssl.DER_cert_to_PEM_cert(der)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@pytest.mark.parametrize("command", ["web", "up"])
def test_sighup_brings_the_new_certificate_without_a_pause(
    command: str, environment: dict[str, str], tmp_path: Path
) -> None:
    files = {"PUNCTUAL_TLS_CERT": str(tmp_path / "cert.pem"), "PUNCTUAL_TLS_KEY": str(tmp_path / "key.pem")}
    port = int(environment["PUNCTUAL_PORT"])
    first = renew(tmp_path)
    with Tree([command], environment | {"PUNCTUAL_HOST": "localhost"} | files, tmp_path) as tree:
        wait_until(lambda: shown(port) is not None or tree.process.poll() is not None, 60, "the API's answer")
        assert tree.process.poll() is None, tree.said
        if command == "up":
            wait_until(lambda: "Ctrl-C" in tree.said, 30, "the banner")
        assert same(shown(port), first)
        second = renew(tmp_path)
        tree.send(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while not same(found := shown(port), second):
            assert found is not None, "nobody answered"
            assert time.monotonic() < deadline
        tree.send(signal.SIGTERM)
        assert tree.wait(20) == 0, tree.said


def same(one: str | None, other: str) -> bool:
    """Whether two certificates are one, however their lines are broken."""
    return one is not None and one.split() == other.split()

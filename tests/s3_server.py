"""A private server that speaks S3 (moto's), with one bucket in its memory, as a process of its own."""

from __future__ import annotations

import importlib.util
import sys
import urllib.error
import urllib.request
from urllib.parse import quote

from tests.processes import Server, free_port

NO_S3 = "NO S3 HERE: the package moto is not installed (make test installs it)"


def has_s3() -> bool:
    """Whether the server can be started."""
    return importlib.util.find_spec("moto") is not None


class S3Server(Server):
    """Any key and secret will do."""

    kind = "s3"
    bucket = "punctual-files"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """As in `PUNCTUAL_STORAGE_URL`."""
        return f"s3://key:secret@{self.bucket}?endpoint={quote(self.endpoint, safe='')}"

    def empty(self) -> None:
        """Forget everything but an empty bucket."""
        self._send("POST", "/moto-api/reset")
        self._send("PUT", f"/{self.bucket}")

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def _answers(self) -> bool:
        try:
            self._send("GET", "/moto-api/data.json")
        except OSError:
            return False
        return True

    def _send(self, method: str, path: str) -> None:
        # Signed in name only: that says it is S3, and moto does not look further.
        signature = (
            "AWS4-HMAC-SHA256 Credential=key/20260302/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        )
        request = urllib.request.Request(
            self.endpoint + path, data=b"", method=method, headers={"Authorization": signature}
        )
        with urllib.request.urlopen(request, timeout=10):
            pass

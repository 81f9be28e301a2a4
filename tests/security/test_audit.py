"""`make audit` of packages: the real pip-audit, which asks a server of ours what is vulnerable."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]

FAULT = {
    "vulns": [
        {
            "id": "PYSEC-2026-1",
            "summary": "Everybody is let in",
            "details": "Everybody is let in",
            "aliases": [],
            "affected": [
                {
                    "package": {"name": "segno", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
                }
            ],
        }
    ]
}


class _Database(http.server.BaseHTTPRequestHandler):
    """Knows of one fault, in one package."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(FAULT if asked["package"]["name"] == "segno" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Database)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def audit(packages: Path, url: str) -> tuple[int, str]:
    """Exit status and output."""
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    done = subprocess.run(
        [
            sys.executable,
            PROJECT / ".ci" / "audit.py",
            "packages",
            *("--requirement", packages, "--no-deps", "-s", "osv", "--osv-url", url),
            *("--timeout", "5", "--cache-dir", packages.parent / "cache"),
        ],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def locked(folder: Path, *packages: str) -> Path:
    path = folder / "requirements.txt"
    path.write_text("\n".join(packages) + "\n")
    return path


def test_no_finding_anywhere(database: str, tmp_path: Path) -> None:
    status, said = audit(locked(tmp_path, "idna==3.10"), database)
    assert (status, "no known vulnerabilities in 1 packages" in said) == (0, True), said


def test_a_vulnerable_package_fails(database: str, tmp_path: Path) -> None:
    status, said = audit(locked(tmp_path, "idna==3.10", "segno==1.6.1"), database)
    assert (status, "PYSEC-2026-1, mended in 99.0" in said) == (1, True), said


def test_without_a_network_it_says_so_in_one_line(tmp_path: Path) -> None:
    status, said = audit(locked(tmp_path, "segno==1.6.1"), "http://127.0.0.1:9/")
    assert (status, said.count("NOT CHECKED"), said.count("\n")) == (0, 1, 1), said


def test_what_is_no_lock_file_fails(database: str, tmp_path: Path) -> None:
    status, said = audit(locked(tmp_path, "idna>=3"), database)
    assert (status, "pip-audit: FAILED" in said) == (1, True), said

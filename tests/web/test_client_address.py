"""Who really calls: nobody becomes somebody else by what they write into a header."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from web.client_address import Remote, remote_of

PROXIES = ("10.0.0.0/8", "2001:db8:ffff::/48")


def remote(peer: str | None, *forwarded: str, proto: str | None = None, trusted: tuple[str, ...] = PROXIES) -> Remote:
    """For a request from `peer`, with an `X-Forwarded-For` for each of `forwarded`."""
    headers = CIMultiDict([("X-Forwarded-For", each) for each in forwarded])
    if proto is not None:
        headers["X-Forwarded-Proto"] = proto
    return remote_of(make_mocked_request("GET", "/", headers=headers).clone(remote=peer or ""), trusted)


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        # Not one of our proxies: what it says counts for nothing.
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        ("192.0.2.9", ["10.0.0.1"], "192.0.2.9"),
        ("2001:db8::9", ["198.51.100.1"], "2001:db8::9"),
        # Right to left, past those that are ours.
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.5, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.5, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.5", "198.51.100.1 ,10.9.9.9"], "198.51.100.1"),
        ("2001:db8:ffff::1", ["2001:db8::5"], "2001:db8::5"),
        # All of them ours: the farthest.
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # Nothing said, or nothing that is an address: the nearest that is known.
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.5, 198.51.100.1:443"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5,"], "10.0.0.1"),
        ("10.0.0.1", ["１９２.0.2.1"], "10.0.0.1"),
        # A socket for both families.
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        ("10.0.0.1", ["203.0.113.5, ::ffff:198.51.100.1, ::ffff:10.0.0.2"], "198.51.100.1"),
    ],
)
def test_whose_address_counts(peer: str, forwarded: list[str], address: str) -> None:
    assert remote(peer, *forwarded).address == address


def test_without_trusted_proxies_no_header_counts() -> None:
    assert remote("10.0.0.1", "198.51.100.1", proto="https", trusted=()) == ("10.0.0.1", False)


@pytest.mark.parametrize(
    ("peer", "proto", "secure"),
    [
        ("10.0.0.1", "https", True),
        ("10.0.0.1", "HTTPS ", True),
        ("10.0.0.1", "http", False),
        ("10.0.0.1", "https, http", False),
        ("10.0.0.1", "", False),
        ("192.0.2.9", "https", False),
    ],
)
def test_whether_it_came_over_tls(peer: str, proto: str, secure: bool) -> None:
    assert remote(peer, "198.51.100.1", proto=proto).secure is secure

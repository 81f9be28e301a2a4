"""Private addresses: none is reached for a person, however it is spelled, but those that the operator lists."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.http_requests.addresses import (
    LOOPBACK,
    as_address,
    is_localhost,
    plain,
    read_allowed_hosts,
    refusal,
    written_address,
)
from scheduler.http_requests.urls import LONGEST_URL, read_location, read_url
from scheduler.settings import Settings

# -- addresses -------------------------------------------------------------------------------------------------

# The first and the last of each range, and what stands beside it.
REFUSED_V4 = [
    ("0.0.0.0", "this network"),
    ("0.255.255.255", "this network"),
    ("10.0.0.0", "private"),
    ("10.255.255.255", "private"),
    ("100.64.0.0", "carrier"),
    ("100.127.255.255", "carrier"),
    ("100.100.100.200", "metadata"),
    ("127.0.0.0", "loopback"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.255", "loopback"),
    ("168.63.129.16", "metadata"),
    ("169.254.0.0", "link-local"),
    ("169.254.169.254", "metadata"),
    ("169.254.170.2", "link-local"),  # credentials of containers at Amazon
    ("169.254.255.255", "link-local"),
    ("172.16.0.0", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.0", "reserved"),
    ("192.0.0.170", "reserved"),
    ("192.0.0.192", "metadata"),
    ("192.0.0.255", "reserved"),
    ("192.0.2.0", "documentation"),
    ("192.0.2.255", "documentation"),
    ("192.88.99.0", "reserved"),
    ("192.88.99.255", "reserved"),
    ("192.168.0.0", "private"),
    ("192.168.255.255", "private"),
    ("198.18.0.0", "benchmarks"),
    ("198.19.255.255", "benchmarks"),
    ("198.51.100.0", "documentation"),
    ("198.51.100.255", "documentation"),
    ("203.0.113.0", "documentation"),
    ("203.0.113.255", "documentation"),
    ("224.0.0.0", "multicast"),
    ("224.0.0.251", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.0", "reserved"),
    ("255.255.255.254", "reserved"),
    ("255.255.255.255", "broadcast"),
]
PUBLIC_V4 = [
    *("1.0.0.0", "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.216.34"),
    *("100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"),
    *("168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0"),
    *("191.255.255.255", "192.0.1.0", "192.0.1.255", "192.0.3.0", "192.88.98.255", "192.88.100.0"),
    *("192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0"),
    *("203.0.112.255", "203.0.114.0", "223.255.255.255"),
]
REFUSED_V6 = [
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::2", "reserved"),
    ("::7f00:1", "reserved"),  # IPv4-compatible: ::127.0.0.1
    ("::808:808", "reserved"),
    ("::ffff:127.0.0.1", "loopback"),  # IPv4-mapped
    ("::ffff:10.0.0.1", "private"),
    ("::ffff:169.254.169.254", "metadata"),
    ("::ffff:0:0", "this network"),
    ("::ffff:0:10.0.0.1", "reserved"),  # IPv4-translated
    ("::ffff:0:8.8.8.8", "reserved"),
    ("64:ff9b::127.0.0.1", "loopback"),  # NAT64
    ("64:ff9b::10.0.0.1", "private"),
    ("64:ff9b::169.254.169.254", "metadata"),
    ("64:ff9b:0:0:0:1::", "reserved"),
    ("64:ff9b:1::", "private"),  # a NAT64 of one's own
    ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "private"),
    ("100::", "reserved"),  # discard-only
    ("100:0:0:1::1", "reserved"),
    ("1fff:ffff::", "reserved"),
    ("2001::", "reserved"),  # Teredo
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "reserved"),
    ("2001:1::1", "reserved"),
    ("2001:2::1", "reserved"),  # benchmarks
    ("2001:10::1", "reserved"),  # ORCHID
    ("2001:20::1", "reserved"),
    ("2001:1ff:ffff::", "reserved"),
    ("2001:db8::", "documentation"),
    ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"),
    ("2002:7f00:1::", "loopback"),  # 6to4 of 127.0.0.1
    ("2002:a00:1::1", "private"),
    ("2002:a9fe:a9fe::", "metadata"),
    ("2002:c0a8:101::", "private"),
    ("3fff::", "documentation"),
    ("3fff:fff:ffff::", "documentation"),
    ("4000::", "reserved"),
    ("5f00::1", "reserved"),  # SRv6
    ("fc00::", "private"),
    ("fd00::1", "private"),
    ("fd00:ec2::254", "metadata"),
    ("fd20:ce::254", "metadata"),
    ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "private"),
    ("fe00::1", "reserved"),
    ("fe80::", "link-local"),
    ("febf:ffff::", "link-local"),
    ("fec0::1", "private"),  # site-local
    ("feff:ffff::", "private"),
    ("ff00::", "multicast"),
    ("ff02::1", "multicast"),
    ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"),
]
PUBLIC_V6 = [
    *("2000::", "2001:200::", "2001:4860:4860::8888", "2001:db7:ffff::", "2001:db9::", "2003::1", "2606:4700::1111"),
    *("2a00:1450:4001::200e", "3ffe:ffff::", "3fff:1000::"),
    *("::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"),
]


@pytest.mark.parametrize(("text", "what"), REFUSED_V4 + REFUSED_V6)
def test_addresses_that_are_never_reached(text: str, what: str) -> None:
    assert what in (refusal(ipaddress.ip_address(text)) or "")


@pytest.mark.parametrize("text", PUBLIC_V4 + PUBLIC_V6)
def test_addresses_that_are_public(text: str) -> None:
    assert refusal(ipaddress.ip_address(text)) is None


# What Python's tables call private though the IANA calls it reachable (or not assigned), or we say why not.
STRICTER_THAN_PYTHON = ["192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"]


@given(st.ip_addresses(v=4))
@example(IPv4Address("192.0.0.9"))
def test_no_ipv4_address_that_pythons_own_tables_call_private_is_public_here(address: IPv4Address) -> None:
    if refusal(address) is None:
        assert address.is_global and not address.is_multicast
    elif address.is_global and not address.is_multicast:
        assert any(address in ipaddress.ip_network(network) for network in STRICTER_THAN_PYTHON)


@given(st.ip_addresses(v=6) | st.ip_addresses(v=6, network="2000::/3"))
def test_what_is_public_in_ipv6_is_global_unicast(address: IPv6Address) -> None:
    if refusal(address) is None:
        assert address.is_global or address.sixtofour or address.ipv4_mapped
        assert not (address.is_multicast or address.is_link_local or address.is_site_local or address.is_loopback)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_within_ipv6_is_what_it_is_by_itself(address: IPv4Address) -> None:
    mapped = IPv6Address(f"::ffff:{address}")
    assert plain(mapped) == address
    for spelled in (
        mapped,
        IPv6Address(f"64:ff9b::{address}"),
        IPv6Address((0x2002 << 112) + (int(address) << 80) + 1),
    ):
        assert refusal(spelled) == refusal(address)


def test_what_localhost_means_is_refused() -> None:
    assert all(refusal(address) == "loopback" for address in LOOPBACK)


# -- spellings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0X7F000001",
        "0x7f.1",
        "0x7f.0.0.0x1",
        "0177.0.0.1",
        "0177.0x0.0.01",
        "127.0x000000000001",
        "00000000000000000000000000000000000000177.1",
        "::ffff:127.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
    ],
)
def test_one_address_in_many_spellings(host: str) -> None:
    assert written_address(host) == IPv4Address("127.0.0.1")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("4294967295", "255.255.255.255"),
        ("10.65535", "10.0.255.255"),
        ("10.1.65535", "10.1.255.255"),
        ("192.168.1.1", "192.168.1.1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("[::]", "::"),
        ("[::127.0.0.1]", "::7f00:1"),
        ("[2001:DB8::1]", "2001:db8::1"),
    ],
)
def test_spellings(host: str, address: str) -> None:
    assert written_address(host) == ipaddress.ip_address(address)


@pytest.mark.parametrize(
    "host",
    [
        *("256.0.0.1", "1.2.3.256", "1.2.3.4.5", "1..2", ".1", "4294967296", "0x100000000", "127.16777216"),
        *("08", "0.0.0.08", "09.1", "1e3.1", "-1.1", "+1.1", "a.1", "example.0x1", "9" * 5000),
        *("[::1%eth0]", "fe80::1%eth0", "[::1%25lo]", ":", ":::", "[1:2]", "[::1", "::1]", "[::ffff:127.0.0.256]"),
    ],
)
def test_what_looks_like_an_address_and_is_none_is_no_name_either(host: str) -> None:
    with pytest.raises(ValueError, match=r"IPv[46]"):
        written_address(host)


@pytest.mark.parametrize(
    "host",
    ["example.com", "localhost", "1.example.com", "0x7f.example", "127.0.0.1.example", "deadbeef", "1a", "xn--1"],
)
def test_names(host: str) -> None:
    assert written_address(host) is None


@given(st.ip_addresses())
def test_each_address_is_read_as_what_it_is(address: IPv4Address | IPv6Address) -> None:
    assert written_address(str(address)) == plain(address)
    assert read_url(f"http://{f'[{address}]' if address.version == 6 else address}/").address == plain(address)


@given(st.ip_addresses(v=4), st.integers(1, 4), st.lists(st.sampled_from(["{:d}", "0{:o}", "0x{:x}"]), min_size=4))
def test_ipv4_in_any_spelling(address: IPv4Address, parts: int, formats: list[str]) -> None:
    number, rest = int(address), 8 * (5 - parts)
    numbers = [(number >> (24 - 8 * index)) & 255 for index in range(parts - 1)] + [number & ((1 << rest) - 1)]
    spelled = ".".join(format_.format(each) for format_, each in zip(formats, numbers, strict=False))
    assert written_address(spelled) == address


@given(st.text(alphabet="0123456789abcdefxX.:[]%-_", max_size=30))
def test_any_text_is_an_address_or_a_name_or_a_value_error(host: str) -> None:
    try:
        written_address(host)
    except ValueError as error:
        assert str(error).startswith(("is not", "must not"))


@pytest.mark.parametrize("name", ["localhost", "LocalHost", "localhost.", "a.localhost", "a.b.LOCALHOST."])
def test_localhost_and_what_is_below_it(name: str) -> None:
    assert is_localhost(name)


@pytest.mark.parametrize("name", ["localhost.example.com", "notlocalhost", "localhost4", ""])
def test_what_is_not_localhost(name: str) -> None:
    assert not is_localhost(name)


def test_a_zone_of_a_resolvers_answer_is_left_out() -> None:
    assert as_address("fe80::1%eth0") == IPv6Address("fe80::1")
    assert as_address("::ffff:10.0.0.1") == IPv4Address("10.0.0.1")


# -- URLs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url", "host", "port"),
    [
        ("http://example.com", "http://example.com", "example.com", 80),
        ("HTTPS://EXAMPLE.COM/A?B=C#d", "https://example.com/A?B=C", "example.com", 443),
        ("https://example.com:8443/", "https://example.com:8443/", "example.com", 8443),
        ("https://example.com:443/", "https://example.com/", "example.com", 443),
        ("http://example.com:/", "http://example.com/", "example.com", 80),
        ("http://example.com./", "http://example.com./", "example.com", 80),
        ("http://bücher.example/", "http://xn--bcher-kva.example/", "xn--bcher-kva.example", 80),
        ("http://ＥＸＡＭＰＬＥ.com/", "http://example.com/", "example.com", 80),
        ("http://a_b.example/", "http://a_b.example/", "a_b.example", 80),
        ("http://example.com/a%20b?q=%2B+", "http://example.com/a%20b?q=%2B+", "example.com", 80),
        ("http://example.com/ü", "http://example.com/%C3%BC", "example.com", 80),
        ("http://example.com/@b:c", "http://example.com/@b:c", "example.com", 80),
        ("http://example.com?a@b", "http://example.com/?a@b", "example.com", 80),
        ("http://example.com#@evil.example/", "http://example.com", "example.com", 80),
        ("http://127.1:8080/", "http://127.0.0.1:8080/", "127.0.0.1", 8080),
        ("http://127.0.0.1./", "http://127.0.0.1/", "127.0.0.1", 80),
        ("http://１２７.0.0.1/", "http://127.0.0.1/", "127.0.0.1", 80),
        ("http://①②⑦.0.0.1/", "http://127.0.0.1/", "127.0.0.1", 80),
        ("http://127。0．0｡1/", "http://127.0.0.1/", "127.0.0.1", 80),
        ("http://0X7F.1/", "http://127.0.0.1/", "127.0.0.1", 80),
        ("http://[::1]:8080/", "http://[::1]:8080/", "::1", 8080),
        ("http://[::FFFF:127.0.0.1]/", "http://127.0.0.1/", "127.0.0.1", 80),
    ],
)
def test_urls_that_are_taken(text: str, url: str, host: str, port: int) -> None:
    target = read_url(text)
    assert (str(target.url), target.host, target.port) == (url, host, port)
    assert (target.address is None) == (written_address(host) is None)
    assert read_url(url).origin == target.origin


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must begin with http"),
        ("example.com", "must begin with http"),
        ("//example.com/", "must begin with http"),
        ("http:example.com", "must begin with http"),
        ("http:/example.com", "must begin with http"),
        ("ftp://example.com/", "must begin with http"),
        ("file:///etc/passwd", "must begin with http"),
        ("gopher://example.com/", "must begin with http"),
        ("javascript:alert(1)", "must begin with http"),
        ("unix:///var/run/docker.sock", "must begin with http"),
        ("http+unix://%2Fvar%2Frun%2Fdocker.sock/", "must begin with http"),
        ("http://", "must name a host"),
        ("http:///x", "must name a host"),
        ("http://:80/", "must name a host"),
        ("http://?x", "must name a host"),
        ("http://user@example.com/", "user name"),
        ("http://user:password@example.com/", "user name"),
        ("http://@example.com/", "user name"),
        ("http://:@example.com/", "user name"),
        ("http://example.com@127.0.0.1/", "user name"),
        ("http://example.com%2f@127.0.0.1/", "user name"),
        ("http://1.1.1.1 &@2.2.2.2# @3.3.3.3/", "spaces"),
        ("http://example.com\\@127.0.0.1/", "backslashes"),
        ("http://example.com/a\\b", "backslashes"),
        (" http://example.com/", "spaces"),
        ("http://example.com/ ", "spaces"),
        ("http://exam ple.com/", "spaces"),
        ("http://exam\tple.com/", "control"),
        ("http://example.com/\r\nHost: evil", "control"),
        ("http://example.com/\x00", "control"),
        ("http://example.com/\x85", "control"),
        ("http://example.com/\ud800", "control"),
        ("http://example.com:0/", "port"),
        ("http://example.com:65536/", "port"),
        ("http://example.com:99999999999999999999/", "port"),
        ("http://example.com:80:80/", "port"),
        ("http://example.com:+80/", "port"),
        ("http://example.com:８０/", "port"),
        ("http://example.com:0x50/", "port"),
        ("http://[::1/", "host and port"),
        ("http://[::1]x/", "host and port"),
        ("http://[example.com]/", "host and port"),
        ("http://[v1.fe80::a]/", "host and port"),
        ("http://::1/", "must name a host"),
        ("http://fe80::1/", "host and port"),
        ("http://[::1%25lo]/", "zone"),
        ("http://[fe80::1%eth0]/", "zone"),
        ("http://256.1.1.1/", "IPv4"),
        ("http://1.2.3.4.5/", "IPv4"),
        ("http://0x7g.1/", "IPv4"),
        ("http://example.123/", "IPv4"),
        ("http://%31%32%37.0.0.1/", "IPv4"),
        ("http://127.0.0.1%00.example.com/", "letters"),
        ("http://127.0.0.1%2f.example.com/", "letters"),
        ("http://ex%61mple.com/", "letters"),
        ("http://a..b/", "letters"),
        ("http://.example.com/", "letters"),
        ("http://./", "letters"),
        ("http://../", "letters"),
        ("http://exa*mple.com/", "letters"),
        ("http://exa,mple.com/", "letters"),
        ("http://" + "a" * 64 + ".com/", "letters"),
        ("http://" + "a." * 127 + "com/", "letters"),
        ("http://127.0.0.1\u200b/", "host and port"),
        ("http://exa\u00admple.com/", "host and port"),
        ("http://example.com/" + "a" * LONGEST_URL, "at most"),
    ],
)
def test_urls_that_are_not(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_url(text)


@given(st.text() | st.text(alphabet="htps:/@.[]%?#\\0127aAx-_ ").map("http://".__add__))
def test_any_text_is_a_url_that_is_read_the_same_again_or_a_value_error(text: str) -> None:
    try:
        target = read_url(text)
    except ValueError:
        return
    assert target.url.scheme in ("http", "https") and 0 < target.port < 65536
    assert target.url.raw_user is None and target.url.raw_password is None
    assert str(target.url).isascii() and target.host == target.host.lower()
    again = read_url(str(target.url))
    assert (again.origin, again.address) == (target.origin, target.address)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/x", "https://example.com/x"),
        ("x?y", "https://example.com/a/x?y"),
        ("?y", "https://example.com/a/b?y"),
        ("", "https://example.com/a/b?c"),
        ("#d", "https://example.com/a/b?c"),
        (" /x ", "https://example.com/x"),
        ("/x y", "https://example.com/x%20y"),
        ("/\udcc3\udcbc", "https://example.com/%C3%BC"),  # as aiohttp gives bytes beyond ASCII
        ("/\udcfc", "https://example.com/%EF%BF%BD"),
        ("//other.example/x", "https://other.example/x"),
        ("http://other.example:8080/x#y", "http://other.example:8080/x"),
        ("http://127.1/", "http://127.0.0.1/"),
        ("../../../x", "https://example.com/x"),
    ],
)
def test_where_a_redirect_leads(location: str, url: str) -> None:
    base = read_url("https://example.com/a/b?c")
    assert str(read_location(location, base=base).url) == url


@pytest.mark.parametrize(
    "location",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:1",
        "https://a:b@example.com/",
        "\\\\x/",
        "//[::1",
        "/\x07",
    ],
)
def test_where_no_redirect_leads(location: str) -> None:
    with pytest.raises(ValueError):
        read_location(location, base=read_url("https://example.com/"))


def test_a_target_shows_no_more_than_host_and_port() -> None:
    assert str(read_url("https://example.com:443/secret?key=secret")) == "example.com"
    assert str(read_url("https://example.com:8443/secret")) == "example.com:8443"
    assert str(read_url("http://[::1]:8080/secret")) == "[::1]:8080"


# -- what the operator allows ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "address", "port"),
    [
        ("127.0.0.1", "127.0.0.1", 1),
        ("127.0.0.1", "::ffff:127.0.0.1", 65535),
        ("127.0.0.1:9000", "127.0.0.1", 9000),
        ("10.0.0.0/8", "10.255.255.255", 22),
        ("10.0.0.1/8", "10.255.255.255", 22),
        ("10.0.0.0/8:8080", "10.1.2.3", 8080),
        ("::1", "::1", 80),
        ("[::1]", "::1", 80),
        ("[::1]:8080", "::1", 8080),
        ("fd00::/8", "fd12::1", 80),
        ("[fd00::/8]:443", "fd12::1", 443),
        ("::ffff:127.0.0.1", "127.0.0.1", 80),
        ("::ffff:10.0.0.0/104", "10.1.1.1", 80),
        ("0.0.0.0/0", "192.168.1.1", 80),
    ],
)
def test_addresses_that_are_listed_may_be_reached(entry: str, address: str, port: int) -> None:
    allowed = read_allowed_hosts(Settings(allowed_private_hosts=(entry,)).allowed_private_hosts)
    assert allowed.may_reach(ipaddress.ip_address(address), port)


@pytest.mark.parametrize(
    ("entries", "address", "port"),
    [
        ((), "127.0.0.1", 80),
        (("127.0.0.1",), "127.0.0.2", 80),
        (("127.0.0.1",), "::1", 80),
        (("127.0.0.1:9000",), "127.0.0.1", 9001),
        (("10.0.0.0/8:8080",), "10.1.2.3", 80),
        (("10.0.0.0/8",), "172.16.0.1", 80),
        (("10.0.0.0/8",), "11.0.0.0", 80),
        (("[::1]:8080",), "::1", 80),
        (("fd00::/8",), "fc00::1", 80),
        (("0.0.0.0/0",), "::1", 80),
        (("10.0.0.0/8",), "64:ff9b::10.0.0.1", 80),  # it is reached through somebody else
        (("localhost", "db.internal:80"), "127.0.0.1", 80),  # a name allows the name
    ],
)
def test_what_is_not_listed_may_not(entries: tuple[str, ...], address: str, port: int) -> None:
    allowed = read_allowed_hosts(Settings(allowed_private_hosts=entries).allowed_private_hosts)
    found = ipaddress.ip_address(address)
    assert not allowed.takes_address(found, port)
    assert allowed.may_reach(found, port) == (refusal(found) is None)


def test_names_that_are_listed() -> None:
    allowed = read_allowed_hosts(("Hooks.Internal", "db.internal:5984", "localhost"))
    assert allowed.takes_name("hooks.internal", 80) and allowed.takes_name("HOOKS.internal.", 443)
    assert allowed.takes_name("db.internal", 5984) and not allowed.takes_name("db.internal", 80)
    assert allowed.takes_name("localhost", 3000)
    for name in ("internal", "x.hooks.internal", "hooks.internal.example", "a.localhost", ""):
        assert not allowed.takes_name(name, 80)


@given(st.lists(st.ip_addresses(v=4, network="10.0.0.0/8"), min_size=1), st.ip_addresses(v=4))
def test_no_address_becomes_reachable_by_the_listing_of_others(listed: list[IPv4Address], other: IPv4Address) -> None:
    allowed = read_allowed_hosts(map(str, listed))
    assert all(allowed.may_reach(each, 80) for each in listed)
    assert allowed.may_reach(other, 80) == (other in listed or refusal(other) is None)


@pytest.mark.parametrize("entry", ["[10.0.0.0", "[host]:80", "a:b:c"])
def test_what_can_be_nothing_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError):
        read_allowed_hosts([entry])

"""Which addresses the service never reaches for a person, and which of them the operator allows all the same.

Pure rules over addresses, ports and names. Sources: the IANA registries of special-purpose addresses (RFC 6890, kept
up to date at IANA), RFC 4291 (IPv6), and the documents of clouds for addresses of their metadata services. Where a
registry says that an address is not globally reachable, it is refused; so is all of IPv6 that is not global unicast.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Address, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
"""What `localhost` and every name below it means (RFC 6761, 6.3), whatever a name server says."""

_PRIVATE = "private"
_LINK_LOCAL = "link-local"
_MULTICAST = "multicast"
_RESERVED = "reserved"
_DOCUMENTATION = "for documentation only"
# Each with what it is, in words that follow "is"; the first that holds is the one that is told.
_REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("169.254.169.254/32", "a metadata service's"),  # most clouds; link-local anyhow
        ("168.63.129.16/32", "a metadata service's"),  # Azure's, in the midst of public addresses
        ("100.100.100.200/32", "a metadata service's"),  # Alibaba Cloud's
        ("192.0.0.192/32", "a metadata service's"),  # Oracle Cloud's older one
        ("0.0.0.0/8", "of this network only"),  # RFC 791; 0.0.0.0 reaches the machine itself
        ("10.0.0.0/8", _PRIVATE),  # RFC 1918
        ("100.64.0.0/10", "shared behind a carrier's NAT"),  # RFC 6598
        ("127.0.0.0/8", "loopback"),  # RFC 1122
        ("169.254.0.0/16", _LINK_LOCAL),  # RFC 3927
        ("172.16.0.0/12", _PRIVATE),
        ("192.0.0.0/24", _RESERVED),  # RFC 6890: protocol assignments, DS-Lite, NAT64 discovery
        ("192.0.2.0/24", _DOCUMENTATION),  # RFC 5737
        ("192.88.99.0/24", _RESERVED),  # RFC 7526: 6to4's relays, that were
        ("192.168.0.0/16", _PRIVATE),
        ("198.18.0.0/15", "for benchmarks only"),  # RFC 2544
        ("198.51.100.0/24", _DOCUMENTATION),
        ("203.0.113.0/24", _DOCUMENTATION),
        ("224.0.0.0/4", _MULTICAST),  # RFC 5771
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", _RESERVED),  # RFC 1112
        ("fd00:ec2::254/128", "a metadata service's"),  # Amazon's
        ("fd20:ce::254/128", "a metadata service's"),  # Google's
        ("::1/128", "loopback"),
        ("::/128", "unspecified"),
        ("fe80::/10", _LINK_LOCAL),
        ("fec0::/10", _PRIVATE),  # site-local, RFC 3879
        ("fc00::/7", _PRIVATE),  # unique local, RFC 4193
        ("ff00::/8", _MULTICAST),
        ("64:ff9b:1::/48", _PRIVATE),  # a NAT64 of one's own, RFC 8215
        ("2001::/23", _RESERVED),  # RFC 2928: Teredo, ORCHID, benchmarks, PCP's anycast
        ("2001:db8::/32", _DOCUMENTATION),  # RFC 3849
        ("3fff::/20", _DOCUMENTATION),  # RFC 9637
    )
)
_REFUSED_OF = {version: [each for each in _REFUSED if each[0].version == version] for version in (4, 6)}
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # RFC 4291, 2.4: all that is handed out
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: where DNS64 leads for a name that has only an IPv4 address


def refusal(address: Address) -> str | None:
    """What the address is, in words that follow "is", when it is one that the service doesn't reach; else None."""
    address = plain(address)
    for network, what in _REFUSED_OF[address.version]:
        if address in network:
            return what
    if isinstance(address, IPv4Address):
        return None
    # Addresses that lead to an IPv4 address are what that is.
    if address in _NAT64:
        return refusal(IPv4Address(int(address) & 0xFFFFFFFF))
    if address.sixtofour is not None:
        return refusal(address.sixtofour)
    # Also ::10.0.0.1 (IPv4-compatible, RFC 4291), ::ffff:0:10.0.0.1 (RFC 2765), 5f00::/16 and what nobody has yet.
    return None if address in _GLOBAL_UNICAST else _RESERVED


def plain(address: Address) -> Address:
    """The same address in its plain form: an IPv4 address that is written as IPv6 (`::ffff:10.0.0.1`) as IPv4."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def written_address(host: str) -> Address | None:
    """The address that a URL's host spells, in any spelling that resolvers and browsers take; None for a name.

    They take IPv4 addresses as one to four numbers, each decimal, octal (`0177`) or hexadecimal (`0x7f`), of which the
    last fills the rest: `127.1`, `2130706433` (WHATWG URL, "IPv4 parser"; inet_aton(3)). `host` is ASCII, IPv6 with or
    without brackets. Raises ValueError for what looks like an address and is none, and for a zone (`fe80::1%eth0`).
    """
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if ":" in host:
        if "%" in host:
            raise ValueError("must not name a zone of an IPv6 address")
        try:
            return plain(IPv6Address(host))
        except ValueError:
            raise ValueError("is not an IPv6 address") from None
    parts = host.lower().removesuffix(".").split(".")
    if not _LOOKS_NUMERIC.fullmatch(parts[-1]):
        return None
    numbers = [_number(part) for part in parts]
    *first, last = numbers
    if len(numbers) > 4 or any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        raise ValueError("is not an IPv4 address")
    return IPv4Address(sum(number << (8 * (3 - index)) for index, number in enumerate(first)) + last)


_LOOKS_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NUMBER = re.compile(r"(?P<hexadecimal>0x[0-9a-f]*)|(?P<octal>0[0-7]*)|(?P<decimal>[1-9][0-9]*)")
_MOST_DIGITS = 64  # all zeros but the last ten; int() refuses thousands of digits


def _number(part: str) -> int:
    found = _NUMBER.fullmatch(part)
    if found is None or len(part) > _MOST_DIGITS:
        raise ValueError("is not an IPv4 address")
    if found["hexadecimal"]:
        return int(part[2:] or "0", 16)
    return int(part, 8 if found["octal"] else 10)


# -- what the operator allows ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """`PUNCTUAL_ALLOWED_PRIVATE_HOSTS`, read: what is reached for people though it is private.

    A name that is listed may lead anywhere; an address or a range allows whatever leads there. Without a port, all.
    """

    names: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[tuple[Network, int | None], ...] = ()

    def takes_name(self, host: str, port: int) -> bool:
        """Whether this name is listed, for this port."""
        name = _name(host)
        return (name, None) in self.names or (name, port) in self.names

    def takes_address(self, address: Address, port: int) -> bool:
        """Whether this address is listed, for this port."""
        address = plain(address)
        return any(
            listed in (None, port) and address.version == network.version and address in network
            for network, listed in self.networks
        )

    def may_reach(self, address: Address, port: int) -> bool:
        """Whether the service may connect to it for a person: it is public, or it is listed."""
        return refusal(address) is None or self.takes_address(address, port)


_ENTRY = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<bare>[^:\[\]]+))(?::(?P<port>[0-9]+))?")


def read_allowed_hosts(entries: Iterable[str]) -> AllowedHosts:
    """Read the setting's parts: names, addresses or CIDR ranges, each with an optional `:port`.

    Raises ValueError for what is none of them (the settings have checked that: `setting_values.check_private_host`).
    """
    names: set[tuple[str, int | None]] = set()
    networks: list[tuple[Network, int | None]] = []
    for entry in entries:
        if (network := _network(entry)) is not None:
            networks.append((network, None))
            continue
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise ValueError(f"{entry} is not a host, an address or a CIDR range")
        port = int(found["port"]) if found["port"] else None
        network = _network(found["bracketed"] or found["bare"])
        if network is not None:
            networks.append((network, port))
        elif found["bare"]:
            names.add((_name(found["bare"]), port))
        else:
            raise ValueError(f"{entry} is not an IPv6 address or range")
    return AllowedHosts(frozenset(names), tuple(networks))


def _network(text: str) -> Network | None:
    """`::ffff:10.0.0.0/104` is the same as `10.0.0.0/8`: addresses are compared in their plain form."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    first = plain(network.network_address)
    if first.version != network.version and network.prefixlen >= 96:
        return ip_network(f"{first}/{network.prefixlen - 96}", strict=False)
    return network


def _name(host: str) -> str:
    return host.lower().removesuffix(".")


def is_localhost(host: str) -> bool:
    """Whether the name is `localhost` or below it."""
    name = _name(host)
    return name == "localhost" or name.endswith(".localhost")


def as_address(text: str) -> Address:
    """An address as a resolver gives it, in its plain form; a zone is left out. Raises ValueError."""
    return plain(ip_address(text.partition("%")[0]))

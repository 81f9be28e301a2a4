"""What the values of settings must look like. Each function raises ValueError with words for the operator, and never
repeats what may be a secret."""

from __future__ import annotations

import ipaddress
import re
import ssl
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_SCHEME = r"[a-z][a-z0-9+.-]*"
_HOST_NAME = r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_ORIGIN = re.compile(rf"(?P<scheme>{_SCHEME})://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>[0-9]+))?")
_PRIVATE_HOST = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<bare>[^:\[\]]+))(?::(?P<port>[0-9]+))?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# E.164, a short code, a sender's name, or the id of a messaging service; for WhatsApp with its prefix.
_SMS_SENDER = re.compile(r"(?:whatsapp:)?\+?[A-Za-z0-9][A-Za-z0-9 _-]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_redis_url(text: str) -> None:
    """`redis://host:port/database`, `rediss://…`, `unix:///path?db=1` or `sentinel://h1,h2:26380/name`."""
    parts = _parts(text)
    if parts.scheme not in ("redis", "rediss", "unix", "sentinel"):
        raise ValueError("must begin with redis://, rediss://, unix:// or sentinel://")
    databases = [value for name, value in parse_qsl(parts.query, keep_blank_values=True) if name == "db"]
    if parts.scheme in ("redis", "rediss"):
        _check_port(parts)
        databases += [parts.path[1:]] if parts.path not in ("", "/") else []
    elif parts.scheme == "unix" and not parts.path.strip("/"):
        raise ValueError("names no socket, as in unix:///run/redis.sock")
    elif parts.scheme == "sentinel":
        hosts = [host.partition(":") for host in parts.netloc.rpartition("@")[2].split(",")]
        if not all(host and (port.isdecimal() if colon else True) for host, colon, port in hosts):
            raise ValueError("must be like sentinel://host1,host2:26379/name")
    if not all(re.fullmatch("[0-9]{1,9}", database) for database in databases):
        raise ValueError("its database must be a number, as in redis://host:6379/0")


def check_sms_url(text: str) -> None:
    """`twilio://sid:token@host/from`; with `?tls=off` for a gateway in one's own network."""
    parts = _parts(text)
    sender = unquote(parts.path.removeprefix("/"))
    whole = parts.username and parts.password and parts.hostname and _SMS_SENDER.fullmatch(sender)
    if parts.scheme != "twilio" or not whole or parts.fragment:
        raise ValueError("must be like twilio://sid:token@host/from")
    if parts.query not in ("", "tls=on", "tls=off"):
        raise ValueError("takes the option tls, which is on or off, and no others")
    _check_port(parts)


def check_storage_url(text: str) -> None:
    """`file:`, `file:/path` or `s3://bucket?endpoint=https://…`."""
    parts = _parts(text)
    if parts.scheme == "file":
        if parts.netloc or parts.query or parts.fragment or (parts.path and not parts.path.startswith("/")):
            raise ValueError("must be file: (in the data folder) or file:/some/folder")
        return
    if parts.scheme != "s3":
        raise ValueError("must begin with file: or s3://")
    credentials, _, bucket = parts.netloc.rpartition("@")
    if not _BUCKET.fullmatch(bucket) or parts.path not in ("", "/") or parts.fragment:
        raise ValueError("must be like s3://bucket?endpoint=https://storage.example.com")
    if credentials and not (parts.username and parts.password):
        raise ValueError("must hold both an access key and its secret, or neither")
    options = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in options:
        if name not in ("endpoint", "region"):
            raise ValueError("takes the options endpoint and region, and no others")
        endpoint = _parts(value)
        if name == "endpoint" and (endpoint.scheme not in ("http", "https") or not endpoint.hostname):
            raise ValueError("its endpoint must be like https://storage.example.com")
        if name == "region" and not value:
            raise ValueError("its region is empty")
    if len(dict(options)) != len(options) or (parts.query and not options):
        raise ValueError("must be like s3://bucket?endpoint=https://storage.example.com")


def origin(text: str) -> str:
    """`scheme://host[:port]` as browsers write it in `Origin` (RFC 6454, 6.2): lower case, no default port."""
    found = _ORIGIN.fullmatch(text.lower())
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 0 < port < 65536):
        raise ValueError(
            "each must be scheme://host or scheme://host:port and nothing more, like https://app.example.com"
        )
    bare = f"{found['scheme']}://{found['host']}"
    return bare if port is None or port == _DEFAULT_PORTS.get(found["scheme"]) else f"{bare}:{port}"


def check_private_host(text: str) -> None:
    """A host's name, an address or a CIDR range, with or without `:port`; IPv6 with a port in brackets."""
    if _is_network(text):
        return
    found = _PRIVATE_HOST.fullmatch(text)
    if found is not None and (found["port"] is None or 0 < int(found["port"]) < 65536):
        bracketed, bare = found["bracketed"], found["bare"]
        if _is_network(bracketed or bare) or (bare and not _looks_numeric(bare) and re.fullmatch(_HOST_NAME, bare)):
            return
    raise ValueError("each must be a host, an address or a CIDR range, with or without :port, like 10.0.0.0/8:8080")


def check_tls_files(certificate: Path, key: Path) -> None:
    """Whether a server can use them. Raises OSError for a file that can't be read, else ValueError."""
    for path in (certificate, key):
        with path.open("rb"):
            pass
    try:
        # An empty password: an encrypted key is an error, and not a question at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        why = error.reason.lower().replace("_", " ") if error.reason else "not PEM"
        raise ValueError(f"{certificate} and {key} are no certificate with its unencrypted key in PEM: {why}") from None


def _parts(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise ValueError("is not a URL") from None


def _check_port(parts: SplitResult) -> None:
    try:
        right = parts.port is None or parts.port > 0
    except ValueError:
        right = False
    if not right:
        raise ValueError("its port must be a number from 1 to 65535")


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _looks_numeric(text: str) -> bool:
    """A mistyped address, such as 10.0.0.256: no host's name is digits and dots alone."""
    return not text.strip("0123456789.")

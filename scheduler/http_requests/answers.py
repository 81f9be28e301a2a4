"""What is kept of an answer: bounded, and always text that any database and any client can hold."""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from encodings.aliases import aliases
from typing import Any

LONGEST_BODY = 64 * 1024  # bytes, once decompressed
MOST_COMPRESSED = 2 * LONGEST_BODY  # bytes; what needs more of them for less is made to keep us busy
MOST_HEADERS = 100
LONGEST_HEADER = 4000  # characters of one value
LONGEST_HEADERS = 16 * 1024  # characters of all names and values
CUT = "…"

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# As the contract has it for text: category Cc of Unicode, but for line breaks and tabs.
_CONTROL = {code: _REPLACEMENT for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"}
# Those of the WHATWG's list that Python has, by the names of its modules. Not whatever Python calls a codec: some are
# no charsets (zip, rot13), some take quadratic time (punycode), and each unknown name would stay in its cache.
_CHARSETS = frozenset(
    {"utf_8", "utf_16_be", "utf_16_le", "koi8_r", "koi8_u", "mac_cyrillic", "mac_roman"}
    | {"cp866", "cp874", "tis_620", *(f"cp{number}" for number in range(1250, 1259))}
    | {f"iso8859_{number}" for number in range(2, 17) if number != 12}
    | {"big5", "big5hkscs", "cp932", "shift_jis", "euc_jp", "iso2022_jp", "cp949", "euc_kr", "gb18030", "gb2312", "gbk"}
)
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf_8"), (codecs.BOM_UTF16_BE, "utf_16_be"), (codecs.BOM_UTF16_LE, "utf_16_le"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer as it is kept."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    """Names as the server spelled them. A name that came more than once has all its values, as RFC 9110, 5.2 joins
    them; `Set-Cookie`, which can't be joined so, has them on lines of their own."""
    body: str = ""
    truncated: bool = False
    """Whether the body goes on, or went on."""
    duration_ms: int = 0
    """From before the name was looked up, redirects included, to the last byte that was read."""

    def as_result(self) -> dict[str, Any]:
        """The result of a run, as the contract has it, and whether the body is whole."""
        return {
            "status": self.status,
            "headers": self.headers,
            "body": self.body,
            "duration_ms": self.duration_ms,
            "truncated": self.truncated,
        }


class Body:
    """The first 64 KiB of a body, decompressed as it comes and never further than that."""

    def __init__(self, content_encoding: str = "") -> None:
        self.truncated = False
        self._data = bytearray()
        self._received = 0
        self._coding = content_encoding.strip().lower().removeprefix("x-")
        self._decompressor: Any = None
        """zlib's; its type has no public name."""

    def feed(self, chunk: bytes) -> bool:
        """Take what came; returns whether more is wanted."""
        self._received += len(chunk)
        room = LONGEST_BODY - len(self._data)
        if self._coding not in ("gzip", "deflate"):
            self._data += chunk[:room]
            self.truncated = len(chunk) > room
            return not self.truncated
        try:
            ended = self._decompress(chunk, room + 1)
        except zlib.error:  # not what it says it is
            self.truncated = True
            return False
        if len(self._data) > LONGEST_BODY:
            del self._data[LONGEST_BODY:]
            self.truncated = True
        elif self._received > MOST_COMPRESSED:
            self.truncated = not ended
        return not ended and not self.truncated

    def _decompress(self, chunk: bytes, most: int) -> bool:
        """Returns whether that was all."""
        if self._decompressor is None:
            if not chunk:
                return False
            # "deflate" is zlib's format (RFC 9110, 8.4.1.2); some servers send bare deflate.
            bare = self._coding == "deflate" and chunk[0] & 0x0F != 8
            self._decompressor = zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)
        # With a limit, what is left of the input waits in the decompressor: it is asked for no more than fits.
        self._data += self._decompressor.decompress(self._decompressor.unconsumed_tail + chunk, most)
        return bool(self._decompressor.eof)

    def text(self, charset: str | None) -> str:
        """What came as text: what is not of its charset, and control characters (NUL too), as U+FFFD."""
        data, codec = bytes(self._data), _codec(charset)
        for mark, marked_codec in _BYTE_ORDER_MARKS:
            if data.startswith(mark):
                data, codec = data[len(mark) :], marked_codec
                break
        # Not final: a character that the limit cut in two is left out.
        return clean(codecs.getincrementaldecoder(codec)("replace").decode(data, final=not self.truncated))


def clean(text: str) -> str:
    """The text without control characters and halves of surrogate pairs; line breaks and tabs stay."""
    return text.translate(_CONTROL).encode("utf-8", "replace").decode()


def kept_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers that are kept: so many, each value and all together so long."""
    kept: dict[str, str] = {}
    spelled: dict[str, str] = {}
    room = LONGEST_HEADERS
    for number, (raw_name, raw_value) in enumerate(raw):
        if number >= MOST_HEADERS:
            break
        given = clean(raw_name.decode("utf-8", "replace"))
        value = clean(raw_value.decode("utf-8", "replace"))
        if len(value) > LONGEST_HEADER:
            value = value[: LONGEST_HEADER - 1] + CUT
        room -= len(given) + len(value)
        if room < 0:
            break
        name = spelled.setdefault(given.lower(), given)
        if name in kept:
            value = kept[name] + ("\n" if name.lower() == "set-cookie" else ", ") + value
        kept[name] = value
    return kept


_NO_LETTER = re.compile(r"[^a-z0-9]+")


def _codec(charset: str | None) -> str:
    """Python's name for a charset; UTF-8 for one that is unknown or not given."""
    name = _NO_LETTER.sub("_", (charset or "").lower()).strip("_")
    name = aliases.get(name, name)
    if name in ("ascii", "latin_1"):
        return "cp1252"  # as all browsers read these two: who writes them means it (WHATWG Encoding, 4.2)
    if name == "utf_16":
        return "utf_16_le"  # also theirs; Python's own raises where there is no byte order mark
    return name if name in _CHARSETS else "utf_8"

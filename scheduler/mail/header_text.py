"""Free text in message headers: what people typed, made safe, encoded (RFC 2047) and folded (RFC 5322,
2.2.3).
"""

from __future__ import annotations

import re
from binascii import b2a_base64

LONGEST_LINE = 78  # columns; RFC 5322 section 2.1.1: a line should not pass it
_LONGEST_ENCODED_LINE = 76  # RFC 2047 section 2: for a line that holds an encoded word

# C0, DEL and C1, and what else Python (and some mail programs) takes for the end of a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LEAST_BOUND = re.compile(r"(?<=[^ ]) (?=[^ ])")  # where a line may be folded and unfolded without a loss

# A name of these needs no quotes (RFC 5322 section 3.2.3: atoms, with single spaces between them).
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_TO_ESCAPE = re.compile(r'(["\\])')

_WORD_START, _WORD_END = "=?utf-8?b?", "?="


def unstructured(text: str, column: int) -> str:
    """`text` as the value of an unstructured header (Subject) that begins at `column` of its line.

    Control characters become spaces; the rest is kept to the character, runs of spaces too.
    """
    if not text.isprintable():
        text = _CONTROL.sub(" ", text)
    if (
        text.isascii()
        # A reader would decode what looks like an encoded word.
        and "=?" not in text
        # Spaces at the ends, or side by side where a fold may fall, do not survive every relay.
        and "  " not in text
        and text[:1] != " "
        and text[-1:] != " "
    ):
        if column + len(text) <= LONGEST_LINE:
            return text
        folded = fold_ascii(text, column)
        if max(map(len, folded.split("\r\n"))) <= LONGEST_LINE:
            return folded
    return encoded_words(text, column)


def display_name(name: str, column: int) -> str:
    """`name` as a display name (RFC 5322, 3.4) that begins at `column`.

    Control characters become spaces, and white space is evened out: none at the ends, one space between
    words.
    """
    name = " ".join(_CONTROL.sub(" ", name).split())
    if name.isascii() and "=?" not in name:
        written = name
        if name and _PHRASE.fullmatch(name) is None:
            written = '"' + _TO_ESCAPE.sub(r"\\\1", name) + '"'
        if column + len(written) <= LONGEST_LINE:
            return written
        folded = fold_ascii(written, column)
        if max(map(len, folded.split("\r\n"))) <= LONGEST_LINE:
            return folded
    return encoded_words(name, column)


def fold_ascii(text: str, column: int) -> str:
    """`text`, beginning at `column`, with line breaks put in front of single spaces so that lines keep to 78
    columns.

    A word that is longer stands on a line of its own, and is longer.
    """
    if column + len(text) <= LONGEST_LINE:
        return text
    words = _LEAST_BOUND.split(text)
    parts, length = [words[0]], column + len(words[0])
    for word in words[1:]:
        if length + 1 + len(word) <= LONGEST_LINE:
            parts.append(" ")
            length += 1 + len(word)
        else:
            parts.append("\r\n ")
            length = 1 + len(word)
        parts.append(word)
    return "".join(parts)


def encoded_words(text: str, column: int) -> str:
    """`text` as RFC 2047 encoded words (UTF-8, base64), one a line, never cut within a character."""
    data = utf8(text)
    words = []
    start = 0
    while start < len(data):
        # Octets that fit: the line less the marks, in groups of four base64 characters for three octets.
        room = (_LONGEST_ENCODED_LINE - column - len(_WORD_START) - len(_WORD_END)) // 4 * 3
        end = start + room
        if end < len(data):
            while data[end] & 0xC0 == 0x80:  # a continuation octet: its character began before it
                end -= 1
        encoded = b2a_base64(data[start:end], newline=False).decode("ascii")
        words.append(f"{_WORD_START}{encoded}{_WORD_END}")
        start, column = end, 1
    return "\r\n ".join(words)


def utf8(text: str) -> bytes:
    """`text` in UTF-8; surrogates, which UTF-8 has no place for, are joined where they pair, else U+FFFD."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode("utf-8")

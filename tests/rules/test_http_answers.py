"""Answers are kept within bounds, as text that any database takes; of headers, people give what is theirs."""

from __future__ import annotations

import gzip
import zlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.http_requests.answers import (
    LONGEST_BODY,
    LONGEST_HEADER,
    LONGEST_HEADERS,
    MOST_COMPRESSED,
    MOST_HEADERS,
    Answer,
    Body,
    kept_headers,
)
from scheduler.http_requests.headers import LONGEST_VALUE, check_header, redirected_headers, sent_headers
from scheduler.runs.running import LONGEST_RESULT

# -- bodies ----------------------------------------------------------------------------------------------------


def read(data: bytes, charset: str | None = None, *, coding: str = "", piece: int = 1000) -> tuple[str, bool]:
    """A body that comes in pieces: its text, and whether it goes on."""
    body = Body(coding)
    for start in range(0, len(data), piece):
        if not body.feed(data[start : start + piece]):
            break
    return body.text(charset), body.truncated


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        (b"", None, ""),
        ("Grüße 🪴".encode(), None, "Grüße 🪴"),
        ("Grüße".encode(), "utf-8", "Grüße"),
        ("Grüße".encode(), "UTF8", "Grüße"),
        (b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe", None, "Grüße"),
        (b"Gr\xfc\xdfe", "iso-8859-1", "Grüße"),
        (b"Gr\xfc\xdfe", "ISO_8859-1:1987", "Grüße"),
        (b"\x80\x93", "us-ascii", "€“"),
        (b"\x80\x93", "latin1", "€“"),
        ("Привет".encode("koi8-r"), "KOI8-R", "Привет"),
        ("Привет".encode("cp1251"), "windows-1251", "Привет"),
        ("日本語".encode("shift_jis"), "Shift_JIS", "日本語"),
        ("日本語".encode("euc-jp"), "EUC-JP", "日本語"),
        ("中文".encode("gb18030"), "gb18030", "中文"),
        ("한국어".encode("euc-kr"), "euc-kr", "한국어"),
        ("Grüße".encode("utf-16-le"), "utf-16le", "Grüße"),
        ("Grüße".encode("utf-16"), "utf-8", "Grüße"),  # its byte order mark knows better
        (b"\xfe\xff\x00G\x00r", None, "Gr"),
        (b"Gr\xfc\xdfe", "utf-8", "Gr\ufffd\ufffde"),
        (b"Gr\xfc", "no-such-charset", "Gr\ufffd"),
        # Codecs of Python's that are no charsets.
        (b"Uryyb", "rot13", "Uryyb"),
        (b"48656c6c6f", "hex", "48656c6c6f"),
        (b"eJzLSM3JyQcABiwCFQ==", "zlib_codec", "eJzLSM3JyQcABiwCFQ=="),
        (b"\\x41", "unicode_escape", "\\x41"),
        (b"+AEE-", "utf-7", "+AEE-"),
        (b"a-b", "punycode", "a-b"),
        (b"a", "../../etc/passwd", "a"),
        (b"a", "\x00", "a"),
        (b"a", "x" * 10_000, "a"),
        # What no text of ours holds.
        (b"a\x00b", None, "a\ufffdb"),
        (b"\x1b[31mred\x07\x7f", None, "\ufffd[31mred\ufffd\ufffd"),
        (b"\xc2\x85", None, "\ufffd"),
        (b"a\tb\r\nc\n", None, "a\tb\r\nc\n"),
        (b"\x00\xd8a\x00", "utf-16-le", "\ufffda"),  # half of a pair
        (b"G\x00r\x00", "utf-16", "Gr"),
    ],
)
def test_text(data: bytes, charset: str | None, text: str) -> None:
    assert read(data, charset) == (text, False)


def test_the_first_64_kib_are_kept() -> None:
    assert read(b"x" * LONGEST_BODY) == ("x" * LONGEST_BODY, False)
    assert read(b"x" * (LONGEST_BODY + 1)) == ("x" * LONGEST_BODY, True)
    assert read(b"x" * (LONGEST_BODY + 1), piece=2**20) == ("x" * LONGEST_BODY, True)


def test_a_character_that_the_limit_cuts_in_two_is_left_out() -> None:
    text, truncated = read(b"x" + "🪴".encode() * LONGEST_BODY)
    assert truncated and text == "x" + "🪴" * (LONGEST_BODY // 4 - 1)


@pytest.mark.parametrize("coding", ["gzip", "GZIP", " x-gzip ", "deflate"])
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_compressed(coding: str, piece: int) -> None:
    text = "Grüße 🪴\n" * 500
    data = zlib.compress(text.encode()) if coding == "deflate" else gzip.compress(text.encode())
    assert read(data, coding=coding, piece=piece) == (text, False)


def test_bare_deflate() -> None:
    assert read(zlib.compress(b"hello" * 100)[2:-4], coding="deflate") == ("hello" * 100, False)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "identity", "nonsense"])
def test_other_codings_are_left_as_they_are(coding: str) -> None:
    assert read(b"as it is", coding=coding) == ("as it is", False)


@pytest.mark.parametrize("piece", [1000, 2**20])
def test_a_bomb_is_not_inflated(piece: int) -> None:
    bomb = gzip.compress(b"0" * 20_000_000, compresslevel=9)
    body = Body("gzip")
    fed = 0
    for start in range(0, len(bomb), piece):
        fed += 1
        if not body.feed(bomb[start : start + piece]):
            break
    assert fed == 1
    assert (body.text(None), body.truncated) == ("0" * LONGEST_BODY, True)


def test_what_is_compressed_to_exactly_64_kib() -> None:
    assert read(gzip.compress(b"0" * LONGEST_BODY), coding="gzip") == ("0" * LONGEST_BODY, False)
    assert read(gzip.compress(b"0" * (LONGEST_BODY + 1)), coding="gzip") == ("0" * LONGEST_BODY, True)


def test_compressed_data_that_becomes_nothing_has_an_end() -> None:
    endless_name = (
        b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03" + b"a" * MOST_COMPRESSED
    )  # gzip's header: the file's name
    assert read(endless_name, coding="gzip") == ("", True)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_is_not_compressed_as_it_says(coding: str) -> None:
    text, truncated = read(b"plain text", coding=coding)
    assert truncated and text == ""


def test_what_is_damaged_is_kept_up_to_there() -> None:
    damaged = gzip.compress(b"hello " * 10_000)[:-8] + bytes(8)  # its checksum
    text, truncated = read(damaged, coding="gzip", piece=20)
    assert truncated and text.startswith("hello hello")


def test_what_comes_after_the_end_is_left_out() -> None:
    assert read(gzip.compress(b"hello") + b"junk" * 1000, coding="gzip") == ("hello", False)


CHARSETS = st.sampled_from(
    ("utf-8", "utf-16", "utf-16be", "latin1", "cp1252", "koi8-r", "big5hkscs", "gb18030", "iso-2022-jp", "euc-kr", "x")
)


@given(st.binary(), CHARSETS, st.booleans())
def test_any_bytes_are_text_that_json_and_databases_take(data: bytes, charset: str, truncated: bool) -> None:
    body = Body()
    body.feed(data)
    body.truncated = truncated
    text = body.text(charset)
    assert orjson.loads(orjson.dumps(text)) == text
    assert not any((ord(each) < 0x20 and each not in "\t\r\n") or 0x7F <= ord(each) < 0xA0 for each in text)


@given(st.binary(min_size=1, max_size=6), CHARSETS, st.binary(min_size=1, max_size=4))
def test_the_longest_result_fits_into_a_run(unit: bytes, charset: str, header: bytes) -> None:
    body = Body()
    body.feed(unit * (LONGEST_BODY // len(unit) + 1))
    headers = kept_headers([(b"x-%d" % number, header * 5000) for number in range(200)])
    answer = Answer(status=200, headers=headers, body=body.text(charset), truncated=True, duration_ms=60_000)
    assert len(orjson.dumps(answer.as_result())) < LONGEST_RESULT


# -- headers of answers ----------------------------------------------------------------------------------------


def test_headers_are_kept_as_they_were_spelled() -> None:
    raw = [
        (b"Content-Type", b"text/plain"),
        (b"X-a", b"1"),
        (b"x-A", b"2"),
        (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]
    assert kept_headers(raw) == {"Content-Type": "text/plain", "X-a": "1, 2", "Set-Cookie": "a=1\nb=2"}


def test_values_that_are_no_text() -> None:
    assert kept_headers([(b"A", b"\xff\x00\x1b"), (b"B", "ü".encode()), (b"C", b"")]) == {
        "A": "\ufffd" * 3,
        "B": "ü",
        "C": "",
    }


def test_headers_are_bounded() -> None:
    assert len(kept_headers([(b"x-%d" % number, b"") for number in range(10_000)])) == MOST_HEADERS
    (value,) = kept_headers([(b"x", b"a" * 100_000)]).values()
    assert value == "a" * (LONGEST_HEADER - 1) + "…"
    many = kept_headers([(b"x-%d" % number, b"a" * 3000) for number in range(100)])
    assert len(many) == 5 and sum(map(len, (*many, *many.values()))) <= LONGEST_HEADERS
    same = kept_headers([(b"x", b"a" * 3000)] * 100)
    assert len(same["x"]) <= LONGEST_HEADERS


# -- headers of requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer abc"),
        ("X-Custom_Header.1", "anything: at; all, really"),
        ("x", ""),
        ("Cookie", "a=b"),
        ("User-Agent", "mine"),
        ("Accept-Encoding", "gzip"),
        ("X-Tab", "a\tb"),
        ("X-Unicode", "Grüße 🪴"),
        ("X-Long", "a" * LONGEST_VALUE),
    ],
)
def test_headers_that_may_be_given(name: str, value: str) -> None:
    check_header(name, value)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        *[(name, "x", "not the name") for name in ("", " ", "a b", "a:", "a\r\n", "ü", ":authority", "(", "a" * 201)],
        *[("X", value, "control") for value in ("a\r\nb", "a\nb", "a\rb", "\x00", "a\x7f", "a\x85b", "\x1b[1m")],
        *[(name, "x", "host of the URL") for name in ("Host", "host", "HOST")],
        *[
            (name, "x", "connection")
            for name in (
                *("Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length"),
                *("Proxy-Authorization", "proxy-connection", "Expect", "HTTP2-Settings"),
            )
        ],
        ("X", "\ud800", "whole characters"),
        ("X", "a" * (LONGEST_VALUE + 1), "at most"),
        ("X", "ü" * LONGEST_VALUE, "at most"),
    ],
)
def test_headers_that_may_not(name: str, value: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_header(name, value)


def test_what_is_left_out_has_a_default() -> None:
    sent = sent_headers({}, has_body=False)
    assert sent.keys() == {"User-Agent", "Accept", "Accept-Encoding", "Connection"}
    assert sent["User-Agent"].startswith("Punctual/") and sent["Accept-Encoding"] == "identity"
    assert sent_headers({}, has_body=True)["Content-Type"] == "text/plain; charset=utf-8"
    given = {"user-agent": "mine", "CONTENT-TYPE": "application/json", "accept": "text/html"}
    assert sent_headers(given, has_body=True) == given | {"Accept-Encoding": "identity", "Connection": "close"}


def test_what_goes_along_to_another_origin() -> None:
    secret = [
        "Authorization",
        "Cookie",
        "cookie",
        "X-Api-Key",
        "apikey",
        "X-Auth-Token",
        "X-Access-Token",
        "PRIVATE-TOKEN",
    ]
    secret += ["X-Signature", "X-Hub-Signature-256", "Ocp-Apim-Subscription-Key", "X-Client-Secret", "X-Password"]
    plain = [
        "Accept",
        "User-Agent",
        "X-Request-Id",
        "Idempotency-Key",
        "Content-Type",
        "X-Keyboard",
        "Author",
        "Punctual-Run-Id",
    ]
    headers = dict.fromkeys(secret + plain, "x")
    assert list(redirected_headers(headers, same_origin=False, keeps_body=True)) == plain
    assert redirected_headers(headers, same_origin=True, keeps_body=True) == headers


def test_what_goes_along_without_the_body() -> None:
    headers = dict.fromkeys(["Accept", "Content-Type", "content-encoding", "Digest", "Authorization"], "x")
    kept = redirected_headers(headers, same_origin=True, keeps_body=False)
    assert list(kept) == ["Accept", "Authorization"]

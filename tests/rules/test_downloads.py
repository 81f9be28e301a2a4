"""Ranges of a file that a client asks for, and the name that it is saved under."""

from __future__ import annotations

import re
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from web.downloads import attachment, wanted_range

CONTENT = bytes(range(10))


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-0", CONTENT[:1]),
        ("bytes=0-9", CONTENT),
        ("bytes=3-", CONTENT[3:]),
        ("bytes=3-100", CONTENT[3:]),
        ("bytes=-4", CONTENT[-4:]),
        ("bytes=-100", CONTENT),
        ("BYTES= 2-3 ", CONTENT[2:4]),
        ("bytes=10-", b""),
        ("bytes=10-12", b""),
        ("bytes=-0", b""),
        ("bytes=999999999999999999-", b""),
    ],
)
def test_a_range(header: str, wanted: bytes) -> None:
    found = wanted_range(header, len(CONTENT))
    assert found is not None
    assert CONTENT[found[0] : found[1]] == wanted


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=4-3",
        "bytes=0-1,4-5",
        "bytes=a-b",
        "bytes=1.0-2",
        "bytes=+1-2",
        "items=0-1",
        "bytes=٣-٤",
        "bytes=0-1;",
        "bytes 0-1",
        f"bytes={'9' * 19}-",
    ],
)
def test_what_means_the_whole(header: str) -> None:
    assert wanted_range(header, 10) is None


@given(st.from_regex(r"bytes=[0-9]{0,3}-[0-9]{0,3}", fullmatch=True) | st.text(), st.integers(0, 300))
def test_never_beyond_the_file(header: str, size: int) -> None:
    found = wanted_range(header, size)
    if found is not None and found[0] < found[1]:
        assert 0 <= found[0] < found[1] <= size


@given(st.text(min_size=1))
@example('a"; filename="b.exe')
@example("a\r\nSet-Cookie: x=1")
@example("naïve 100% résumé\\.pdf")
@example("日本.zip")
def test_any_name_can_be_saved_under(name: str) -> None:
    """One header of ASCII, from which the name is read back whole."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    header = attachment(name)
    assert re.fullmatch(r'attachment; filename="[ !#$&-\[\]-~]*"; filename\*=UTF-8\'\'[A-Za-z0-9._~%-]*', header)
    # As far as Python's reader takes such names.
    if name.isprintable() and name == name.strip():
        message = EmailMessage()
        message["Content-Disposition"] = header.replace(re.findall('filename="[^"]*"; ', header)[0], "")
        assert message.get_filename() == name

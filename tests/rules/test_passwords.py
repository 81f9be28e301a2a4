"""Passwords: what is taken, and that one password is one password on every keyboard."""

from __future__ import annotations

import os
import sys
import threading
import unicodedata
from collections.abc import Iterator

import pytest

from scheduler.accounts.passwords import MOST_THREADS, NICER_BY, Passwords, _common, normalise, objection

EMAIL = "alice.long.name@example.com"
COMPOSED, DECOMPOSED = (
    unicodedata.normalize("NFC", "Zoë hört Bäche"),
    unicodedata.normalize("NFD", "Zoë hört Bäche"),
)


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(threads=1)
    yield passwords
    passwords.close()


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery",
        "xq7 mb2 hz",  # 10
        "z" * 64 + "y" * 64,  # 128
        "пароль и ещё",
        "密码密码密码密码密码",
        "🪴🪴🪴🪴🪴🪴🪴🪴🪴🪴",
        "          ",
        COMPOSED,
    ],
)
def test_what_is_taken(password: str) -> None:
    assert objection(password, email=EMAIL) is None


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("", "10 to 128"),
        ("xq7 mb2 h", "10 to 128"),  # 9
        ("z" * 64 + "y" * 65, "10 to 128"),
        ("🪴" * 9, "10 to 128"),  # 9 code points, 36 bytes
        # Ten as typed, five after NFKC: a letter and its combining mark are one.
        ("e\u0301" * 5, "10 to 128"),
        # Eight as typed, 144 after NFKC: U+FDFA becomes 18 characters.
        ("\ufdfa" * 8, "10 to 128"),
        (EMAIL, "e-mail"),
        (EMAIL.upper(), "e-mail"),
        ("Alice.Long.Name@Example.com", "e-mail"),
        ("1234567890", "common"),
        ("qwertyuiop", "common"),
        ("QwertyUiop", "common"),
        ("ｑｗｅｒｔｙｕｉｏｐ", "common"),  # full width: the same after NFKC
        ("password123", "common"),
    ],
)
def test_what_is_not(password: str, words: str) -> None:
    why = objection(password, email=EMAIL)
    assert why is not None and words in why


def test_at_least_ten_thousand_common_ones_are_known_by_heart() -> None:
    assert len(_common()) >= 10_000
    assert all(each == each.casefold() for each in _common())


def test_length_counts_after_nfkc() -> None:
    assert len(normalise("\ufb03" * 4)) == 12  # "ffi" ×4
    assert objection("\ufb03" * 4, email=EMAIL) is None


async def test_one_password_however_it_is_typed(passwords: Passwords) -> None:
    stored = await passwords.hash(COMPOSED)
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.matches(stored, DECOMPOSED)
    assert not await passwords.matches(stored, DECOMPOSED + " ")
    assert not passwords.needs_rehash(stored)
    assert passwords.needs_rehash(stored.replace("m=19456", "m=8"))


async def test_nobody_and_damage_match_nothing(passwords: Passwords) -> None:
    assert not await passwords.matches(None, "nobody has this password")
    assert not await passwords.matches("not a hash", "nobody has this password")
    assert not await passwords.matches("", "nobody has this password")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no niceness of its own")
async def test_hashes_give_way_to_requests() -> None:
    """A loop that has something to do does not wait behind them for its core."""
    passwords = Passwords()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    theirs = await passwords._run(lambda: str(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    assert int(theirs) == min(19, own + NICER_BY)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
    assert 1 <= passwords._threads._max_workers <= MOST_THREADS
    passwords.close()

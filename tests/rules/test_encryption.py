"""Encryption of stored secrets: what comes back, what does not, and keys that change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.encryption import Encryption

OLD, NEW = "o" * 32, "n" * 48
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


@given(st.text(max_size=200))
def test_what_was_encrypted_comes_back(text: str) -> None:
    encryption = Encryption([NEW])
    encrypted = encryption.encrypt(text)
    assert encryption.decrypt(encrypted) == text
    assert encrypted.isascii()
    assert encryption.encrypt(text) != encrypted  # of equal secrets nobody sees that they are


def test_it_fits_its_column_and_says_nothing() -> None:
    encrypted = Encryption([NEW]).encrypt(SECRET)
    assert len(encrypted) == 140  # user.totp_secret has 255
    assert SECRET not in encrypted


def test_keys_rotate() -> None:
    before = Encryption([OLD]).encrypt(SECRET)
    both = Encryption([NEW, OLD])
    assert both.decrypt(before) == SECRET
    assert both.is_outdated(before)
    after = both.encrypt(SECRET)
    assert not both.is_outdated(after)
    assert Encryption([NEW]).decrypt(after) == SECRET  # the old key can go
    with pytest.raises(ValueError, match="secret keys"):
        Encryption([NEW]).decrypt(before)
    assert Encryption([NEW]).is_outdated(before)


@given(st.data())
def test_whatever_is_changed_is_refused(data: st.DataObject) -> None:
    encryption = Encryption([NEW])
    encrypted = encryption.encrypt(SECRET)
    place = data.draw(st.integers(0, len(encrypted) - 1))
    other = data.draw(st.characters().filter(lambda character: character != encrypted[place]))
    changed = encrypted[:place] + other + encrypted[place + 1 :]
    with pytest.raises(ValueError, match="secret keys"):
        encryption.decrypt(changed)


@given(st.text(max_size=300))
def test_what_is_nothing_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="secret keys"):
        Encryption([NEW, OLD]).decrypt(text)

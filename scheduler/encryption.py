"""Encryption of what must be read back: the secrets of two-factor sign-in. (What need only be recognised, passwords and
tokens, is stored as a digest.)"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PURPOSE = b"punctual encryption of stored secrets 1"
"""So that these keys are others than those that sign access tokens, though both come from the same secrets."""
_MARKING = b"punctual marks of what is recognised 1"


class Encryption:
    """Encrypts with the newest key, decrypts with all of them.

    Fernet (AES-128-CBC and HMAC-SHA256: encrypt, then MAC) under keys made of the secret keys by HKDF (RFC 5869).
    """

    def __init__(self, secret_keys: Sequence[str]) -> None:
        keys = [Fernet(base64.urlsafe_b64encode(_derived(secret, _PURPOSE))) for secret in secret_keys]
        self._newest, self._all = keys[0], MultiFernet(keys)
        self._marking = [_derived(secret, _MARKING) for secret in secret_keys]

    def marks(self, content: bytes) -> list[bytes]:
        """What recognises `content`, under each key, the newest first: without a key nobody can try what it may be."""
        return [hmac.digest(key, content, "sha256") for key in self._marking]

    def encrypt(self, text: str) -> str:
        """The text encrypted, in URL-safe base64: 100 characters at the least, 140 for a secret of 32 characters."""
        return self._newest.encrypt(text.encode()).decode("ascii")

    def decrypt(self, text: str) -> str:
        """What was encrypted.

        Raises ValueError where it was changed since, or encrypted with a key that is not among ours any longer.
        """
        return _decrypted(self._all, text)

    def is_outdated(self, text: str) -> bool:
        """Whether it takes an older key than the newest, so that what it says is better encrypted anew: once no such
        text is left, the old key can go."""
        try:
            _decrypted(self._newest, text)
        except ValueError:
            return True
        return False


def _decrypted(keys: Fernet | MultiFernet, text: str) -> str:
    try:
        return keys.decrypt(text.encode()).decode()
    except InvalidToken:
        raise ValueError("this is nothing that one of the secret keys encrypted") from None


def _derived(secret: str, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret.encode())

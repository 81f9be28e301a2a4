"""What is stored of a secret that need only be recognised."""

from __future__ import annotations

import hashlib


def token_digest(token: str) -> bytes:
    """What is stored of a random token: SHA-256 is enough, as what is random can't be guessed."""
    return hashlib.sha256(token.encode()).digest()

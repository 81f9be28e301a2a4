"""For races: what takes time before them must not put those who run in a row."""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher

from scheduler.accounts.passwords import Passwords


class AllAtOnce(Passwords):
    """Lets nobody go on before so many have their hashes (cheap ones): made one after the other, as they are else, they
    would come to the database so, too."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
        self._barrier = asyncio.Barrier(count)

    async def hash(self, password: str) -> str:
        hashed = self._hasher.hash(password)
        await self._barrier.wait()
        return hashed

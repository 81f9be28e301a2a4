"""From hand to hand: e-mails that this process has just written go to its own sender without being read back.

Their rows are born claimed: state `sending`, the sender as owner, a lease. Whatever happens to this process, the lease
runs out and they are taken up as any other. It saves reading back
what was just written, and the UPDATE of the claim.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from models.email import EmailState
from scheduler.deliveries.settle import Ending
from scheduler.identifiers import new_id
from scheduler.mail.delivery import Envelope
from scheduler.outbox.claim import LEASE, ClaimedEmail

MOST = 1000
"""E-mails held at once; beyond, they are left in the outbox, where every worker's sender finds them."""
PATIENCE_S = 0.5
LONGEST_S = LEASE.total_seconds() / 2
"""How long an e-mail may wait here; beyond, it is left for its lease to run out."""


class HandOver:
    """The e-mails on their way from who writes them to the sender of the same process."""

    def __init__(self) -> None:
        self.owner: UUID = new_id()
        self._waiting: deque[tuple[float, ClaimedEmail]] = deque()
        self._taken = asyncio.Event()
        self.is_open = True
        """The sender closes it while it can't send."""

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait_for_room(self, count: int) -> None:
        """Wait until there is room for `count`, a moment at the most: a slow server must not keep reminders from
        firing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while self.is_open and len(self._waiting) + count > MOST:
                    self._taken.clear()
                    await self._taken.wait()

    def claim(self, rows: Sequence[dict[str, Any]], *, now: datetime) -> bool:
        """Mark rows that are about to be inserted as claimed by the sender, if it has room for them."""
        if not self.is_open or len(self._waiting) + len(rows) > MOST:
            return False
        claimed = {
            "state": EmailState.SENDING.value,
            "owner": self.owner,
            "lease_until": now + LEASE,
            "attempts": 1,
        }
        for row in rows:
            row |= claimed
        return True

    def put(self, rows: Sequence[dict[str, Any]], endings: Sequence[Ending]) -> None:
        """Hand over rows that `claim` marked, once they are committed; each with the delivery that it carries."""
        for row, ending in zip(rows, endings, strict=True):
            if row["owner"] != self.owner:
                continue  # `renew` came between: they are handed back, or their lease runs out
            envelope = Envelope(row["message_id"], row["sender"], row["recipient"], row["message"])
            email = ClaimedEmail(row["id"], 1, row["created_at"], envelope, ending)
            self._waiting.append((time.monotonic(), email))

    def has_any(self) -> bool:
        """Whether there is one to take; forgets those that have waited for too long."""
        while self._waiting and time.monotonic() - self._waiting[0][0] >= LONGEST_S:
            self._waiting.popleft()
        return bool(self._waiting)

    def take(self, limit: int) -> list[ClaimedEmail]:
        """Up to `limit` of them, first come first."""
        self._taken.set()
        taken: list[ClaimedEmail] = []
        while len(taken) < limit and self.has_any():
            taken.append(self._waiting.popleft()[1])
        return taken

    def renew(self) -> UUID:
        """Forget them all; returns the owner under whom they are to be handed back.

        What is written from now on has another owner, so that nothing is both handed back and sent.
        """
        owner, self.owner = self.owner, new_id()
        self._waiting.clear()
        self._taken.set()
        return owner

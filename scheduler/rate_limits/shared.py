"""The limits of all web processes together, in Redis: one round trip for a request, whatever it is counted in.

The same trip reads the person's *epoch*, by which a web process knows whether what it remembers of their sign-ins still
holds (scheduler.accounts.revocation). So a request that is let in has cost one trip to Redis and none to the database.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from scheduler.accounts.revocation import EPOCH_S, epoch_key
from scheduler.logs import get_logger
from scheduler.rate_limits.local import LocalBuckets
from scheduler.rate_limits.rule import Limit, Standing, standing, strictest
from scheduler.redis_client import REDIS_AWAY

PATIENCE_S = 0.5
"""For an answer of Redis; a request must not wait for one that hangs."""
PAUSE_S = 1.0
"""Between two tries while Redis is away."""

log = get_logger("web")

# Microseconds in Lua's numbers are whole up to 2^53, the year 2255. The clock is the server's: one for all processes.
SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local answer = {''}
if KEYS[1] ~= '' then
  answer[1] = redis.call('GET', KEYS[1])
  if not answer[1] then
    answer[1] = ARGV[1]
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
  end
end
local debts, admitted = {}, true
for i = 2, #KEYS do
  local interval, period = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local debt = math.max(0, (redis.call('GET', KEYS[i]) or now) - now)
  debts[i] = math.min(debt, period) -- a clock that was set back, or a longer period before, locks nobody out for good
  answer[2 * i - 2] = debts[i] + interval <= period and 1 or 0
  admitted = admitted and answer[2 * i - 2] == 1
end
for i = 2, #KEYS do
  if admitted then
    debts[i] = debts[i] + tonumber(ARGV[2 * i - 1])
    redis.call('SET', KEYS[i], now + debts[i], 'PX', math.ceil(debts[i] / 1000))
  end
  answer[2 * i - 1] = debts[i]
end
return answer
"""


class Taken(NamedTuple):
    """What came of a request: where it stands (None: nothing limits it), and the person's epoch (None: Redis is away,
    or nobody was asked for)."""

    standing: Standing | None
    epoch: bytes | None


class RateLimits:
    """Counts requests; while Redis is away, by the same rule in this process alone."""

    def __init__(self, redis: Redis | None, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._seconds = seconds
        self._local = LocalBuckets(seconds)
        self._away = redis is None
        self._retry_at = float("inf") if redis is None else 0.0
        self._sha = ""

    async def take(self, buckets: Sequence[tuple[str, Limit]], *, epoch_of: UUID | None = None) -> Taken:
        """Count one request in each of `buckets` (a key and its limit), or in none, when one of them refuses it.

        Never raises for a Redis that is away or hangs.
        """
        if not buckets and epoch_of is None:
            return Taken(None, None)
        answer = await self._ask(buckets, epoch_of)
        if answer is None:
            return Taken(self._told(buckets, self._local.take(buckets)), None)
        epoch, *numbers = answer
        found = list(zip(map(bool, numbers[::2]), numbers[1::2], strict=True))
        for (key, _), (_, debt) in zip(buckets, found, strict=True):
            self._local.note(key, debt)
        return Taken(self._told(buckets, found), bytes(epoch) if epoch_of is not None else None)

    @staticmethod
    def _told(buckets: Sequence[tuple[str, Limit]], found: Sequence[tuple[bool, int]]) -> Standing | None:
        return strictest(
            [standing(debt, limit, allowed=ok) for (_, limit), (ok, debt) in zip(buckets, found, strict=True)]
        )

    async def _ask(self, buckets: Sequence[tuple[str, Limit]], epoch_of: UUID | None) -> list[Any] | None:
        """Redis's answer, or None while it is away. Of many requests meanwhile one at a time tries."""
        now = self._seconds()
        if self._away:
            if now < self._retry_at:
                return None
            self._retry_at = now + PAUSE_S
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._evaluate(
                    1 + len(buckets),
                    epoch_key(epoch_of) if epoch_of is not None else "",
                    *(f"punctual:rate:{key}" for key, _ in buckets),
                    secrets.token_bytes(12),
                    EPOCH_S,
                    *(number for _, limit in buckets for number in (limit.interval_us, limit.period_us)),
                )
        except REDIS_AWAY as error:
            if not self._away:
                log.warning("rate_limits.alone", error=f"{type(error).__name__}: {error}"[:200])
            self._away, self._retry_at = True, self._seconds() + PAUSE_S
            return None
        if self._away:
            log.info("rate_limits.shared")
            self._away = False
        return answer

    async def _evaluate(self, *arguments: Any) -> list[Any]:
        assert self._redis is not None
        answer: list[Any]
        if self._sha:
            try:
                answer = await self._redis.execute_command("EVALSHA", self._sha, *arguments)  # type: ignore[no-untyped-call]
                return answer
            except NoScriptError:  # Redis was restarted
                pass
        self._sha = await self._redis.script_load(SCRIPT)
        answer = await self._redis.execute_command("EVALSHA", self._sha, *arguments)  # type: ignore[no-untyped-call]
        return answer

"""Rate limits in Redis: the same rule as in Python, for all processes together, and without Redis in each alone."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable

import pytest

from scheduler.accounts.revocation import epoch_key
from scheduler.identifiers import new_id
from scheduler.rate_limits.local import LocalBuckets
from scheduler.rate_limits.rule import MICROSECONDS, Limit
from scheduler.rate_limits.shared import PATIENCE_S, PAUSE_S, RateLimits
from scheduler.redis_client import redis_client
from tests.servers import RedisServer

HOUR = 3600 * MICROSECONDS
"""So long that nothing leaks while a test runs."""
FIVE = Limit(5, HOUR)


@pytest.fixture
async def process(redis_server: RedisServer) -> AsyncIterator[Callable[[], RateLimits]]:
    """Makes what one web process has, each with connections of its own."""
    clients = []

    def make() -> RateLimits:
        clients.append(redis_client(redis_server.url, timeout_s=2))
        return RateLimits(clients[-1])

    yield make
    for client in clients:
        await client.aclose()


async def let_in(limits: RateLimits, key: str, limit: Limit, times: int) -> list[bool]:
    taken = [await limits.take([(key, limit)]) for _ in range(times)]
    return [each.standing is not None and each.standing.allowed for each in taken]


async def test_the_count_and_no_more(process: Callable[[], RateLimits]) -> None:
    limits = process()
    found = [(await limits.take([("a", FIVE)])).standing for _ in range(7)]
    assert [each.remaining for each in found if each] == [4, 3, 2, 1, 0, 0, 0]
    assert [each.allowed for each in found if each] == [True] * 5 + [False] * 2
    assert [each.reset_s for each in found if each] == [720, 1440, 2160, 2880, 3600, 720, 720]
    assert await let_in(limits, "b", FIVE, 6) == [True] * 5 + [False]


async def test_it_leaks(process: Callable[[], RateLimits]) -> None:
    limits = process()
    quick = Limit(2, 400_000)  # one every 0.2 s
    assert await let_in(limits, "a", quick, 3) == [True, True, False]
    await asyncio.sleep(0.25)
    assert await let_in(limits, "a", quick, 2) == [True, False]


async def test_of_any_number_at_once_in_any_number_of_processes_just_the_count_is_let_in(
    process: Callable[[], RateLimits],
) -> None:
    fifty = Limit(50, HOUR)
    processes = [process() for _ in range(4)]
    answers = await asyncio.gather(*(limits.take([("a", fifty)]) for limits in processes for _ in range(50)))
    assert sum(each.standing is not None and each.standing.allowed for each in answers) == 50


async def test_the_script_and_the_rule_say_the_same(process: Callable[[], RateLimits]) -> None:
    """Random requests into random buckets, both ways. Time passes for the one and not for the other, so the seconds may
    differ by one."""
    chance = random.Random(1)
    limits, local = process(), LocalBuckets(lambda: 1000.0)
    known = {
        f"k{number}": Limit(chance.choice([1, 2, 3, 7, 600]), chance.choice([HOUR, 60 * HOUR])) for number in range(6)
    }
    for _ in range(400):
        buckets = [(key, known[key]) for key in chance.sample(sorted(known), chance.randint(1, 3))]
        shared = (await limits.take(buckets)).standing
        expected = RateLimits._told(buckets, local.take(buckets))
        assert shared is not None and expected is not None
        assert shared[:3] == expected[:3]
        assert abs(shared.reset_s - expected.reset_s) <= 1


async def test_a_request_that_one_bucket_refuses_goes_into_none(process: Callable[[], RateLimits]) -> None:
    limits = process()
    one = Limit(1, HOUR)
    for expected in (True, False, False, False):
        taken = await limits.take([("user", FIVE), ("address", one)])
        assert taken.standing is not None and taken.standing.allowed is expected and taken.standing.limit == 1
    assert await let_in(limits, "user", FIVE, 5) == [True] * 4 + [False]


async def test_buckets_are_gone_when_they_are_dry(process: Callable[[], RateLimits], redis_server: RedisServer) -> None:
    client = redis_client(redis_server.url, timeout_s=2)
    await process().take([("a", Limit(600, 60 * MICROSECONDS))])
    left = await client.pttl("punctual:rate:a")
    assert 0 < left <= 100
    await client.aclose()


async def test_a_clock_that_was_set_back_locks_nobody_out_for_good(
    process: Callable[[], RateLimits], redis_server: RedisServer
) -> None:
    client = redis_client(redis_server.url, timeout_s=2)
    await client.set("punctual:rate:a", str(int((time.time() + 10 * 365 * 86400) * MICROSECONDS)))
    taken = await process().take([("a", FIVE)])
    assert taken.standing is not None and not taken.standing.allowed and taken.standing.reset_s == 720
    await client.aclose()


# -- a person's epoch ----------------------------------------------------------------------------------------


async def test_the_epoch_comes_along_and_stays(process: Callable[[], RateLimits]) -> None:
    alice, bob = new_id(), new_id()
    here, there = process(), process()
    first = (await here.take([("a", FIVE)], epoch_of=alice)).epoch
    assert first and (await there.take([], epoch_of=alice)).epoch == first
    assert (await here.take([("a", FIVE)])).epoch is None
    assert (await here.take([], epoch_of=bob)).epoch not in (None, first)
    assert await here.take([]) == (None, None)


async def test_an_epoch_that_redis_lost_is_another(
    process: Callable[[], RateLimits], redis_server: RedisServer
) -> None:
    alice, limits = new_id(), process()
    first = (await limits.take([], epoch_of=alice)).epoch
    redis_server.flushall()
    second = (await limits.take([], epoch_of=alice)).epoch
    assert second and second != first
    client = redis_client(redis_server.url, timeout_s=2)
    assert 0 < await client.ttl(epoch_key(alice)) <= 86_400
    await client.aclose()


# -- without Redis -------------------------------------------------------------------------------------------


async def test_without_redis_each_process_counts_alone() -> None:
    here, there = RateLimits(None), RateLimits(None)
    assert await let_in(here, "a", FIVE, 6) == [True] * 5 + [False]
    assert await let_in(there, "a", FIVE, 6) == [True] * 5 + [False]
    assert (await here.take([], epoch_of=new_id())) == (None, None)


async def test_what_was_used_up_stays_so_when_redis_goes_away(
    process: Callable[[], RateLimits], redis_server: RedisServer
) -> None:
    alice, limits = new_id(), process()
    assert await let_in(limits, "a", FIVE, 5) == [True] * 5
    redis_server.kill()
    taken = await limits.take([("a", FIVE)], epoch_of=alice)
    assert taken.standing is not None and not taken.standing.allowed
    assert taken.epoch is None
    assert await let_in(limits, "b", FIVE, 6) == [True] * 5 + [False]


async def test_one_that_hangs_holds_up_few_and_not_for_long(redis_server: RedisServer) -> None:
    client = redis_client(redis_server.url, timeout_s=5)
    passed = 0.0
    limits = RateLimits(client, seconds=lambda: passed)
    many = Limit(1000, HOUR)
    await limits.take([("a", many)])
    redis_server.pause()
    try:
        began = time.monotonic()
        assert all(await let_in(limits, "a", many, 200))
        assert time.monotonic() - began < 2 * PATIENCE_S
        passed += PAUSE_S  # of many that come after the pause, one tries

        async def waited() -> bool:
            began = time.monotonic()
            await limits.take([("a", many)])
            return time.monotonic() - began > PATIENCE_S / 2

        assert sum(await asyncio.gather(*(waited() for _ in range(50)))) == 1
    finally:
        redis_server.resume()
    passed += PAUSE_S
    assert (await limits.take([], epoch_of=new_id())).epoch is not None
    await client.aclose()


async def test_it_counts_together_again_when_redis_is_back_and_has_forgotten_the_script(
    redis_server: RedisServer,
) -> None:
    client = redis_client(redis_server.url, timeout_s=2)
    passed = 0.0
    limits = RateLimits(client, seconds=lambda: passed)
    await limits.take([("a", FIVE)])
    redis_server.kill()
    assert (await limits.take([], epoch_of=new_id())).epoch is None
    redis_server.ensure_running()
    assert (await limits.take([], epoch_of=new_id())).epoch is None  # it is not asked again so soon
    passed += PAUSE_S
    assert (await limits.take([], epoch_of=new_id())).epoch is not None
    await client.script_flush()
    assert (await limits.take([("a", FIVE)], epoch_of=new_id())).epoch is not None
    await client.aclose()

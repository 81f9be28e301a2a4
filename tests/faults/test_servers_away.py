"""Redis, the database and the SMTP server, each flushed, killed or away while reminders are due."""

from __future__ import annotations

import sqlite3
import time

import pytest
from sqlalchemy import make_url

from tests.faults.conftest import Scene, wait_until

pytestmark = [pytest.mark.heavy(on="mariadb"), pytest.mark.faults, pytest.mark.slow]

REMINDERS = 2000


def test_redis_flushed_and_restarted(scene: Scene) -> None:
    """FLUSHALL again and again, then a kill and a restart: nothing is lost, nothing comes twice."""
    scene.seed(REMINDERS)
    scene.sink.slow_down(0.01)
    scene.start_worker()
    scene.wait_until_sink_has(1, seconds=20)
    for _ in range(10):
        scene.stack.redis.flushall()
        time.sleep(0.05)
    scene.stack.redis.kill()
    time.sleep(0.5)
    scene.stack.redis.restart()
    scene.stack.redis.flushall()
    scene.wait_until_all_sent(REMINDERS, seconds=60)
    assert scene.check_one_each(REMINDERS) == 0


def test_redis_away_and_hanging(scene: Scene) -> None:
    """While Redis is down, and while it is there but does not answer, reminders go out on time; the worker
    lives."""
    scene.seed(40, people=5, due_in_s=3600)
    worker = scene.start_worker()
    wait_until(
        lambda: any(event["event"] == "worker.queue_connected" for event in scene.events()),
        seconds=20,
        what="a worker",
    )
    scene.stack.redis.kill()
    time.sleep(1)
    for stage, do in (("down", scene.stack.redis.restart), ("hanging", scene.stack.redis.resume)):
        if stage == "hanging":
            time.sleep(1.5)
            scene.stack.redis.pause()
            time.sleep(1)
        before = scene.sink.count()
        due = scene.make_due(20, in_s=1)
        scene.wait_until_sink_has(before + 20, seconds=10)
        latest = max(arrival.wall for arrival in scene.sink.messages()[before:])
        assert latest - due < 4, f"late by {latest - due:.1f} s while Redis was {stage}"
        do()
    assert worker.poll() is None
    scene.wait_until_all_sent(40, seconds=20)
    assert scene.check_one_each(40) == 0


def test_database_killed_and_restarted(scene: Scene) -> None:
    """The database goes away in the middle of sending (SQLite: somebody holds its lock for longer than we
    wait)."""
    scene.seed(REMINDERS)
    scene.sink.slow_down(0.01)
    worker = scene.start_worker()
    scene.wait_until_sink_has(101, seconds=20)
    if scene.stack.mariadb is not None:
        scene.stack.mariadb.kill()
        time.sleep(2)
        scene.stack.mariadb.restart()
    else:
        path = make_url(scene.stack.database_url).database
        assert path is not None
        holder = sqlite3.connect(path, isolation_level=None, timeout=30)
        holder.execute("BEGIN IMMEDIATE")
        time.sleep(10)
        holder.execute("ROLLBACK")
        holder.close()
    scene.sink.slow_down(0)
    scene.wait_until_all_sent(REMINDERS, seconds=60)
    assert worker.poll() is None
    # What was taken while the database was away is settled when it is back, so nothing need come twice.
    assert scene.check_one_each(REMINDERS) == 0


def test_smtp_away_for_a_while(scene: Scene) -> None:
    """The SMTP server goes away in the middle, and comes back: what was in flight may repeat, all else comes
    once."""
    scene.seed(REMINDERS)
    scene.sink.slow_down(0.01)
    scene.start_worker()
    scene.wait_until_sink_has(101, seconds=20)
    in_doubt = scene.in_doubt()
    scene.sink.go_away()
    in_doubt |= scene.in_doubt()
    time.sleep(4)
    assert scene.states("reminder").keys() <= {"sent", "sending", "pending", "claimed"}
    assert scene.states("email").get("dead", 0) == 0
    scene.sink.slow_down(0)
    scene.sink.come_back()
    scene.wait_until_all_sent(REMINDERS, seconds=60)
    repeats = scene.check_one_each(REMINDERS, may_repeat=in_doubt)
    assert repeats <= 8, "more than one a connection"


def test_one_refused_address_does_not_hold_up_the_others(scene: Scene) -> None:
    """A 5xx for one person ends their reminder at once; the others go."""
    scene.seed(100, people=10)
    [(address,)] = scene.rows("SELECT email FROM user ORDER BY email LIMIT 1")
    scene.sink.refuse({address: 550})
    scene.start_worker()
    wait_until(lambda: scene.states("reminder") == {"sent": 90, "failed": 10}, seconds=30, what="90 sent, 10 failed")
    assert scene.states("email") == {"sent": 90, "dead": 10}

"""Workers that are killed, told to stop, or many."""

from __future__ import annotations

import random
import time

import pytest

from tests.faults.conftest import Scene, wait_until

pytestmark = [pytest.mark.heavy(on="mariadb"), pytest.mark.faults, pytest.mark.slow]

REMINDERS = 2000
KILLS = 20


@pytest.mark.timeout(170)
def test_kill_9_at_random_instants(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Two workers, and at random instants one of them dies, twenty times and more."""
    rng = random.Random(20261120)
    scene.seed(REMINDERS)
    scene.sink.slow_down(0.03)  # 2,000 messages take some ten seconds, so that kills fall among them
    in_doubt: set[str] = set()
    kills = 0
    workers = [scene.start_worker(), scene.start_worker()]
    scene.wait_until_sink_has(1, seconds=20)
    while kills < KILLS:
        time.sleep(rng.uniform(0.05, 0.6))
        victim = workers.pop(rng.randrange(len(workers)))
        scene.kill(victim)
        kills += 1
        in_doubt |= scene.in_doubt()
        workers.append(scene.start_worker())
    scene.sink.slow_down(0)
    scene.wait_until_all_sent(REMINDERS, seconds=60)
    repeats = scene.check_one_each(REMINDERS, may_repeat=in_doubt)
    with capsys.disabled():
        print(f"\n  [{scene.stack.name}] {kills} kills: {repeats} repeats, {len(in_doubt)} were in flight")
    wait_until(
        lambda: "running" not in scene.states("run"),
        seconds=30,
        what="every run has ended, those of the dead as lost",
    )


def test_two_workers_share_the_work(scene: Scene) -> None:
    """Exactly one message each, whoever was first at which."""
    scene.seed(REMINDERS, due_in_s=3600)
    scene.sink.slow_down(0.005)
    for _ in range(2):
        scene.start_worker()
    wait_until(
        lambda: sum(event["event"] == "worker.started" for event in scene.events()) == 2,
        seconds=20,
        what="both started",
    )
    scene.make_due(REMINDERS, in_s=1.5)
    scene.wait_until_all_sent(REMINDERS, seconds=60)
    assert scene.check_one_each(REMINDERS) == 0


def test_sigterm_drains(scene: Scene) -> None:
    """Told to stop while sending, a worker finishes or hands back what it holds: nothing is left for a lease
    to run out."""
    scene.seed(REMINDERS)
    scene.sink.slow_down(0.01)
    first = scene.start_worker()
    scene.wait_until_sink_has(51, seconds=20)
    took = scene.terminate(first)
    assert took < scene.grace_seconds
    assert scene.sink.count() < REMINDERS, "it was over before SIGTERM: the test showed nothing"
    assert scene.in_doubt() == set()
    assert "claimed" not in scene.states("reminder")
    assert set(scene.states("run")) == {"succeeded"}
    scene.sink.slow_down(0)
    scene.start_worker()
    scene.wait_until_all_sent(REMINDERS, seconds=60)
    assert scene.check_one_each(REMINDERS) == 0

"""`/metrics`: who may read it, and what a scraper reads in it."""

from __future__ import annotations

import time

from prometheus_client.parser import text_string_to_metric_families

from models import Run
from scheduler.clock import now
from tests.conftest import Stack
from tests.factories import add_rows, run_row
from tests.web.conftest import Service, assert_problem, start

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(service: Service) -> Series:
    """Every series, by its name and its labels but `pid`."""
    answer = await service.nobody("GET", "//metrics")
    assert answer.status == 200, answer.text
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, tuple(sorted((key, value) for key, value in sample.labels.items() if key != "pid"))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_it_tells_of_the_service_and_of_this_process(service: Service) -> None:
    alice = await service.person()
    await add_rows(service.database, Run, [run_row(now(), state="queued"), run_row(now(), state="running")])
    for _ in range(3):
        await alice("GET", "/tasks")
    await alice("GET", "/tasks/x")
    await alice("GET", "/nowhere/else?x=1")
    series = await scrape(service)
    assert series["punctual_up", ()] == 1
    assert sum(value for (name, labels), value in series.items() if name == "punctual_queue_depth") == 1
    assert sum(value for (name, labels), value in series.items() if name == "punctual_runs_running") == 1
    requests = {labels: value for (name, labels), value in series.items() if name == "punctual_http_requests_total"}
    of_list = (("method", "GET"), ("route", "/api/v1/tasks"), ("status", "200"))
    assert requests[of_list] == 3
    # By the route, not by the address: neither ids nor what anybody types makes a series.
    assert requests[("method", "GET"), ("route", "/api/v1/tasks/{task_id}"), ("status", "404")] == 1
    assert requests[("method", "GET"), ("route", "unknown"), ("status", "404")] == 1
    assert ("punctual_database_pool_size", ()) in series and ("punctual_event_loop_lag_seconds", ()) in series
    assert series["punctual_http_requests_under_way", ()] == 1


async def test_with_a_token_it_is_for_those_who_have_it(service: Service) -> None:
    runner, base = await start(service.settings.model_copy(update={"metrics_token": "a-long-token"}), service.database)
    try:
        service.nobody.base = base
        for given in (None, "Bearer", "Bearer wrong", "Bearer a-long-token2", "Basic a-long-token", "a-long-token"):
            answer = await service.nobody("GET", "//metrics", headers={"Authorization": given} if given else {})
            assert_problem(answer, 401, "unauthenticated")
            assert answer.headers["WWW-Authenticate"] == "Bearer" and "punctual_up" not in answer.text
        alice = await service.person()
        alice.base = base
        assert_problem(await alice("GET", "//metrics"), 401, "unauthenticated")
        answer = await service.nobody("GET", "//metrics", headers={"Authorization": "bearer a-long-token"})
        assert answer.status == 200 and "punctual_up 1.0" in answer.text
    finally:
        await runner.cleanup()


async def test_it_answers_while_the_database_hangs(service: Service, stack: Stack) -> None:
    if stack.mariadb is None:
        return
    await scrape(service)
    stack.mariadb.pause()
    try:
        began = time.monotonic()
        series = await scrape(service)
        assert series["punctual_up", ()] == 0 and time.monotonic() - began < 9
        assert ("punctual_database_pool_size", ()) in series
    finally:
        stack.mariadb.resume()


async def test_unknown_parameters_are_refused_here_too(service: Service) -> None:
    assert_problem(await service.nobody("GET", "//metrics?format=json"), 422, "validation_failed")

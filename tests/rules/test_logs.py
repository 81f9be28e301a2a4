"""Lines of the log, and what is kept of them for the database: no record can hold up another, or the work."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from scheduler.identifiers import new_id
from scheduler.logs import FINAL_EVENTS, REDACTED, RecordKeeper, configure_logging, get_logger, records
from scheduler.logs.keeping import (
    BYTES_KEPT,
    FINALS_KEPT,
    KEPT,
    KEPT_A_MINUTE,
    KEPT_OF_A_RUN,
    SECURITY_KEPT_A_MINUTE,
)
from scheduler.settings import Settings
from tests.rules.process_logging import process_logging

SECRET = "hunter2-correct-horse"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    with process_logging() as stream:
        yield stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# -- lines ---------------------------------------------------------------------------------------------------


def test_a_line_is_one_json_object(stream: io.StringIO) -> None:
    get_logger("here").info("something.happened", title="two\nlines", reminder_id=new_id(), password=SECRET)
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "event", "logger", "title", "reminder_id", "password"]
    assert (line["level"], line["event"], line["logger"]) == ("info", "something.happened", "here")
    assert line["title"] == "two\nlines" and line["password"] == REDACTED
    assert line["timestamp"].endswith("Z")


def test_libraries_write_the_same_lines() -> None:
    with process_logging() as stream:
        logging.getLogger("aiomysql").warning("no mysql://a:%s@db", SECRET)
        logging.getLogger("aiomysql").info("too much")
        logging.getLogger("aiomysql").error("%s and %s", "one argument too few")
        logging.getLogger("odd").log(35, "a level of its own")
        first, second, third = lines(stream)
    assert list(first) == ["timestamp", "level", "event", "logger"]
    assert (first["logger"], first["level"]) == ("aiomysql", "warning")
    assert second["event"] == "%s and %s ('one argument too few',)"
    assert (third["level"], third["event"]) == ("warning", "a level of its own")


@pytest.mark.parametrize(
    "value", ["\udc80 lone surrogate", {1: "a", None: "b"}, {"\udcff": 1}, object(), 2**70, float("nan")]
)
def test_a_value_that_json_cannot_hold_is_no_error(stream: io.StringIO, value: object) -> None:
    """Messages of libraries hold undecodable bytes as surrogates."""
    get_logger("here").info("something.happened", value=value)
    (line,) = lines(stream)
    assert line["event"] == "something.happened"


def test_a_line_that_cannot_be_made_is_no_error(stream: io.StringIO) -> None:
    class Odd(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("no")

    get_logger("here").info("something.happened", value=Odd())
    get_logger("here").info(f"token={SECRET}", value=Odd())
    get_logger("here").info("something.happened", **{"\udc80": 1})
    get_logger("\udc80").info("something.happened")
    first, second, third, fourth = lines(stream)
    assert first["event"] == "something.happened" and "RuntimeError" in first["unloggable"]
    assert second["event"] == f"token={REDACTED}"
    assert third["event"] == fourth["event"] == "something.happened"


def test_the_context_is_in_the_line(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="abc", password=SECRET):
        get_logger("here").info("something.happened", n=1)
        logging.getLogger("library").warning("hm")
    for line in lines(stream):
        assert (line["request_id"], line["password"]) == ("abc", REDACTED)


def test_no_field_passes_for_what_is_in_every_line(stream: io.StringIO) -> None:
    get_logger("here").warning("something.happened", level="debug", timestamp="1970", logger_name="there")
    (line,) = lines(stream)
    assert line["level"] == "warning" and line["timestamp"] > "2026"


@pytest.mark.parametrize("closed", [True, False])
def test_a_stream_that_is_gone_is_no_error(closed: bool) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    stream = Gone()
    if closed:
        stream.close()
    with process_logging():
        configure_logging(Settings(), stream=stream)
        get_logger("here").warning("something.happened")
        logging.getLogger("library").warning("hm")
        assert len(records) == 2


def test_the_console() -> None:
    with process_logging(log_format="console") as stream:
        get_logger("here").warning("something.happened", token=SECRET, run_id=str(new_id()), n=5)
        try:
            raise ValueError("what a pity")
        except ValueError:
            get_logger("here").exception("something.failed")
        assert "something.happened" in stream.getvalue() and "n=5" in stream.getvalue()
        assert "what a pity" in stream.getvalue() and SECRET not in stream.getvalue()
        assert len(records) == 2


def test_standard_output_gets_bytes(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with process_logging():
        configure_logging(Settings(), stream=sys.__stdout__)
        get_logger("here").info("something.happened", title="naïve")
    assert json.loads(capfdbinary.readouterr().out)["title"] == "naïve"


def test_what_is_written_goes_by_the_setting_what_is_kept_does_not() -> None:
    with process_logging(log_level="error") as stream:
        log = get_logger("here")
        run_id = str(new_id())
        log.debug("a.debug", run_id=run_id)
        log.info("an.info")
        log.info("run.succeeded", run_id=run_id)
        log.info("security.signed_in")
        log.warning("a.warning")
        log.error("an.error")
        assert [line["event"] for line in lines(stream)] == ["an.error"]
        assert [record.event for record in records._records] == [
            "run.succeeded",
            "security.signed_in",
            "a.warning",
            "an.error",
        ]
    with process_logging(log_level="debug") as stream:
        get_logger("here").debug("a.debug", run_id=run_id)
        get_logger("here").debug("a.debug")
        assert len(lines(stream)) == 2 and len(records) == 1


# -- what is kept --------------------------------------------------------------------------------------------


def test_what_is_kept(stream: io.StringIO) -> None:
    run_id, user_id = str(new_id()), str(new_id())
    log = get_logger("here")
    log.info("no.run")
    log.info("no.run", run_id=None)
    log.info("securities.sold")
    log.info("security.signed_in", user_id=user_id)
    log.warning("a.warning")
    log.info("in.run", run_id=run_id, job="reap", user_id=user_id, token=SECRET, extra={"a": 1})
    logging.getLogger("aiomysql").error("too bad")
    security, warning, in_run, library = records._records
    assert (security.event, warning.event, library.event) == ("security.signed_in", "a.warning", "too bad")
    assert (in_run.level, in_run.logger) == ("info", "here")
    assert in_run.fields["run_id"] == run_id and in_run.fields["extra"] == {"a": 1}
    assert in_run.fields["token"] == REDACTED and in_run.at.tzinfo is not None


class Seconds:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def keep(keeper: RecordKeeper, event: str = "x", **fields: Any) -> None:
    from scheduler.clock import now

    family = fields.pop("family", event)
    size = fields.pop("size", 100)
    keeper.keep(at=now(), level="info", event=event, logger="l", fields=fields, size=size, family=family)


def events(keeper: RecordKeeper) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in keeper._records:
        counts[record.event] = counts.get(record.event, 0) + 1
    return counts


def test_a_full_keeper_drops_and_counts_but_keeps_the_ends_of_runs() -> None:
    keeper = RecordKeeper()
    for place in range(KEPT + 3):
        keep(keeper, run_id=str(place))
    assert (len(keeper), keeper.dropped["full"]) == (KEPT, 3)
    for place in range(FINALS_KEPT):
        keep(keeper, "run.succeeded", run_id=str(place))
    assert events(keeper) == {"x": KEPT, "run.succeeded": FINALS_KEPT - KEPT}
    assert keeper.dropped["full"] == 3 + KEPT


def test_large_records_fill_it_sooner() -> None:
    keeper = RecordKeeper()
    for place in range(100):
        keep(keeper, run_id=str(place), size=BYTES_KEPT // 10)
    assert len(keeper) == 10
    for place in range(100):
        keep(keeper, "run.failed", run_id=str(place), size=BYTES_KEPT // 10)
    assert len(keeper) == 20


def test_a_run_that_talks_is_cut_off_but_not_its_end() -> None:
    keeper = RecordKeeper()
    quiet, loud = str(new_id()), str(new_id())
    for place in range(KEPT_OF_A_RUN * 3):
        keep(keeper, "chatter", run_id=loud, job="reap", attempt=2, place=place)
    keep(keeper, "whisper", run_id=quiet)
    assert events(keeper) == {"chatter": KEPT_OF_A_RUN, "run.records_truncated": 1, "whisper": 1}
    truncated = keeper._records[KEPT_OF_A_RUN]
    assert (truncated.event, truncated.level) == ("run.records_truncated", "warning")
    assert truncated.fields == {"run_id": loud, "job": "reap", "attempt": 2, "kept": KEPT_OF_A_RUN}
    assert keeper.dropped["run"] == 2 * KEPT_OF_A_RUN
    for event in FINAL_EVENTS:
        for place in range(KEPT_OF_A_RUN):
            keep(keeper, "chatter", run_id=event, place=place)
        keep(keeper, event, run_id=event)
    assert events(keeper).items() >= dict.fromkeys(FINAL_EVENTS, 1).items()
    assert events(keeper)["chatter"] == KEPT_OF_A_RUN * (1 + len(FINAL_EVENTS))


def test_runs_that_end_elsewhere_are_forgotten() -> None:
    keeper = RecordKeeper()
    for place in range(50_000):
        keep(keeper, run_id=str(place))
    assert len(keeper._of_runs) <= 20_001
    for place in range(50_000):
        keep(keeper, "run.succeeded", run_id=str(place))
    assert not keeper._of_runs


def test_a_storm_is_kept_in_part_and_counted() -> None:
    seconds = Seconds()
    keeper = RecordKeeper(seconds=seconds)
    for _ in range(2):
        for _ in range(1000):
            keep(keeper, "database.away")
        keep(keeper, "another.warning")
        seconds.now += 61
    assert events(keeper) == {"database.away": 2 * KEPT_A_MINUTE, "another.warning": 2, "logs.repeated": 1}
    (repeated,) = (record for record in keeper._records if record.event == "logs.repeated")
    assert repeated.fields == {"of": "database.away", "count": 1000 - KEPT_A_MINUTE}
    assert keeper.dropped == {"full": 0, "run": 0, "repeated": 2 * (1000 - KEPT_A_MINUTE), "refused": 0}


def test_a_storm_of_library_lines_that_are_all_different() -> None:
    with process_logging() as stream:
        for place in range(1000):
            logging.getLogger("aiomysql").warning("connection %d is gone", place)
        assert len(lines(stream)) == 1000
        assert len(records) == KEPT_A_MINUTE


def test_a_storm_of_different_events_is_bounded_too() -> None:
    keeper = RecordKeeper()
    for place in range(5000):
        keep(keeper, f"event.{place}")
    assert len(keeper) == 1000 + KEPT_A_MINUTE


def test_security_events_may_come_thicker() -> None:
    keeper = RecordKeeper()
    for _ in range(SECURITY_KEPT_A_MINUTE + 5):
        keep(keeper, "security.sign_in_failed")
    assert (len(keeper), keeper.dropped["repeated"]) == (SECURITY_KEPT_A_MINUTE, 5)


def test_many_threads_may_log(stream: io.StringIO) -> None:
    def log(name: str) -> None:
        for place in range(200):
            get_logger(name).warning("something.happened", run_id=f"{name} {place}", text="x" * 500)

    threads = [threading.Thread(target=log, args=(f"thread {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(stream)) == len(records) == 1600

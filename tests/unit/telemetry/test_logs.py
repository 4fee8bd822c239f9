"""Logs: one line each, nothing secret, no floods."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from ratelimit_service.settings import LogFormat, LogLevel
from ratelimit_service.telemetry.logs import REPEAT_BURST, REPEAT_PERIOD_US, configure, withhold
from ratelimit_service.telemetry.repeats import Repeats


@pytest.fixture
def restored():
    """Puts the process's logging back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Clock:
    now_us = 0

    def read(self):
        return self.now_us


def started(log_format=LogFormat.JSON, level=LogLevel.INFO):
    stream, clock = io.StringIO(), Clock()
    configure(log_format, level, stream, clock.read)
    return stream, clock


def test_a_message_is_one_line_of_json(restored):
    """Line feeds in it are escaped."""
    stream, _ = started()
    structlog.get_logger("x").warning("store_lost", node="a\nb", waited_us=5)
    record = json.loads(stream.getvalue())

    assert stream.getvalue().count("\n") == 1
    assert {key: record[key] for key in ("event", "level", "node", "waited_us")} == {
        "event": "store_lost", "level": "warning", "node": "a\nb", "waited_us": 5,
    }  # fmt: skip
    assert record["time"].endswith("Z")


def test_an_exception_is_in_the_line(restored):
    """With its traceback as text."""
    stream, _ = started()
    try:
        int("planted")
    except ValueError:
        structlog.get_logger().exception("failed")

    assert "ValueError: invalid literal" in json.loads(stream.getvalue())["exception"]


def test_messages_of_libraries_take_the_same_form(restored):
    """Level and text, through the root logger."""
    stream, _ = started()
    logging.getLogger("asyncio").error("task %s failed", "a", extra={"token": "t0p"})
    record = json.loads(stream.getvalue())

    assert (record["event"], record["level"], record["token"]) == ("task a failed", "error", "withheld")


@pytest.mark.parametrize(
    ("level", "expected"), [(LogLevel.DEBUG, 4), (LogLevel.INFO, 3), (LogLevel.WARNING, 2), (LogLevel.ERROR, 1)]
)
def test_messages_below_the_level_are_not_written(restored, level, expected):
    """Each level hides those below."""
    stream, _ = started(level=level)
    log = structlog.get_logger()
    for write in (log.debug, log.info, log.warning, log.error):
        write("event")

    assert len(stream.getvalue().splitlines()) == expected


def test_text_is_for_people(restored):
    """No JSON, no colours."""
    stream, _ = started(LogFormat.CONSOLE)
    structlog.get_logger().info("serving", address="127.0.0.1:8081")

    assert "serving" in stream.getvalue()
    assert "address=127.0.0.1:8081" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_text_shows_exceptions_with_their_traceback(restored):
    """As Python prints them."""
    stream, _ = started(LogFormat.CONSOLE)
    try:
        int("planted")
    except ValueError:
        structlog.get_logger().exception("failed")

    assert "ValueError: invalid literal" in stream.getvalue()
    assert "Traceback" in stream.getvalue()


def test_values_of_descriptors_and_secrets_are_withheld():
    """By the name of the field, and all bytes."""
    event = {"event": "x", "value": "bob", "Password": "p", "identity": b"\xff\x00", "rule": "user"}

    assert withhold(None, "info", event) == {
        "event": "x", "value": "withheld", "Password": "withheld", "identity": "withheld, 2 bytes", "rule": "user",
    }  # fmt: skip


def test_a_flood_is_held_back_and_the_next_message_says_how_much(restored):
    """Ours by level and event."""
    stream, clock = started()
    for _ in range(REPEAT_BURST + 7):
        structlog.get_logger().warning("refused")
    structlog.get_logger().warning("other")
    clock.now_us = REPEAT_PERIOD_US
    structlog.get_logger().warning("refused")
    records = [json.loads(line) for line in stream.getvalue().splitlines()]

    assert [record["event"] for record in records] == ["refused"] * REPEAT_BURST + ["other", "refused"]
    assert [record.get("held_back") for record in records[-2:]] == [None, 7]


def test_a_flood_of_a_librarys_messages_is_held_back(restored):
    """By logger, level and unformatted text."""
    stream, _ = started()
    for number in range(REPEAT_BURST + 7):
        logging.getLogger("lib").warning("number %d", number)

    assert len(stream.getvalue().splitlines()) == REPEAT_BURST


def test_repeats_start_anew_with_each_period():
    """At the burst, one more, the last microsecond of the period, the first of the next."""
    repeats = Repeats(burst=2, period_us=10)

    assert [repeats.admit(("w", "a"), now) for now in (0, 1, 2, 9, 10, 11, 12, 20)] == [0, 0, None, None, 2, 0, None, 1]


def test_repeats_remember_a_bounded_number_of_keys():
    """The key silent longest is forgotten, and then starts anew."""
    repeats = Repeats(burst=1, period_us=10, max_keys=2)

    assert [repeats.admit(("w", key), 0) for key in "abaca"] == [0, 0, None, 0, None]
    assert repeats.admit(("w", "b"), 0) == 0

"""Structured logs: one JSON object per line, or text for people.

Three rules hold for every message, those of libraries included:
values of descriptors and secrets are withheld, a message that repeats is held back, and the line is one line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ratelimit_service.settings import LogFormat, LogLevel
from ratelimit_service.telemetry.repeats import Repeats

REPEAT_BURST: Final = 20
"""Messages of one level and event per `REPEAT_PERIOD_US`; the next one let through says how many were held back."""
REPEAT_PERIOD_US: Final = 10_000_000

_WITHHELD: Final = frozenset(
    {
        "authorization",
        "body",
        "descriptor",
        "descriptors",
        "entries",
        "headers",
        "key_bytes",
        "password",
        "secret",
        "token",
        "value",
        "values",
    }
)
"""Fields that may carry what clients or operators want kept: who logs one by mistake logs only its name."""

_LEVELS: Final = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}


def withhold(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what may be a descriptor's value or a secret: fields of `_WITHHELD` names, and all bytes."""
    for field, content in event.items():
        if field.lower() in _WITHHELD:
            event[field] = "withheld"
        elif isinstance(content, bytes | bytearray | memoryview):
            event[field] = f"withheld, {len(content)} bytes"
    return event


def hold_repeats(repeats: Repeats, read_us: Callable[[], int]) -> Processor:
    """A processor that drops repeated messages; the next one let through carries `held_back`."""

    def process(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        held = repeats.admit((method, str(event.get("event", ""))), read_us())
        if held is None:
            raise structlog.DropEvent
        if held:
            event["held_back"] = held
        return event

    return process


def _json(event: EventDict, **_settings: object) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


def configure(log_format: LogFormat, level: LogLevel, stream: TextIO, read_us: Callable[[], int]) -> None:
    """Set up logging of the process: ours and that of libraries, all to `stream`. May be called again.

    Args:
        log_format: JSON lines, or text without colours.
        level: Least severe level that is written.
        stream: Where lines go.
        read_us: Microseconds of a clock that does not go back, for holding repeats back.
    """
    finish: list[Processor] = [structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"), withhold]
    renderer: Processor
    if log_format is LogFormat.JSON:
        finish.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(serializer=_json)
    else:  # prints exceptions itself
        renderer = structlog.dev.ConsoleRenderer(
            colors=False, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
        )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # For libraries' records only; ours have been through the chain below.
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), structlog.stdlib.add_log_level, *finish],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_RepeatFilter(Repeats(REPEAT_BURST, REPEAT_PERIOD_US), read_us))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            hold_repeats(Repeats(REPEAT_BURST, REPEAT_PERIOD_US), read_us),
            *finish,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


class _RepeatFilter(logging.Filter):
    """Holds back repeats of libraries' messages (a formatter cannot) by logger, level and unformatted text."""

    def __init__(self, repeats: Repeats, read_us: Callable[[], int]) -> None:
        super().__init__()
        self._repeats = repeats
        self._read_us = read_us

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.msg, dict):  # ours: it has passed `hold_repeats`
            return True
        return self._repeats.admit((record.levelname, f"{record.name}: {record.msg}"), self._read_us()) is not None

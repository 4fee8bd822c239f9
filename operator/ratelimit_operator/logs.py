"""The operator's log: one JSON object per line, or text for people."""

from __future__ import annotations

import logging
from typing import Final, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def _json(event: EventDict, **_settings: object) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


def configure(log_format: str, level: str, stream: TextIO) -> None:
    """Set up logging of the process: ours and that of libraries, all to `stream`."""
    chain: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    renderer: Processor = structlog.dev.ConsoleRenderer(colors=False, timestamp_key="time")
    if log_format == "json":
        chain.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(serializer=_json)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    # kopf tells of every watch and handler; what matters of it is told by us.
    logging.getLogger("kopf").setLevel(max(_LEVELS[level], logging.WARNING))
    structlog.configure(
        processors=[*chain, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )

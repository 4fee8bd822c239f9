"""What the parent and a worker tell each other.

Two sockets join them. Over the stream the parent sends `Order` and then every set of policies as it is read
(`sources.frames`). Over the channel, which keeps messages apart and carries open sockets, it sends connections and the
order to drain, and the worker says how it is.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

CONNECTION: Final = b"c"
"""To a worker: a connection comes with it."""

DRAIN: Final = b"d"
"""To a worker: end without losing a call."""

LENGTH_BYTES: Final = 4
MAX_PROBLEM_CHARS: Final = 300
MAX_PROBLEMS: Final = 20
"""Reports stay far below what a datagram of the channel may hold."""


class Order(msgspec.Struct, frozen=True):
    """What a worker is to be; the first message of the stream, with its length before it.

    Attributes:
        number: Among the workers, from 0; a worker that is started again keeps it.
        flags: What `serve` was told, texts by flag.
        admin_path: Unix socket at which the worker's own admin pages are.
    """

    number: int
    flags: dict[str, tuple[str, ...]]
    admin_path: str


class Report(msgspec.Struct, frozen=True):
    """How a worker is; sent whenever that changes, the latest counts.

    Attributes:
        adopted: Connections that it took over since it began, those that failed at once included.
        open: Connections now.
        ready: Its policies are in force and it is not draining.
        reason: Not ready: why.
        problems: Of its newest policies, and of its stores.
        subject: It does not start, because of this: `policies`, `TLS files`; empty: it does.
    """

    adopted: int = 0
    open: int = 0
    ready: bool = False
    reason: str = "starting"
    problems: tuple[str, ...] = ()
    subject: str = ""


_ENCODER: Final = msgspec.msgpack.Encoder()
_REPORTS: Final = msgspec.msgpack.Decoder(Report)
_ORDERS: Final = msgspec.msgpack.Decoder(Order)


def encode_report(report: Report) -> bytes:
    """A report as a message, with as many of its problems as one may hold."""
    problems = tuple(problem[:MAX_PROBLEM_CHARS] for problem in report.problems[:MAX_PROBLEMS])
    return _ENCODER.encode(msgspec.structs.replace(report, problems=problems))


def decode_report(content: bytes) -> Report:
    """The report of a message.

    Raises:
        msgspec.DecodeError: It is none.
    """
    return _REPORTS.decode(content)


def encode_order(order: Order) -> bytes:
    """An order with its length before it."""
    content = _ENCODER.encode(order)
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


async def read_order(reader: asyncio.StreamReader) -> Order:
    """The order that a stream begins with.

    Raises:
        asyncio.IncompleteReadError: The stream ended.
        msgspec.DecodeError: It begins with something else.
    """
    size_bytes = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    return _ORDERS.decode(await reader.readexactly(size_bytes))

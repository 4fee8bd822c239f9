"""Builds and reads HTTP/2 frames in tests, apart from the code under test."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from ratelimit_service.wire.http2.connection import Connection
from ratelimit_service.wire.http2.events import ConnectionLimits, Event

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITISED, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
ASK_PATH = b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
CALL = (
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", ASK_PATH), (b":authority", b"tidegate"),
    (b"te", b"trailers"), (b"content-type", b"application/grpc"),
)  # fmt: skip


class Frame(NamedTuple):
    """A frame as it was written."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def word(self) -> int:
        """The last four bytes of a short payload: an error code or an increment."""
        return int.from_bytes(self.payload[-4:], "big")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def word(value: int) -> bytes:
    return struct.pack(">I", value)


def block(*fields: tuple[bytes, bytes], indexed: bool = False) -> bytes:
    """Fields as literals, in the table or not; short strings without Huffman."""
    first = b"\x40" if indexed else b"\x00"
    return b"".join(first + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)


def headers(stream: int, fields: Sequence[tuple[bytes, bytes]] = CALL, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, block(*fields))


def message(body: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(body)) + body


def call(stream: int, body: bytes = b"hello", fields: Sequence[tuple[bytes, bytes]] = CALL) -> bytes:
    """A whole unary call."""
    return headers(stream, fields) + frame(DATA, END_STREAM, stream, message(body))


def parse(data: bytes) -> list[Frame]:
    """All frames of what a server wrote; nothing may be left over."""
    found, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        kind, flags, stream = struct.unpack_from(">BBI", data, at + 3)
        found.append(Frame(kind, flags, stream, data[at + 9 : at + 9 + length]))
        at += 9 + length
    assert at == len(data)
    return found


class Peer:
    """A connection under test and its clock, past the preface and SETTINGS unless told otherwise."""

    def __init__(self, limits: ConnectionLimits | None = None, *, settled: bool = True) -> None:
        self.connection = Connection(limits or ConnectionLimits())
        self.now_us = 1_000_000
        self.events: list[Event] = []
        if settled:
            self.send(PREFACE + settings())
            self.read()

    def send(self, data: bytes) -> list[Event]:
        """What one read brings."""
        found = self.connection.receive(data, self.now_us)
        self.events += found
        return found

    def read(self) -> list[Frame]:
        """What the server wrote since the last look."""
        return parse(self.connection.output())

    def end(self) -> tuple[int, int] | None:
        """Error code and last stream of the GOAWAY among what was written; None: there is none."""
        found = [each for each in self.read() if each.kind == GOAWAY]
        return (
            (int.from_bytes(found[-1].payload[4:8], "big"), int.from_bytes(found[-1].payload[:4], "big"))
            if found
            else None
        )

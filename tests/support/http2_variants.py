"""Every kind of frame with every flag that it knows, sound and broken in each way that RFC 9113 §6 names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from support.http2_frames import (
    ACK,
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    block,
    word,
)

WHOLE: Final = END_HEADERS | END_STREAM
REQUEST: Final = block(*CALL)
TRAILERS: Final = block((b"x-sum", b"1"))
# Into the table; then its newest entry, and one that is there after the second such block only.
INDEXED: Final = block(*CALL) + block((b"x-kept", b"1"), indexed=True)
NEWEST: Final = block(*CALL) + b"\xbe"
SECOND: Final = block(*CALL) + b"\xbf"
SMALL_TABLE: Final = b"\x20" + block(*CALL)
LARGE: Final = block(*CALL) + block((b"x-large", bytes(100).replace(b"\0", b"x"))) * 10


def _pairs(*pairs: tuple[int, int]) -> bytes:
    return b"".join(key.to_bytes(2, "big") + word(value) for key, value in pairs)


def _on_connection(kind: int, flags: int, payload: bytes) -> Callable[[int], Frame]:
    """A frame of the whole connection; sent on stream 0, whichever is asked for."""
    return lambda _: Frame(kind, flags, 0, payload)


def _on_stream(kind: int, flags: int, payload: bytes) -> Callable[[int], Frame]:
    return lambda number: Frame(kind, flags, number, payload)


ON_STREAM: Final[Mapping[str, Callable[[int], Frame]]] = {
    "data": _on_stream(DATA, 0, b"body"),
    "data, empty": _on_stream(DATA, 0, b""),
    "data, long": _on_stream(DATA, 0, bytes(60)),
    "data, longest": _on_stream(DATA, 0, bytes(16_384)),
    "data, last": _on_stream(DATA, END_STREAM, b"body"),
    "data, last and empty": _on_stream(DATA, END_STREAM, b""),
    "data, padded": _on_stream(DATA, PADDED | END_STREAM, b"\x02body\0\0"),
    "data, all padding": _on_stream(DATA, PADDED, b"\x04\0\0\0\0"),
    "data, padding too long": _on_stream(DATA, PADDED, b"\x05body"),
    "data, padded without its length": _on_stream(DATA, PADDED | END_STREAM, b""),
    "data, too long": _on_stream(DATA, 0, bytes(16_385)),
    "head": _on_stream(HEADERS, END_HEADERS, REQUEST),
    "head, last": _on_stream(HEADERS, WHOLE, REQUEST),
    "head, not whole": _on_stream(HEADERS, 0, REQUEST),
    "head, last and not whole": _on_stream(HEADERS, END_STREAM, REQUEST[:40]),
    "head, padded": _on_stream(HEADERS, END_HEADERS | PADDED, b"\x02" + REQUEST + b"\0\0"),
    "head, padding too long": _on_stream(HEADERS, END_HEADERS | PADDED, bytes((200,)) + REQUEST),
    "head, prioritised": _on_stream(HEADERS, END_HEADERS | PRIORITISED, word(0) + b"\x10" + REQUEST),
    "head, depends on itself": lambda number: Frame(
        HEADERS, END_HEADERS | PRIORITISED, number, word(number) + b"\x10" + REQUEST
    ),
    "head, shorter than its priority": _on_stream(HEADERS, END_HEADERS | PRIORITISED, b"\0\0\0\0"),
    "head, padded and prioritised": _on_stream(
        HEADERS, WHOLE | PADDED | PRIORITISED, b"\x01" + word(0) + b"\x10" + REQUEST + b"\0"
    ),
    "head, into the table": _on_stream(HEADERS, END_HEADERS, INDEXED),
    "head, of the table": _on_stream(HEADERS, END_HEADERS, NEWEST),
    "head, of the table's depth": _on_stream(HEADERS, WHOLE, SECOND),
    "head, table emptied": _on_stream(HEADERS, WHOLE, SMALL_TABLE),
    "head, too large": _on_stream(HEADERS, END_HEADERS, LARGE),
    "head, four bytes announced": _on_stream(HEADERS, END_HEADERS, block(*CALL, (b"content-length", b"4"))),
    "head, none but some announced": _on_stream(HEADERS, WHOLE, block(*CALL, (b"content-length", b"4"))),
    "head, name in capitals": _on_stream(HEADERS, END_HEADERS, block(*CALL, (b"X-Y", b"1"))),
    "head, of HTTP/1.1": _on_stream(HEADERS, WHOLE, block(*CALL, (b"connection", b"close"))),
    "head, pseudo-field late": _on_stream(HEADERS, END_HEADERS, block(*CALL, (b":path", b"/"))),
    "head, undecodable": _on_stream(HEADERS, END_HEADERS, b"\xff\xff\xff\xff\xff\xff"),
    "trailers": _on_stream(HEADERS, WHOLE, TRAILERS),
    "trailers, not last": _on_stream(HEADERS, END_HEADERS, TRAILERS),
    "trailers, pseudo-field": _on_stream(HEADERS, WHOLE, block((b":path", b"/"))),
    "trailers, in two": _on_stream(HEADERS, END_STREAM, TRAILERS),
    "priority": _on_stream(PRIORITY, 0, word(0) + b"\x10"),
    "priority, of itself": lambda number: Frame(PRIORITY, 0, number, word(number) + b"\x10"),
    "priority, short": _on_stream(PRIORITY, 0, b"\0\0\0\0"),
    "reset": _on_stream(RST_STREAM, 0, word(8)),
    "reset, unknown code": _on_stream(RST_STREAM, 0, word(2**32 - 1)),
    "reset, short": _on_stream(RST_STREAM, 0, b"\0\0\0"),
    "settings on a stream": _on_stream(SETTINGS, 0, b""),
    "push": _on_stream(PUSH_PROMISE, END_HEADERS, word(2) + REQUEST),
    "ping on a stream": _on_stream(PING, 0, bytes(8)),
    "goaway on a stream": _on_stream(GOAWAY, 0, bytes(8)),
    "window": _on_stream(WINDOW_UPDATE, 0, word(7)),
    "window, wide": _on_stream(WINDOW_UPDATE, 0, word(100_000)),
    "window, reserved bit": _on_stream(WINDOW_UPDATE, 0, word(2**31 + 7)),
    "window, none": _on_stream(WINDOW_UPDATE, 0, word(0)),
    "window, past its most": _on_stream(WINDOW_UPDATE, 0, word(2**31 - 1)),
    "window, short": _on_stream(WINDOW_UPDATE, 0, b"\0\0\0"),
    "continuation": _on_stream(CONTINUATION, 0, b""),
    "continuation, last": _on_stream(CONTINUATION, END_HEADERS, b""),
    "continuation, last with the rest": _on_stream(CONTINUATION, END_HEADERS, REQUEST[40:]),
    "unknown": _on_stream(0x0B, 0xFF, b"anything"),
    "unknown, too long": _on_stream(0xFF, 0, bytes(16_385)),
}
ON_CONNECTION: Final[Mapping[str, Callable[[int], Frame]]] = {
    "settings": _on_connection(SETTINGS, 0, b""),
    "settings, acknowledged": _on_connection(SETTINGS, ACK, b""),
    "settings, acknowledged with more": _on_connection(SETTINGS, ACK, bytes(6)),
    "settings, short": _on_connection(SETTINGS, 0, bytes(5)),
    "settings, unknown": _on_connection(SETTINGS, 0, _pairs((0xFF, 2**32 - 1), (1, 0), (3, 0), (6, 1))),
    "settings, no window": _on_connection(SETTINGS, 0, _pairs((4, 0))),
    "settings, window": _on_connection(SETTINGS, 0, _pairs((4, 9))),
    "settings, window twice": _on_connection(SETTINGS, 0, _pairs((4, 3), (4, 50_000))),
    "settings, widest window": _on_connection(SETTINGS, 0, _pairs((4, 2**31 - 1))),
    "settings, window past its most": _on_connection(SETTINGS, 0, _pairs((4, 2**31))),
    "settings, longest frame": _on_connection(SETTINGS, 0, _pairs((5, 2**24 - 1))),
    "settings, frame too short": _on_connection(SETTINGS, 0, _pairs((5, 16_383))),
    "settings, frame too long": _on_connection(SETTINGS, 0, _pairs((5, 2**24))),
    "settings, push": _on_connection(SETTINGS, 0, _pairs((2, 1))),
    "settings, push of neither": _on_connection(SETTINGS, 0, _pairs((2, 2))),
    "ping": _on_connection(PING, 0, b"tidegate"),
    "ping, acknowledged": _on_connection(PING, ACK, b"tidegate"),
    "ping, short": _on_connection(PING, 0, bytes(7)),
    "goaway": _on_connection(GOAWAY, 0, word(0) + word(0)),
    "goaway with a reason": _on_connection(GOAWAY, 0, word(2**31 - 1) + word(0xFF) + b"reason"),
    "goaway, short": _on_connection(GOAWAY, 0, bytes(7)),
}
VARIANTS: Final[Mapping[str, Callable[[int], Frame]]] = {**ON_STREAM, **ON_CONNECTION}
"""By name; each makes the frame for a stream's number."""

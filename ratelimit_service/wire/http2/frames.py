"""Frames of HTTP/2: numbers, and how to write each one (RFC 9113 §4, §6, §7)."""

from __future__ import annotations

import enum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client's connection begins with (§3.4)."""
HEADER_BYTES: Final = 9
MAX_FRAME_BYTES: Final = 16_384
"""The SETTINGS_MAX_FRAME_SIZE that we advertise: the smallest allowed, and the default (§6.5.2)."""
MAX_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
LAST_STREAM: Final = 2**31 - 1

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

read_header: Final = Struct(">HBHI").unpack_from
"""(length's high 16 bits, its low 8, type << 8 | flags, stream with the reserved bit) of the frame at an offset."""
_word: Final = Struct(">I").pack
_setting: Final = Struct(">HI")


class ErrorCode(enum.IntEnum):
    """Why a stream or a connection ended (§7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + _word(stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame (§6.5)."""
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(key, value) for key, value in values.items()))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0, b"")


def ping_ack(opaque: bytes) -> bytes:
    """The answer to a PING (§6.7)."""
    return frame(PING, ACK, 0, opaque)


def window_update(stream: int, increment: int) -> bytes:
    """Room for `increment` more bytes (§6.9)."""
    return frame(WINDOW_UPDATE, 0, stream, _word(increment))


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """End one stream (§6.4)."""
    return frame(RST_STREAM, 0, stream, _word(code))


def goaway(last_stream: int, code: ErrorCode, reason: str = "") -> bytes:
    """No stream above `last_stream` was or will be worked on (§6.8)."""
    return frame(GOAWAY, 0, 0, _word(last_stream) + _word(code) + reason.encode())

"""SETTINGS: what we ask of a peer, and what it asks of us (RFC 9113 §6.5)."""

from __future__ import annotations

from struct import Struct
from typing import Final

from ratelimit_service.wire.http2.faults import ConnectionFault
from ratelimit_service.wire.http2.frames import DEFAULT_WINDOW, MAX_FRAME_BYTES, MAX_WINDOW, ErrorCode

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

_pairs: Final = Struct(">HI").iter_unpack


class PeerSettings:
    """What the client has asked for so far.

    Attributes:
        initial_window: Send window of new streams, bytes.
        max_frame_bytes: Longest frame payload that we may send.
    """

    __slots__ = ("initial_window", "max_frame_bytes")

    def __init__(self) -> None:
        self.initial_window = DEFAULT_WINDOW
        self.max_frame_bytes = MAX_FRAME_BYTES

    def apply(self, payload: bytes) -> int:
        """Take the values in order; the change of `initial_window`, which open streams' windows follow (§6.9.2).

        Unknown settings are passed over. Our encoder has no dynamic table, so HEADER_TABLE_SIZE needs nothing.

        Raises:
            ConnectionFault: A value is out of its range.
        """
        before = self.initial_window
        for key, value in _pairs(payload):
            if key == INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE above 2^31-1")
                self.initial_window = value
            elif key == MAX_FRAME_SIZE:
                if not MAX_FRAME_BYTES <= value < 2**24:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE outside 2^14 to 2^24-1")
                self.max_frame_bytes = value
            elif key == ENABLE_PUSH and value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        return self.initial_window - before

"""Bodies of requests on their way (RFC 9113 §6.1)."""

from __future__ import annotations

from ratelimit_service.wire.http2.faults import ConnectionFault
from ratelimit_service.wire.http2.fields import Head
from ratelimit_service.wire.http2.frames import DEFAULT_WINDOW, PADDED, ErrorCode


class Upload:
    """A request whose body comes in several frames.

    Attributes:
        head: Its header block.
        body: What came so far; one buffer, so that a body in frames of one byte costs its bytes only.
        window: Bytes that the peer may still send on this stream.
        opened: Send window of the answer that WINDOW_UPDATE added already.
    """

    __slots__ = ("body", "head", "opened", "window")

    def __init__(self, head: Head) -> None:
        self.head = head
        self.body = bytearray()
        self.window = DEFAULT_WINDOW
        self.opened = 0


def unpad(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without its padding (§6.1).

    Raises:
        ConnectionFault: The padding is longer than the payload.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]

"""What a peer did wrong, and how far it reaches (RFC 9113 §5.4)."""

from __future__ import annotations

from ratelimit_service.wire.http2.budgets import Abuse
from ratelimit_service.wire.http2.frames import ErrorCode


class ConnectionFault(Exception):
    """The connection cannot go on: GOAWAY with `code`, then close."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Flood(ConnectionFault):
    """The peer costs more than any client has a reason to; the connection ends with ENHANCE_YOUR_CALM."""

    def __init__(self, abuse: Abuse) -> None:
        super().__init__(ErrorCode.ENHANCE_YOUR_CALM, abuse.value)
        self.abuse = abuse


class StreamFault(Exception):
    """One stream ends: RST_STREAM with `code`; the others go on."""

    def __init__(self, stream: int, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.stream = stream
        self.code = code
        self.reason = reason

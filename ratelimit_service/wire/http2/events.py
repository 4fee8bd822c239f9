"""What a connection tells its owner, and what it may hold."""

from __future__ import annotations

import msgspec

from ratelimit_service.wire.http2.fields import Head


class ConnectionLimits(msgspec.Struct, frozen=True):
    """What one connection may hold.

    Attributes:
        streams: Calls open at once (MAX_CONCURRENT_STREAMS).
        body_bytes: Longest request body; a longer one is an `Oversized` event.
        header_list_bytes: Largest decoded header list; a larger one ends its stream.
        header_block_bytes: Longest compressed block, continuations and their frame headers included; a longer one
            ends the connection.
        kept_fields: Names of the regular fields that the owner reads; others are checked and dropped.
        varied_field: One more, which is expected to differ from request to request.
        trace_field: One more that the owner reads, new each time; empty: none.
        memo_blocks: Header blocks that are remembered decoded.
        memo_block_bytes: A longer block is never remembered.
    """

    streams: int = 1_000
    body_bytes: int = 4 * 2**20 + 5
    header_list_bytes: int = 16_384
    header_block_bytes: int = 65_536
    kept_fields: frozenset[bytes] = frozenset({b"content-type", b"grpc-encoding"})
    varied_field: bytes = b"grpc-timeout"
    trace_field: bytes = b""
    memo_blocks: int = 64
    memo_block_bytes: int = 1_024


class Request(msgspec.Struct, frozen=True, gc=False):
    """A call has come whole; it awaits an answer."""

    stream: int
    head: Head
    body: bytes


class Oversized(msgspec.Struct, frozen=True, gc=False):
    """A body passed its limit; what came of it is dropped, and the call awaits an answer."""

    stream: int
    head: Head


class Cancelled(msgspec.Struct, frozen=True, gc=False):
    """A call ended before its answer did: the peer gave it up or broke a rule on it."""

    stream: int


Event = Request | Oversized | Cancelled

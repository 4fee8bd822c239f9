"""Header blocks of one connection: put together from their frames, decoded in order, remembered while that is safe."""

from __future__ import annotations

from ratelimit_service.wire.http2 import hpack
from ratelimit_service.wire.http2.budgets import Abuse
from ratelimit_service.wire.http2.events import ConnectionLimits
from ratelimit_service.wire.http2.faults import ConnectionFault, Flood
from ratelimit_service.wire.http2.fields import Head, HeadReader, TracingHeadReader
from ratelimit_service.wire.http2.frames import HEADER_BYTES, ErrorCode


class HeaderBlocks:
    """Decodes what HEADERS and CONTINUATION carry.

    Clients repeat themselves: a block that was seen before is looked up instead of decoded. That is right only while
    the decoder's table has not changed since, and only for blocks that do not change it themselves (DECISIONS 25):
    what is remembered is dropped with every change, and a block that changes the table is never remembered.

    Attributes:
        memo: Heads by their block.
        reader: Checks what blocks hold.
        stream: Whose block is not complete yet, 0: none is.
        flags: Flags of its HEADERS frame.
        since_us: When it began.
    """

    __slots__ = ("_decoder", "_limits", "_parts", "_size_bytes", "flags", "memo", "reader", "since_us", "stream")

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._decoder = hpack.Decoder(most_list_bytes=limits.header_list_bytes)
        self.reader = (
            TracingHeadReader(limits.kept_fields, limits.varied_field, limits.trace_field)
            if limits.trace_field
            else HeadReader(limits.kept_fields, limits.varied_field)
        )
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self.memo: dict[bytes, Head] = {}
        self.stream = 0
        self.flags = 0
        self.since_us = 0

    @property
    def held_bytes(self) -> int:
        """Size of the incomplete block."""
        return self._size_bytes

    def begin(self, stream: int, flags: int, part: bytes, now_us: int) -> None:
        """Keep the first part of a block that goes on in CONTINUATION frames."""
        self.stream, self.flags, self.since_us = stream, flags, now_us
        self._parts = [part]
        self._size_bytes = len(part)

    def extend(self, part: bytes) -> None:
        """Keep the next part.

        Raises:
            Flood: The block is longer than any may be. Frames count as well as bytes: empty continuations are free to
                send and end nothing (CVE-2024-27316).
        """
        self._parts.append(part)
        self._size_bytes += len(part) + HEADER_BYTES
        if self._size_bytes > self._limits.header_block_bytes:
            raise Flood(Abuse.HEADER_BLOCK)

    def complete(self) -> bytes:
        """The whole block; none is incomplete then."""
        block = b"".join(self._parts)
        self.stream = 0
        self._parts = []
        self._size_bytes = 0
        return block

    def head(self, block: bytes) -> Head:
        """The request head that `block` stands for.

        Raises:
            ConnectionFault: It cannot be decoded.
            Flood: It would fill the memory.
            HeaderListTooLarge: It can be decoded, and is too large.
            MalformedFields: It can, and is no request's.
        """
        known = self.memo.get(block)
        if known is not None:
            return known
        before = self._decoder.generation
        head = self.reader.read(self.decode(block))
        if self._decoder.generation == before and len(block) <= self._limits.memo_block_bytes:
            if len(self.memo) >= self._limits.memo_blocks:
                self.memo.clear()
            self.memo[block] = head
        return head

    def decode(self, block: bytes) -> list[hpack.Field]:
        """The fields of `block`; every block goes through here or was remembered, in the order in which they came.

        Raises:
            ConnectionFault: It cannot be decoded.
            Flood: It would fill the memory.
            HeaderListTooLarge: It can, and is too large.
        """
        before = self._decoder.generation
        try:
            return self._decoder.decode(block)
        except hpack.HeaderBomb:
            raise Flood(Abuse.HEADER_BLOCK) from None
        except hpack.HpackError as bad:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(bad)) from None
        finally:
            if self.memo and self._decoder.generation != before:
                self.memo.clear()

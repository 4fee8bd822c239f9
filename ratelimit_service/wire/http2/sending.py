"""The sending half of a connection: answers, and what flow control holds back (RFC 9113 §5.2, §6.9)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Final

from ratelimit_service.wire.http2 import frames, hpack
from ratelimit_service.wire.http2.faults import ConnectionFault, StreamFault
from ratelimit_service.wire.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, MAX_WINDOW, ErrorCode
from ratelimit_service.wire.http2.settings import PeerSettings


class _Pending:
    """What a stream has still to send.

    Attributes:
        opened: Window that WINDOW_UPDATE added, less what was sent; the peer's initial window comes on top.
        chunks: DATA not sent yet.
        trailers: The block that ends the stream after them, None: more will come.
        blocked_since_us: When the peer's windows first held back what is in `chunks`; 0: they hold nothing back.
    """

    __slots__ = ("blocked_since_us", "chunks", "opened", "trailers")

    def __init__(self, opened: int) -> None:
        self.opened = opened
        self.chunks: deque[bytes] = deque()
        self.trailers: bytes | None = None
        self.blocked_since_us = 0


_Pack = Callable[..., bytes]
_MOST_TEMPLATES: Final = 512
"""Answers of more bytes than this are put together piece by piece."""


class Form:
    """The blocks around the answers of one kind, prepared once: an answer is then one packing.

    Args:
        head, trailers: Header blocks of `hpack.encode`.
        prefix: What stands before a message of so many bytes in its DATA frame.

    Attributes:
        head, trailers: As given.
        templates: By the size of a message, what packs all frames of its answer, and the constants that it packs.
    """

    __slots__ = ("_prefix", "closing", "head", "opening", "templates", "trailers")

    def __init__(self, head: bytes, trailers: bytes, prefix: Callable[[int], bytes] = lambda _size: b"") -> None:
        self.head, self.trailers = head, trailers
        self._prefix = prefix
        self.opening = len(head).to_bytes(3, "big") + bytes((HEADERS, END_HEADERS))
        self.closing = len(trailers).to_bytes(3, "big") + bytes((HEADERS, END_HEADERS | END_STREAM))
        self.templates = [self._template(size) for size in range(_MOST_TEMPLATES)]

    def _template(self, size: int) -> tuple[_Pack, bytes, bytes, int]:
        """(packs it, what stands between the stream's first and second number, the prefix, bytes of DATA)."""
        prefix = self._prefix(size)
        data = len(prefix) + size
        middle = self.head + data.to_bytes(3, "big") + bytes((DATA, 0))
        closing, trailers = len(self.closing), len(self.trailers)
        pack = Struct(f">5sI{len(middle)}sI{len(prefix)}s{size}s{closing}sI{trailers}s").pack
        return pack, middle, prefix, data

    def data(self, message: bytes) -> bytes:
        """The message behind its prefix."""
        return self._prefix(len(message)) + message


class Outgoing:
    """Answers calls within the peer's windows; `Incoming` adds the receiving half.

    Attributes:
        answered: Calls answered so far.
    """

    __slots__ = (
        "_accepting", "_cut", "_first_block", "_now_us", "_out", "_peer", "_send_window", "_sending", "_waiting",
        "answered",
    )  # fmt: skip

    def __init__(self) -> None:
        self._out: list[bytes] = []
        self._peer = PeerSettings()
        self._send_window = frames.DEFAULT_WINDOW
        self._waiting: dict[int, int] = {}
        self._sending: dict[int, _Pending] = {}
        # Streams that we ended, or shall end, before the peer did: what still comes on them is passed over (§5.1).
        self._cut: dict[int, None] = {}
        self._accepting = True
        self._now_us = 0
        # Our first block says that we keep no table; every other one can be sent as it is.
        self._first_block = hpack.NO_TABLE
        self.answered = 0

    def output(self) -> bytes:
        """What is to be written now."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def answer(self, stream: int, form: Form, message: bytes) -> None:
        """Send a whole answer: header block, one message, trailer block. A closed stream is passed over."""
        opened = self._waiting.pop(stream, None)
        if opened is None:
            return
        self.answered += 1
        length = len(message)
        if length < _MOST_TEMPLATES and not self._first_block and stream not in self._cut:
            # Nothing but the answer itself is to be said on this stream.
            pack, middle, prefix, size = form.templates[length]
            if size <= self._send_window and size <= self._peer.initial_window + opened:
                self._send_window -= size
                self._out.append(
                    pack(form.opening, stream, middle, stream, prefix, message, form.closing, stream, form.trailers)
                )
                return
        self._open_pending(stream, opened, form.head)
        self._queue(stream, form.data(message), form.trailers)

    def answer_bare(self, stream: int, head: bytes) -> None:
        """Send an answer that is one header block (gRPC's trailers-only). A closed stream is passed over."""
        if self._waiting.pop(stream, None) is not None:
            self.answered += 1
            self._headers(stream, head, END_STREAM)
            self._stop_peer(stream)

    def begin(self, stream: int, head: bytes) -> None:
        """Send the header block of an answer whose messages come one by one. A closed stream is passed over."""
        opened = self._waiting.pop(stream, None)
        if opened is not None:
            self.answered += 1
            self._open_pending(stream, opened, head)

    def send(self, stream: int, body: bytes, trailers: bytes | None = None) -> None:
        """Send more of an answer that `begin` began. A closed stream is passed over.

        Args:
            stream: Of the call.
            body: What comes next; not empty when `trailers` is.
            trailers: The block that ends the answer; empty: it ends without one; None: more will come.
        """
        if stream in self._sending:
            self._queue(stream, body, trailers)

    def _headers(self, stream: int, block: bytes, flags: int) -> None:
        if self._first_block:
            block, self._first_block = self._first_block + block, b""
        self._out.append(frames.frame(HEADERS, END_HEADERS | flags, stream, block))

    def _stop_peer(self, stream: int) -> None:
        if stream in self._cut:
            # The peer is still sending what nobody reads: it may stop without an error (§8.1).
            self._out.append(frames.rst_stream(stream, ErrorCode.NO_ERROR))

    def _open_pending(self, stream: int, opened: int, head: bytes) -> None:
        self._headers(stream, head, 0)
        self._sending[stream] = _Pending(opened)

    def _queue(self, stream: int, body: bytes, trailers: bytes | None) -> None:
        pending = self._sending[stream]
        if body:
            pending.chunks.append(body)
        pending.trailers = trailers
        self._pump_one(stream, pending)

    def _pump(self) -> None:
        """Send what the windows allow, oldest stream first."""
        for stream, pending in list(self._sending.items()):
            if self._send_window <= 0:
                return
            self._pump_one(stream, pending)

    def _pump_one(self, stream: int, pending: _Pending) -> None:
        while pending.chunks:
            room = min(self._send_window, self._peer.initial_window + pending.opened, frames.MAX_FRAME_BYTES)
            if room <= 0:
                pending.blocked_since_us = pending.blocked_since_us or self._now_us
                return
            chunk = pending.chunks.popleft()
            if len(chunk) > room:
                pending.chunks.appendleft(chunk[room:])
                chunk = chunk[:room]
            self._send_window -= len(chunk)
            pending.opened -= len(chunk)
            ends = not pending.chunks and pending.trailers == b""
            self._out.append(frames.frame(DATA, END_STREAM if ends else 0, stream, chunk))
        pending.blocked_since_us = 0
        if pending.trailers is not None:
            del self._sending[stream]
            if pending.trailers:
                self._headers(stream, pending.trailers, END_STREAM)
            self._stop_peer(stream)

    def _blocked_before(self, time_us: int) -> bool:
        """Some answer has been held back by the peer's windows since before `time_us`."""
        return any(0 < pending.blocked_since_us < time_us for pending in self._sending.values())

    def _widen(self, stream: int, increment: int) -> None:
        """Take a WINDOW_UPDATE; one on a closed stream is passed over."""
        if stream == 0:
            was_shut = self._send_window <= 0
            self._send_window += increment
            if self._send_window > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window passes 2^31-1")
            # While it is open, only the streams' own windows hold anything back.
            if was_shut:
                self._pump()
            return
        pending = self._sending.get(stream)
        if pending is not None:
            pending.opened += increment
            opened = pending.opened
        elif stream in self._waiting:
            opened = self._waiting[stream] = self._waiting[stream] + increment
        else:
            return
        if self._peer.initial_window + opened > MAX_WINDOW:
            raise StreamFault(stream, ErrorCode.FLOW_CONTROL_ERROR, "the stream's window passes 2^31-1")
        if pending is not None:
            self._pump_one(stream, pending)

    def _resize_windows(self) -> None:
        """The peer's initial window has changed, and every stream's window with it (§6.9.2)."""
        most = max([*self._waiting.values(), *(pending.opened for pending in self._sending.values())], default=0)
        if self._peer.initial_window + most > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window passes 2^31-1")
        self._pump()

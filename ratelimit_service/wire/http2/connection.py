"""The server's side of one HTTP/2 connection, for calls whose request is read whole: bytes in, events out, bytes back.

The object knows no socket and no clock: the caller passes the time, takes `output()` after each call, and
closes the transport when `finished`. What a stream may be in is told in `receiving`.
"""

from __future__ import annotations

from typing import Final

from ratelimit_service.wire.http2 import frames
from ratelimit_service.wire.http2.budgets import Abuse
from ratelimit_service.wire.http2.control import ControlFrames
from ratelimit_service.wire.http2.events import ConnectionLimits, Event, Request
from ratelimit_service.wire.http2.faults import ConnectionFault, Flood, StreamFault
from ratelimit_service.wire.http2.fields import Head, MalformedFields
from ratelimit_service.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER_BYTES,
    HEADERS,
    LAST_STREAM,
    MAX_FRAME_BYTES,
    PREFACE,
    ErrorCode,
    read_header,
)
from ratelimit_service.wire.http2.hpack import HeaderListTooLarge
from ratelimit_service.wire.http2.settings import (
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
)

_WHOLE_BLOCK: Final = HEADERS << 8 | END_HEADERS
_LAST_DATA: Final = DATA << 8 | END_STREAM


class Connection(ControlFrames):
    """One connection.

    Attributes:
        fault: Why it finished, None: the peer was not at fault.
    """

    __slots__ = ("_mark_newest", "_mark_us", "_need", "_preface", "_rest", "_rest_since_us", "fault")

    def __init__(self, limits: ConnectionLimits = ConnectionLimits()) -> None:  # noqa: B008 — frozen
        super().__init__(limits)
        self._rest = b""
        self._rest_since_us = 0
        self._need = len(PREFACE)
        self._preface = False
        self._mark_us = 0
        self._mark_newest = 0
        self.fault: ConnectionFault | None = None
        ours = {
            MAX_CONCURRENT_STREAMS: limits.streams,
            INITIAL_WINDOW_SIZE: frames.DEFAULT_WINDOW,
            MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            MAX_HEADER_LIST_SIZE: limits.header_list_bytes,
        }
        self._out.append(frames.settings(ours))
        self._out.append(frames.window_update(0, self._window - frames.DEFAULT_WINDOW))

    @property
    def is_holding(self) -> bool:
        """Whether something has not come whole: else `held_bytes` is 0."""
        return bool(self._rest or self._receiving or self._blocks.stream)

    @property
    def held_bytes(self) -> int:
        """What is kept of frames and requests that have not come whole."""
        return super().held_bytes + len(self._rest)

    def receive(self, data: bytes, now_us: int) -> list[Event]:
        """Take what the socket gave; the events in it.

        Args:
            data: Any split of the peer's bytes.
            now_us: Monotonic time of this read.

        Returns:
            In the order in which they came. A call that came and went within `data` is not told.
        """
        events: list[Event] = []
        if self.finished:
            return events
        self._now_us = now_us
        if self._gone:
            self._gone.clear()
        had_rest = self._rest
        if had_rest:
            data = had_rest + data
        try:
            at = self._frames(data, events) if len(data) >= self._need else self._wait(data)
        except ConnectionFault as fault:
            self._give_up(fault)
            return self._without_gone(events)
        rest = self._rest = data[at:]
        if rest and (at or not had_rest):
            self._rest_since_us = now_us
        return self._without_gone(events) if self._gone else events

    def _give_up(self, fault: ConnectionFault) -> None:
        self.finished = True
        self.fault = fault
        self._rest = b""
        self._receiving.clear()
        self._out.append(frames.goaway(min(self._newest, self._last_taken), fault.code, fault.reason))

    def _wait(self, data: bytes) -> int:
        """Go on when more has come; what can be seen to be wrong already is said at once."""
        if not self._preface and not PREFACE.startswith(data):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is no HTTP/2 preface")
        return 0

    def _frames(self, data: bytes, events: list[Event]) -> int:
        """Work through whole frames; where the first incomplete one begins."""
        at, size, need = 0, len(data), HEADER_BYTES
        if not self._preface:
            at = self._take_preface(data)
        receiving, waiting, memo, add = self._receiving, self._waiting, self._blocks.memo, events.append
        room, taken_bytes = self._room(), 0
        while size - at >= HEADER_BYTES:
            high, low, what, stream = read_header(data, at)
            start = at + HEADER_BYTES
            end = start + (high << 8 | low)
            if end > size or end - start > MAX_FRAME_BYTES:
                if end - start > MAX_FRAME_BYTES:
                    raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {end - start} bytes")
                need = end - at
                break
            at = end
            # The usual call is a block, then its body in one frame, both whole. Anything else goes by `_frame`.
            if what == _WHOLE_BLOCK and room > 0 and stream & 1 and self._newest < stream <= LAST_STREAM:
                block = data[start:end]
                head = memo.get(block)
                if head is None:
                    head = self._new_head(stream, block, events)
                    if head is None:
                        room = self._room()
                        continue
                self._newest = stream
                self.streams_seen += 1
                room -= 1
                if size - at >= HEADER_BYTES and head.content_length is None:
                    high, low, what, other = read_header(data, at)
                    start = at + HEADER_BYTES
                    end = start + (high << 8 | low)
                    if what == _LAST_DATA and other == stream and end <= size and end - start <= MAX_FRAME_BYTES:
                        at = end
                        waiting[stream] = 0
                        taken_bytes += end - start
                        add(Request(stream, head, data[start:end]))
                        continue
                receiving[stream] = head
                continue
            if what == _LAST_DATA and room >= 0:
                entry = receiving.get(stream)
                if entry.__class__ is Head and entry.content_length is None:
                    del receiving[stream]
                    waiting[stream] = 0
                    taken_bytes += end - start
                    add(Request(stream, entry, data[start:end]))
                    continue
            try:
                self._frame(what >> 8, what & 0xFF, stream & LAST_STREAM, data[start:end], events)
            except StreamFault as fault:
                self._on_stream_fault(fault, events)
            room = self._room()
        self._take(taken_bytes)
        self._uncredited_bytes += taken_bytes
        self._credit()
        self._need = need
        return at

    def _new_head(self, stream: int, block: bytes, events: list[Event]) -> Head | None:
        """The head of a new stream; None: it was refused."""
        try:
            return self._blocks.head(block)
        except (HeaderListTooLarge, MalformedFields) as bad:
            try:
                self._refuse_head(stream, END_HEADERS, bad)
            except StreamFault as fault:
                self._on_stream_fault(fault, events)
            return None

    def _room(self) -> int:
        """How many calls may begin by the short way now; -1: no frame may take it."""
        if self._blocks.stream or not self.settled:
            return -1
        return self._limits.streams - self.open_streams if self._accepting else 0

    def _take_preface(self, data: bytes) -> int:
        if not data.startswith(PREFACE):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is no HTTP/2 preface")
        self._preface = True
        return len(PREFACE)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        if not self.settled and (kind != frames.SETTINGS or flags & ACK):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is SETTINGS")
        if self._blocks.stream and (kind != CONTINUATION or stream != self._blocks.stream):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        if kind == HEADERS:
            self._on_headers(flags, stream, payload, events)
        elif kind == DATA:
            self._on_data(flags, stream, payload, events)
        elif kind == CONTINUATION:
            self._on_continuation(flags, payload, events)
        elif kind in self._CONTROL:
            self._CONTROL[kind](self, flags, stream, payload, events)
        else:
            self._spend(Abuse.UNKNOWN_FRAME)

    # ── what the owner's timer asks for ──────────────────────────────────────────────────────────────────────────

    @property
    def done(self) -> bool:
        """Nothing is left to do: it has finished, or it takes no new calls and all have ended."""
        return self.finished or (not self._accepting and not self.open_streams)

    def abandon(self, abuse: Abuse) -> None:
        """End the connection for what only its owner can see, such as a peer that takes too long."""
        if not self.finished:
            self._give_up(Flood(abuse))

    def overdue(self, before_us: int, now_us: int) -> bool:
        """Whether the peer has left something unfinished that it began before `before_us`.

        That is a frame, a header block, a request, or an answer for which it gives no window. Requests are noticed by
        the second look that finds them, `now_us - before_us` after the first at the earliest: the usual call then
        needs no time stamp of its own.
        """
        if self._rest and self._rest_since_us < before_us:
            return True
        if self._blocks.stream and self._blocks.since_us < before_us:
            return True
        if self._blocked_before(before_us):
            return True
        if self._mark_us > before_us:
            return False
        oldest = next(iter(self._receiving), LAST_STREAM)
        found = oldest <= self._mark_newest
        self._mark_us, self._mark_newest = now_us, self._newest
        return found

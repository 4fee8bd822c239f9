"""The receiving half of a connection: requests from their head to their last byte (RFC 9113 §5, §6.1, §8.1).

A stream's life, seen from here (push and client-side states do not exist):

    idle ──HEADERS──► receiving ──END_STREAM──► waiting ──answer──► closed
                          │                        │   └─ no window ─► sending ──► closed
                          └──────── RST_STREAM, a fault or an early answer ──────► closed

Each state is a dictionary by stream, so that the usual call costs two insertions and two removals:
`_receiving` holds the head (and what has come of the body), `_waiting` the send window that WINDOW_UPDATE
added, `_sending` what the window has not let out yet. A stream that is in none of them and not above
`_newest` is closed; above it, idle.
"""

from __future__ import annotations

from typing import Final, NoReturn

from ratelimit_service.wire.http2 import frames
from ratelimit_service.wire.http2.blocks import HeaderBlocks
from ratelimit_service.wire.http2.budgets import Abuse, Budgets
from ratelimit_service.wire.http2.events import Cancelled, ConnectionLimits, Event, Oversized, Request
from ratelimit_service.wire.http2.faults import ConnectionFault, Flood, StreamFault
from ratelimit_service.wire.http2.fields import Head, MalformedFields
from ratelimit_service.wire.http2.frames import (
    END_HEADERS,
    END_STREAM,
    LAST_STREAM,
    MAX_FRAME_BYTES,
    PADDED,
    PRIORITISED,
    ErrorCode,
)
from ratelimit_service.wire.http2.hpack import Field, HeaderListTooLarge
from ratelimit_service.wire.http2.sending import Outgoing
from ratelimit_service.wire.http2.uploads import Upload, unpad

_SELF_DEPENDENT: Final = 0x100
"""Beside a block's flags: the stream named itself as the one that it depends on."""
_MOST_CUT: Final = 1_024
"""Streams that are remembered after we ended them first."""
_CREDIT_BYTES: Final = 2**19
"""The connection's window is opened again when this much was taken out of it."""


class Incoming(Outgoing):
    """Takes HEADERS, CONTINUATION and DATA; `Connection` adds the frames that carry no request.

    Attributes:
        streams_seen: Calls begun so far.
    """

    __slots__ = (
        "_blocks", "_budgets", "_gone", "_limits", "_newest", "_receiving", "_uncredited_bytes", "_window",
        "_window_bytes", "streams_seen",
    )  # fmt: skip

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__()
        self._limits = limits
        self._budgets = Budgets(limits.streams)
        self._blocks = HeaderBlocks(limits)
        self._receiving: dict[int, Head | Upload] = {}
        self._newest = 0
        # Calls that were cancelled in this read.
        self._gone: set[int] = set()
        # One body of the greatest size must fit, whatever else is on its way.
        self._window_bytes = limits.body_bytes + 2 * _CREDIT_BYTES
        self._window = self._window_bytes
        self._uncredited_bytes = 0
        self.streams_seen = 0

    @property
    def open_streams(self) -> int:
        """Calls that are neither closed nor idle."""
        return len(self._receiving) + len(self._waiting) + len(self._sending)

    @property
    def held_bytes(self) -> int:
        """What is kept of requests that have not come whole."""
        return self._window_bytes - self._window - self._uncredited_bytes + self._blocks.held_bytes

    def _spend(self, what: Abuse) -> None:
        if not self._budgets.spend(what, self._now_us, self.answered):
            raise Flood(what)

    # ── header blocks ────────────────────────────────────────────────────────────────────────────────────────────

    def _on_headers(self, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        if not stream & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that no client opens")
        if flags & (PADDED | PRIORITISED):
            payload = unpad(flags, payload)
            if flags & PRIORITISED:
                if len(payload) < 5:
                    raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS shorter than its priority")
                if int.from_bytes(payload[:4], "big") & LAST_STREAM == stream:
                    # The block still has to pass the decoder, so the stream is refused after it.
                    flags |= _SELF_DEPENDENT
                payload = payload[5:]
        if flags & END_HEADERS:
            self._on_block(stream, flags, payload, events)
        else:
            self._blocks.begin(stream, flags, payload, self._now_us)

    def _on_continuation(self, flags: int, payload: bytes, events: list[Event]) -> None:
        blocks = self._blocks
        if not blocks.stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        blocks.extend(payload)
        if flags & END_HEADERS:
            stream = blocks.stream
            self._on_block(stream, blocks.flags, blocks.complete(), events)

    def _on_block(self, stream: int, flags: int, block: bytes, events: list[Event]) -> None:
        try:
            if stream <= self._newest:
                self._on_trailers(stream, flags, self._blocks.decode(block), events)
                return
            head = self._blocks.head(block)
        except (HeaderListTooLarge, MalformedFields) as bad:
            self._refuse_head(stream, flags, bad)
        self._open(stream, flags)
        if flags & _SELF_DEPENDENT:
            raise self._refusal(stream, flags, ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
        if flags & END_STREAM:
            self._complete(stream, head, b"", events)
        else:
            self._receiving[stream] = head

    def _refuse_head(self, stream: int, flags: int, bad: HeaderListTooLarge | MalformedFields) -> NoReturn:
        """End a stream for its block, which was decoded and is not taken."""
        self._open(stream, flags)
        if isinstance(bad, MalformedFields):
            raise self._refusal(stream, flags, ErrorCode.PROTOCOL_ERROR, str(bad)) from None
        self._spend(Abuse.HEADER_BLOCK)
        raise self._refusal(stream, flags, ErrorCode.ENHANCE_YOUR_CALM, "the header list is too large") from None

    def _open(self, stream: int, flags: int) -> None:
        """Begin a stream, or refuse it; one that has begun is passed over."""
        if stream <= self._newest:
            return
        self._newest = stream
        self.streams_seen += 1
        if not self._accepting:
            raise self._refusal(stream, flags, ErrorCode.REFUSED_STREAM, "draining")
        if self.open_streams >= self._limits.streams:
            self._spend(Abuse.STREAMS)
            raise self._refusal(stream, flags, ErrorCode.REFUSED_STREAM, "too many streams")

    def _refusal(self, stream: int, flags: int, code: ErrorCode, reason: str) -> StreamFault:
        """What ends a stream at its head; its body may be on its way."""
        if not flags & END_STREAM and stream not in self._receiving:
            self._remember_cut(stream)
        return StreamFault(stream, code, reason)

    def _on_trailers(self, stream: int, flags: int, fields: list[Field], events: list[Event]) -> None:
        entry = self._receiving.get(stream)
        if entry is None:
            if stream in self._cut:
                return
            # After END_STREAM or RST_STREAM nothing but RST, PRIORITY and WINDOW_UPDATE may come (§5.1).
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")
        if not flags & END_STREAM:
            raise StreamFault(stream, ErrorCode.PROTOCOL_ERROR, "a second block that does not end the stream")
        self._blocks.reader.check_trailers(fields)
        if isinstance(entry, Upload):
            self._complete(stream, entry.head, bytes(entry.body), events, entry.opened)
        else:
            self._complete(stream, entry, b"", events)

    # ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_data(self, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        if stream > self._newest or not stream & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on an idle stream")
        length = len(payload)
        self._take(length)
        entry = self._receiving.get(stream)
        if entry is None:
            self._uncredited_bytes += length
            self._pass_over(flags, stream)
            return
        upload = entry if isinstance(entry, Upload) else Upload(entry)
        self._receiving[stream] = upload
        # It is opened again at half, and no frame is longer than that: it cannot be passed.
        upload.window -= length
        body = unpad(flags, payload)
        self._uncredited_bytes += length - len(body)
        upload.body += body
        if len(upload.body) > self._limits.body_bytes:
            self._cut_off(stream, upload, flags, events)
        elif flags & END_STREAM:
            self._complete(stream, upload.head, bytes(upload.body), events, upload.opened)
        else:
            if not body:
                self._spend(Abuse.EMPTY_DATA)
            if upload.window < frames.DEFAULT_WINDOW // 2:
                self._out.append(frames.window_update(stream, frames.DEFAULT_WINDOW - upload.window))
                upload.window = frames.DEFAULT_WINDOW
            self._make_room()

    def _pass_over(self, flags: int, stream: int) -> None:
        """Take DATA that nobody reads."""
        self._spend(Abuse.EMPTY_DATA)
        if stream not in self._cut:
            raise StreamFault(stream, ErrorCode.STREAM_CLOSED, "DATA after the end of the request")
        if flags & END_STREAM:
            del self._cut[stream]

    def _cut_off(self, stream: int, upload: Upload, flags: int, events: list[Event]) -> None:
        del self._receiving[stream]
        self._uncredited_bytes += len(upload.body)
        if not flags & END_STREAM:
            self._remember_cut(stream)
        self._waiting[stream] = upload.opened
        events.append(Oversized(stream, upload.head))

    def _make_room(self) -> None:
        """Refuse the newest bodies when the window would shut before any has ended: they would wait for each other."""
        while self._window + self._uncredited_bytes <= _CREDIT_BYTES + MAX_FRAME_BYTES:
            # There are two at least: one of the greatest size leaves more than this.
            newest = next(stream for stream, entry in reversed(self._receiving.items()) if isinstance(entry, Upload))
            self._drop(newest, ErrorCode.REFUSED_STREAM)

    def _complete(self, stream: int, head: Head, body: bytes, events: list[Event], opened: int = 0) -> None:
        self._receiving.pop(stream, None)
        self._uncredited_bytes += len(body)
        if head.content_length is not None and head.content_length != len(body):
            raise StreamFault(stream, ErrorCode.PROTOCOL_ERROR, "content-length and body differ")
        self._waiting[stream] = opened
        events.append(Request(stream, head, body))

    def _take(self, length: int) -> None:
        self._window -= length
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window")

    def _credit(self) -> None:
        """Give back what was taken out of the connection's window, rarely."""
        if self._uncredited_bytes > _CREDIT_BYTES:
            self._out.append(frames.window_update(0, self._uncredited_bytes))
            self._window += self._uncredited_bytes
            self._uncredited_bytes = 0

    def _resize_windows(self) -> None:
        opened = [entry.opened for entry in self._receiving.values() if isinstance(entry, Upload)]
        if self._peer.initial_window + max(opened, default=0) > frames.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window passes 2^31-1")
        super()._resize_windows()

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def reset(self, stream: int, code: ErrorCode) -> None:
        """End one call from our side; a closed stream is passed over."""
        if stream in self._receiving or stream in self._waiting or stream in self._sending:
            self._drop(stream, code)

    def _on_stream_fault(self, fault: StreamFault, events: list[Event]) -> None:
        if fault.stream > self._newest or not fault.stream & 1:
            # RST_STREAM may not be sent on an idle stream (§6.4).
            raise ConnectionFault(fault.code, fault.reason)
        if fault.code is not ErrorCode.REFUSED_STREAM:
            self._spend(Abuse.RAPID_RESET)
        self._cancel(fault.stream, events)
        self._drop(fault.stream, fault.code)

    def _cancel(self, stream: int, events: list[Event]) -> None:
        if stream in self._waiting or stream in self._sending:
            events.append(Cancelled(stream))
            self._gone.add(stream)

    def _without_gone(self, events: list[Event]) -> list[Event]:
        """Leave out the calls that ended in the same read in which they came: nobody waits for what they would cost."""
        begun = {event.stream for event in events if event.__class__ is not Cancelled}
        unseen = begun & self._gone
        return [event for event in events if event.stream not in unseen]

    def _forget(self, stream: int) -> None:
        entry = self._receiving.pop(stream, None)
        if isinstance(entry, Upload):
            self._uncredited_bytes += len(entry.body)
        self._waiting.pop(stream, None)
        self._sending.pop(stream, None)

    def _drop(self, stream: int, code: ErrorCode) -> None:
        if stream in self._receiving:
            self._remember_cut(stream)
        self._forget(stream)
        self._out.append(frames.rst_stream(stream, code))

    def _remember_cut(self, stream: int) -> None:
        if len(self._cut) >= _MOST_CUT:
            del self._cut[next(iter(self._cut))]
        self._cut[stream] = None

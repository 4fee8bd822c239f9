"""Frames that carry no request: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, RST_STREAM, PRIORITY (RFC 9113 §6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from ratelimit_service.wire.http2 import frames
from ratelimit_service.wire.http2.budgets import Abuse
from ratelimit_service.wire.http2.events import ConnectionLimits, Event
from ratelimit_service.wire.http2.faults import ConnectionFault, StreamFault
from ratelimit_service.wire.http2.frames import ACK, LAST_STREAM, MAX_WINDOW, PRIORITY, RST_STREAM, ErrorCode
from ratelimit_service.wire.http2.receiving import Incoming
from ratelimit_service.wire.http2.uploads import Upload

_LEAVING: Final = b"tidegate"
"""Opaque bytes of the PING that follows the first GOAWAY: its answer shows that the peer has read both."""


class ControlFrames(Incoming):
    """Takes the frames that carry no request; `Connection` finds the frames in the bytes.

    Attributes:
        settled: The peer's preface and SETTINGS have come.
        finished: Nothing more is read; close the transport once `output()` is written.
    """

    __slots__ = ("_announced", "_last_taken", "finished", "settled")

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__(limits)
        self._announced = False
        # What the second GOAWAY named; a later one may not name more (§6.8).
        self._last_taken = LAST_STREAM
        self.settled = False
        self.finished = False

    def _on_priority(self, _flags: int, stream: int, payload: bytes, _events: list[Event]) -> None:
        if stream == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on the connection")
        self._spend(Abuse.PRIORITY)
        if len(payload) != 5:
            raise StreamFault(stream, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is 5 bytes")
        if int.from_bytes(payload[:4], "big") & LAST_STREAM == stream:
            raise StreamFault(stream, ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")

    def _on_rst_stream(self, _flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        if stream > self._newest or not stream & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM is 4 bytes")
        unanswered = stream in self._receiving or stream in self._waiting
        self._cancel(stream, events)
        self._forget(stream)
        self._cut.pop(stream, None)
        if unanswered:
            self._spend(Abuse.RAPID_RESET)

    def _on_settings(self, flags: int, stream: int, payload: bytes, _events: list[Event]) -> None:
        if stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
        self._spend(Abuse.SETTINGS)
        if flags & ACK:
            return
        self.settled = True
        resized = self._peer.apply(payload)
        # Before the DATA that a wider window lets go: the peer then sees what it follows from.
        self._out.append(frames.SETTINGS_ACK)
        if resized:
            self._resize_windows()

    def _on_push_promise(self, _flags: int, _stream: int, _payload: bytes, _events: list[Event]) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _on_ping(self, flags: int, stream: int, payload: bytes, _events: list[Event]) -> None:
        if stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING is 8 bytes")
        self._spend(Abuse.PING)
        if not flags & ACK:
            self._out.append(frames.ping_ack(payload))
        elif self._announced and payload == _LEAVING:
            self.refuse_new()

    def _on_goaway(self, _flags: int, stream: int, payload: bytes, _events: list[Event]) -> None:
        # We push nothing, so there is nothing to stop; the peer closes when its calls have ended.
        if stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is at least 8 bytes")
        self._spend(Abuse.UNKNOWN_FRAME)

    def _on_window_update(self, _flags: int, stream: int, payload: bytes, _events: list[Event]) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is 4 bytes")
        if stream and (stream > self._newest or not stream & 1):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
        self._spend(Abuse.WINDOW_UPDATE)
        increment = int.from_bytes(payload, "big") & MAX_WINDOW
        if increment == 0:
            if stream:
                raise StreamFault(stream, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        entry = self._receiving.get(stream)
        if entry is None:
            self._widen(stream, increment)
            return
        # The answer's window may be opened before the request has ended.
        upload = self._receiving[stream] = entry if isinstance(entry, Upload) else Upload(entry)
        upload.opened += increment
        if self._peer.initial_window + upload.opened > MAX_WINDOW:
            raise StreamFault(stream, ErrorCode.FLOW_CONTROL_ERROR, "the stream's window passes 2^31-1")

    def announce_end(self) -> None:
        """Begin a graceful end: tell the peer to open no more streams, and go on taking those on their way (§6.8).

        The second step follows by itself when the peer has shown that it heard.
        """
        if not self._announced and not self.finished:
            self._announced = True
            self._out.append(frames.goaway(LAST_STREAM, ErrorCode.NO_ERROR))
            self._out.append(frames.frame(frames.PING, 0, 0, _LEAVING))

    def refuse_new(self) -> None:
        """Take the second step: streams from now on are refused; those below go on."""
        if self._accepting and not self.finished:
            self._accepting = False
            self._last_taken = self._newest
            self._out.append(frames.goaway(self._newest, ErrorCode.NO_ERROR))

    _CONTROL: ClassVar[Mapping[int, Callable[[ControlFrames, int, int, bytes, list[Event]], None]]] = {
        PRIORITY: _on_priority,
        RST_STREAM: _on_rst_stream,
        frames.SETTINGS: _on_settings,
        frames.PUSH_PROMISE: _on_push_promise,
        frames.PING: _on_ping,
        frames.GOAWAY: _on_goaway,
        frames.WINDOW_UPDATE: _on_window_update,
    }

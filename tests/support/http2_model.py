"""What RFC 9113 lets a server do with each frame in each state of its stream, written from the RFC alone.

The model knows the states of §5.1 (those of a server that pushes nothing), flow control (§5.2, §6.9) and the
rules of each frame (§6). For a frame it says which reactions are allowed; what the server then writes is checked
against what it owes and what the peer's windows let through. Fields are judged by the packages hpack and h2.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import NamedTuple

import hpack
from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers

from support.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
)

MOST_WINDOW = 2**31 - 1
MOST_FRAME = 16_384
FIRST_WINDOW = 65_535
NO_ERROR, PROTOCOL, FLOW_CONTROL, STREAM_CLOSED, FRAME_SIZE, REFUSED = 0, 1, 3, 5, 6, 7
COMPRESSION, CALM = 9, 11


class Scope(enum.Enum):
    """How far a frame's consequence reaches."""

    QUIET = "quiet"
    STREAM = "stream"
    CONNECTION = "connection"


class Reaction(NamedTuple):
    """What a server made of a frame; the code is an error's."""

    scope: Scope
    code: int = NO_ERROR


QUIET = Reaction(Scope.QUIET)


def _stream(code: int) -> set[Reaction]:
    """A stream error; any may be made one of the connection (§5.4.1)."""
    return {Reaction(Scope.STREAM, code), Reaction(Scope.CONNECTION, code)}


def _connection(code: int) -> set[Reaction]:
    return {Reaction(Scope.CONNECTION, code)}


class State(enum.Enum):
    """§5.1, as a server sees it that pushes nothing."""

    IDLE = "idle"
    OPEN = "open"
    HALF_CLOSED = "half-closed (remote)"
    CLOSED = "closed"


class Block(enum.Enum):
    """What a header block holds."""

    REQUEST = "request"
    TRAILERS = "regular fields"
    MALFORMED = "malformed"
    TOO_LARGE = "larger than advertised"
    UNDECODABLE = "undecodable"


@dataclasses.dataclass
class Stream:
    """One stream.

    Attributes:
        told: Its owner knows of it and has not ended it.
        oversized: Its body passed the limit, so that the rest is passed over.
        ended: The peer has ended it, or was told that it has: what still comes is a fault, even if it is passed over.
        forgiven: We ended it first: what was on its way is passed over (§5.1).
        declared: Its content-length, None: there is none.
        body: What came of it.
        unread: Window that we gave for it, less what came.
        opened: Window that the peer gave for the answer beyond its initial one, less what was sent.
        owed: Bytes of the answer that the owner handed over and that were not written yet.
        ending: The owner handed over the answer's end.
        begun: The answer's first block was written.
    """

    state: State = State.OPEN
    told: bool = False
    oversized: bool = False
    ended: bool = False
    forgiven: bool = False
    declared: int | None = None
    body: bytes = b""
    unread: int = FIRST_WINDOW
    opened: int = 0
    owed: int = 0
    ending: bool = False
    begun: bool = False


_PASSED_BY = Stream(State.CLOSED)
"""Any stream that was idle when a later one began (§5.1.1)."""


class Model:
    """One connection past its preface and the peer's SETTINGS.

    Args:
        most_streams: Streams that may be open at once.
        most_body: Longest body.
        most_list: Largest header list.
    """

    def __init__(self, most_streams: int, most_body: int, most_list: int) -> None:
        self.most_streams, self.most_body = most_streams, most_body
        self.streams: dict[int, Stream] = {}
        self.newest = 0
        self.announced = self.refuses = False
        self.window, self.initial = FIRST_WINDOW, FIRST_WINDOW
        self.unread = FIRST_WINDOW
        self.last_stream = MOST_WINDOW
        self.block: list[bytes] | None = None
        self.block_stream = self.block_flags = 0
        self._block_names_itself = False
        self._declared: int | None = None
        self.ended = False
        self._theirs = hpack.Decoder(max_header_list_size=10**6)
        self._ours = hpack.Decoder()
        self._most_list = most_list

    # ── what is allowed ──────────────────────────────────────────────────────────────────────────────────────────

    def state_of(self, number: int) -> State:
        if number > self.newest or number % 2 == 0:
            return State.IDLE
        known = self.streams.get(number)
        return State.CLOSED if known is None else known.state

    @property
    def open_count(self) -> int:
        """Streams that count against the limit (§5.1.2)."""
        return sum(each.state in (State.OPEN, State.HALF_CLOSED) for each in self.streams.values())

    def allowed(self, each: Frame) -> set[Reaction]:
        """The reactions that the RFC leaves to a server; several faults leave several."""
        if len(each.payload) > MOST_FRAME:
            return _stream(FRAME_SIZE)
        if self.block is not None and (each.kind != CONTINUATION or each.stream != self.block_stream):
            return _connection(PROTOCOL)
        rules = {
            DATA: self._data, HEADERS: self._headers, PRIORITY: self._priority, RST_STREAM: self._rst_stream,
            SETTINGS: self._settings, PUSH_PROMISE: lambda _: _connection(PROTOCOL), PING: self._ping,
            GOAWAY: self._goaway, WINDOW_UPDATE: self._window_update, CONTINUATION: self._continuation,
        }  # fmt: skip
        found = rules[each.kind](each) if each.kind in rules else set()
        return found or {QUIET}

    def _data(self, each: Frame) -> set[Reaction]:
        if self.state_of(each.stream) is State.IDLE:
            return _connection(PROTOCOL)
        known = self.streams.get(each.stream, _PASSED_BY)
        reads = known.state is State.OPEN and not known.oversized
        if len(each.payload) > (min(self.unread, known.unread) if reads else self.unread):
            return _stream(FLOW_CONTROL)
        found = set() if _pads_well(each) else _connection(PROTOCOL)
        if known.oversized or known.forgiven:
            return found | {QUIET} | (_stream(STREAM_CLOSED) if known.ended else set())
        if known.state is not State.OPEN:
            return found | _stream(STREAM_CLOSED)
        return found or self._whole_body(known, each.flags, known.body + _unpadded(each))

    def _headers(self, each: Frame) -> set[Reaction]:
        if each.stream % 2 == 0:
            return _connection(PROTOCOL)
        if not _pads_well(each):
            return _connection(PROTOCOL)
        if each.flags & PRIORITISED and len(_unpadded(each)) < 5:
            return _connection(FRAME_SIZE)
        if not each.flags & END_HEADERS:
            return set()
        return self._whole_block(each.stream, each.flags, _after_priority(each), _names_itself(each))

    def _continuation(self, each: Frame) -> set[Reaction]:
        if self.block is None:
            return _connection(PROTOCOL)
        if not each.flags & END_HEADERS:
            return set()
        data = b"".join(self.block) + each.payload
        return self._whole_block(self.block_stream, self.block_flags, data, self._block_names_itself)

    def _whole_block(self, number: int, flags: int, data: bytes, names_itself: bool) -> set[Reaction]:
        what = self._read(data, trailers=number <= self.newest)
        if what is Block.UNDECODABLE:
            return _connection(COMPRESSION)
        found = self._begun(number, flags, what) if number <= self.newest else self._opening(flags, what)
        # A rule of RFC 7540 that RFC 9113 does not repeat.
        return (found or {QUIET}) | _stream(PROTOCOL) if names_itself else found

    def _begun(self, number: int, flags: int, what: Block) -> set[Reaction]:
        """A block on a stream that is not idle."""
        known = self.streams.get(number, _PASSED_BY)
        found = {Reaction(Scope.STREAM, CALM)} if what is Block.TOO_LARGE else set()
        if known.oversized or known.forgiven:
            return found | {QUIET} | (_stream(STREAM_CLOSED) if known.ended else set())
        if known.state is not State.OPEN:
            # An identifier that was passed over is an unexpected one as well (§5.1.1).
            return found | _stream(STREAM_CLOSED) | _connection(PROTOCOL)
        if what is Block.MALFORMED or not flags & END_STREAM:
            found |= _stream(PROTOCOL)
        return found or self._whole_body(known, flags, known.body)

    def _opening(self, flags: int, what: Block) -> set[Reaction]:
        """A block on an idle stream."""
        found = {Reaction(Scope.STREAM, CALM)} if what is Block.TOO_LARGE else set()
        if what is Block.MALFORMED:
            found |= _stream(PROTOCOL)
        if self.refuses or self.open_count >= self.most_streams:
            found |= {Reaction(Scope.STREAM, REFUSED)}
        return found or self._whole_body(Stream(declared=self._declared), flags, b"")

    def _whole_body(self, known: Stream, flags: int, body: bytes) -> set[Reaction]:
        """A request that ends must be as long as it said (§8.1.1)."""
        ends = flags & END_STREAM and len(body) <= self.most_body
        return _stream(PROTOCOL) if ends and known.declared not in (None, len(body)) else set()

    def _priority(self, each: Frame) -> set[Reaction]:
        if each.stream == 0:
            return _connection(PROTOCOL)
        if len(each.payload) != 5:
            # No RST_STREAM may be sent on an idle stream (§6.4).
            return _connection(FRAME_SIZE) if self.state_of(each.stream) is State.IDLE else _stream(FRAME_SIZE)
        if int.from_bytes(each.payload[:4], "big") & MOST_WINDOW == each.stream:
            idle = self.state_of(each.stream) is State.IDLE
            return {QUIET} | (_connection(PROTOCOL) if idle else _stream(PROTOCOL))
        return set()

    def _rst_stream(self, each: Frame) -> set[Reaction]:
        found = _connection(FRAME_SIZE) if len(each.payload) != 4 else set()
        return found | (_connection(PROTOCOL) if self.state_of(each.stream) is State.IDLE else set())

    def _settings(self, each: Frame) -> set[Reaction]:
        found = _connection(PROTOCOL) if each.stream else set()
        if len(each.payload) % 6 or (each.flags & ACK and each.payload):
            return found | _connection(FRAME_SIZE)
        initial = self.initial
        for key, value in _pairs(each.payload):
            if key == 2 and value > 1:
                found |= _connection(PROTOCOL)
            elif key == 4 and value > MOST_WINDOW:
                found |= _connection(FLOW_CONTROL)
            elif key == 4:
                initial = value
            elif key == 5 and not MOST_FRAME <= value < 2**24:
                found |= _connection(PROTOCOL)
        if any(initial + known.opened > MOST_WINDOW for known in self._answerable()):
            found |= _connection(FLOW_CONTROL)
        return found

    def _ping(self, each: Frame) -> set[Reaction]:
        found = _connection(PROTOCOL) if each.stream else set()
        return found | (_connection(FRAME_SIZE) if len(each.payload) != 8 else set())

    def _goaway(self, each: Frame) -> set[Reaction]:
        found = _connection(PROTOCOL) if each.stream else set()
        return found | (_connection(FRAME_SIZE) if len(each.payload) < 8 else set())

    def _window_update(self, each: Frame) -> set[Reaction]:
        state = self.state_of(each.stream)
        found = _connection(FRAME_SIZE) if len(each.payload) != 4 else set()
        if each.stream and state is State.IDLE:
            return found | _connection(PROTOCOL)
        if found:
            return found
        increment = each.word & MOST_WINDOW
        if each.stream == 0:
            if increment == 0:
                return _connection(PROTOCOL)
            return _connection(FLOW_CONTROL) if self.window + increment > MOST_WINDOW else set()
        if state is State.CLOSED:
            return {QUIET} | (_stream(PROTOCOL) if increment == 0 else set())
        if increment == 0:
            return _stream(PROTOCOL)
        over = self.initial + self.streams[each.stream].opened + increment > MOST_WINDOW
        return _stream(FLOW_CONTROL) if over else set()

    def _read(self, data: bytes, *, trailers: bool) -> Block:
        """What the block holds; read once, since the decoder's table goes with it."""
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._theirs.decode(data, raw=True)]
        except hpack.HPACKError:
            return Block.UNDECODABLE
        if sum(len(name) + len(value) + 32 for name, value in fields) > self._most_list:
            return Block.TOO_LARGE
        try:
            list(validate_headers(fields, HeaderValidationFlags(False, trailers, False, False)))
        except ProtocolError:
            return Block.MALFORMED
        declared = dict(fields).get(b"content-length")
        self._declared = None if declared is None else int(declared)
        return Block.TRAILERS if trailers else Block.REQUEST

    def _answerable(self) -> list[Stream]:
        return [each for each in self.streams.values() if each.state in (State.OPEN, State.HALF_CLOSED)]

    # ── what follows ─────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, each: Frame, reaction: Reaction) -> list[tuple[str, int, bytes]]:
        """Go where `reaction` leads; what the owner must be told, as (kind, stream, body)."""
        if reaction.scope is Scope.CONNECTION:
            self.ended = True
            return []
        number, flags = each.stream, each.flags
        if each.kind == DATA:
            self.unread -= len(each.payload)
        if each.kind in (HEADERS, CONTINUATION):
            if each.kind == HEADERS:
                self.block, self.block_stream, self.block_flags = [_after_priority(each)], number, flags
                self._block_names_itself = _names_itself(each)
            else:
                assert self.block is not None
                self.block.append(each.payload)
            if not flags & END_HEADERS:
                return []
            number, flags, self.block = self.block_stream, self.block_flags, None
        if each.kind in (DATA, HEADERS, CONTINUATION):
            return self._take_part(each, number, bool(flags & END_STREAM), reaction)
        if reaction.scope is Scope.STREAM:
            return self._end(number, by_us=True)
        if each.kind == RST_STREAM:
            return self._end(number, by_us=False)
        if each.kind == WINDOW_UPDATE and number == 0:
            self.window += each.word & MOST_WINDOW
        elif each.kind == WINDOW_UPDATE and number in self.streams:
            self.streams[number].opened += each.word & MOST_WINDOW
        elif each.kind == SETTINGS and not flags & ACK:
            self.initial = next((value for key, value in reversed(_pairs(each.payload)) if key == 4), self.initial)
        return []

    def _take_part(self, each: Frame, number: int, ends: bool, reaction: Reaction) -> list[tuple[str, int, bytes]]:
        if number > self.newest:
            self.newest = number
            self.streams[number] = Stream(declared=self._declared)
        known = self.streams.get(number)
        if known is None:
            # One that was passed over: it is known from when we reset it.
            if reaction.scope is Scope.STREAM:
                self.streams[number] = Stream(State.CLOSED, ended=True, forgiven=True)
            return []
        if each.kind == DATA:
            known.unread -= len(each.payload)
        known.ended = known.ended or ends
        if ends and known.state is State.OPEN:
            known.state = State.HALF_CLOSED
        if reaction.scope is Scope.STREAM:
            return self._end(number, by_us=True)
        if known.state is State.CLOSED or known.oversized:
            return []
        known.body += _unpadded(each) if each.kind == DATA else b""
        if len(known.body) > self.most_body:
            known.told = known.oversized = True
            known.body = b""
            return [("Oversized", number, b"")]
        if known.state is State.HALF_CLOSED:
            known.told = True
            return [("Request", number, known.body)]
        return []

    def _end(self, number: int, *, by_us: bool) -> list[tuple[str, int, bytes]]:
        known = self.streams.get(number)
        if known is None or known.state is State.CLOSED:
            if known is not None:
                # Reset once more: it may be passed over or refused from now on.
                known.forgiven, known.ended = by_us, True
            return []
        self._close(known, by_us=by_us)
        told, known.told = known.told, False
        return [("Cancelled", number, b"")] if told else []

    def reset(self, number: int) -> None:
        """The owner ends a stream."""
        self._end(number, by_us=True)

    # ── what is written ──────────────────────────────────────────────────────────────────────────────────────────

    def see(self, written: Frame) -> None:
        """Check one frame that the server wrote and that needs no question."""
        number = written.stream
        assert len(written.payload) <= MOST_FRAME
        if written.kind == DATA:
            self._see_data(written)
        elif written.kind == HEADERS:
            self._see_headers(written)
        elif written.kind == RST_STREAM:
            assert self.state_of(number) is not State.IDLE, "RST_STREAM on an idle stream"
        elif written.kind == WINDOW_UPDATE:
            assert written.word > 0
            assert number == 0 or self.state_of(number) is not State.IDLE
            self.unread += written.word if number == 0 else 0
            if number in self.streams:
                self.streams[number].unread += written.word
                assert self.streams[number].unread <= MOST_WINDOW
            assert self.unread <= MOST_WINDOW
        elif written.kind == GOAWAY:
            last = int.from_bytes(written.payload[:4], "big")
            assert number == 0
            assert last <= self.last_stream, "the last stream of GOAWAY grew"
            self.last_stream = last

    def _see_data(self, written: Frame) -> None:
        known = self.streams[written.stream]
        size = len(written.payload)
        assert known.begun
        assert known.told, "DATA on a stream that has ended"
        assert size == 0 or size <= min(self.window, self.initial + known.opened), "DATA past the peer's window"
        assert size <= known.owed
        self.window -= size
        known.opened -= size
        known.owed -= size
        if written.flags & END_STREAM:
            self._ended_by_us(known)

    def _see_headers(self, written: Frame) -> None:
        known = self.streams[written.stream]
        assert known.told, "HEADERS on a stream that has ended"
        assert written.flags & END_HEADERS
        fields = dict(self._ours.decode(written.payload, raw=True))
        assert (b":status" in fields) is not known.begun
        known.begun = True
        if written.flags & END_STREAM:
            self._ended_by_us(known)

    def _ended_by_us(self, known: Stream) -> None:
        assert known.owed == 0
        assert known.ending
        known.told = False
        self._close(known, by_us=not known.ended)

    @staticmethod
    def _close(known: Stream, *, by_us: bool) -> None:
        known.forgiven = by_us
        known.state = State.CLOSED

    def check(self) -> None:
        """What holds between any two frames."""
        assert self.window <= MOST_WINDOW
        assert self.unread >= MOST_FRAME, "the peer cannot send"
        for known in self._answerable():
            assert known.oversized or known.unread >= MOST_FRAME, "the peer cannot go on"
            room = min(self.window, self.initial + known.opened)
            if known.owed:
                assert room <= 0, "an answer waits although there is room"
            elif known.begun:
                assert not known.ending, "an answer that was handed over whole has not ended"

    @property
    def held(self) -> int:
        """Bytes of requests that have not come whole, CONTINUATION's frame headers included."""
        bodies = sum(len(each.body) for each in self.streams.values() if each.state is State.OPEN)
        parts = self.block or []
        return bodies + sum(map(len, parts)) + 9 * max(len(parts) - 1, 0)


def _pairs(payload: bytes) -> list[tuple[int, int]]:
    return [
        (int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big"))
        for at in range(0, len(payload), 6)
    ]


def _pads_well(each: Frame) -> bool:
    return not each.flags & PADDED or (each.payload != b"" and each.payload[0] < len(each.payload))


def _unpadded(each: Frame) -> bytes:
    return each.payload[1 : len(each.payload) - each.payload[0]] if each.flags & PADDED else each.payload


def _after_priority(each: Frame) -> bytes:
    return _unpadded(each)[5 if each.flags & PRIORITISED else 0 :]


def _names_itself(each: Frame) -> bool:
    return bool(each.flags & PRIORITISED) and int.from_bytes(_unpadded(each)[:4], "big") & MOST_WINDOW == each.stream

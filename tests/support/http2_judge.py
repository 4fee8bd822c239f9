"""Drives a connection frame by frame beside the model of the RFC, and a twin that gets the bytes cut anywhere."""

from __future__ import annotations

from ratelimit_service.wire.grpc.calls import OK_TRAILERS, RESPONSE_HEAD
from ratelimit_service.wire.http2.connection import Connection
from ratelimit_service.wire.http2.events import ConnectionLimits, Event
from ratelimit_service.wire.http2.frames import ErrorCode
from ratelimit_service.wire.http2.sending import Form
from support import http2_frames
from support.http2_frames import ACK, GOAWAY, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Frame, parse
from support.http2_model import NO_ERROR, Model, Reaction, Scope

LIMITS = ConnectionLimits(streams=3, body_bytes=100, header_list_bytes=1_000, memo_blocks=4)
FORM = Form(RESPONSE_HEAD, OK_TRAILERS)
LEAVING = b"tidegate"
SECOND_US = 1_000_000
MOST_BEHIND_BYTES = 200
"""Of the twin. Few enough frames that they are no flood in one read; else each frame has a second for itself."""
Told = tuple[str, int, bytes]


def _told(events: list[Event]) -> list[Told]:
    return [(type(each).__name__, each.stream, getattr(each, "body", b"")) for each in events]


def _lasting(told: list[Told]) -> list[Told]:
    """Without the calls that came and went: whether those are told depends on the reads."""
    begun = {number for kind, number, _ in told if kind != "Cancelled"}
    gone = {number for kind, number, _ in told if kind == "Cancelled"} & begun
    return [each for each in told if each[1] not in gone]


def _credit_apart(written: bytes) -> tuple[int, list[Frame]]:
    """The connection's credit as one sum, since it is given once per read, and all other frames."""
    frames = parse(written)
    credit = [each for each in frames if each.kind == WINDOW_UPDATE and each.stream == 0]
    return sum(each.word for each in credit), [each for each in frames if each not in credit]


def _short(each: Frame) -> Frame:
    """For messages: long payloads are cut."""
    return each._replace(payload=each.payload[:40])


class Judge:
    """Every method does one thing to the connection and fails where it, its twin and the model do not agree.

    Args:
        kind: The connection's class; a mutant in tests of the judge.

    Attributes:
        busy: A frame is on its way, or was found wrong.
    """

    def __init__(self, kind: type[Connection] = Connection) -> None:
        self.connection, self.twin = kind(LIMITS), kind(LIMITS)
        self.model = Model(LIMITS.streams, LIMITS.body_bytes, LIMITS.header_list_bytes)
        self.busy = False
        self._now_us = 0
        self._twin_unread = b""
        self._told: list[Told] = []
        self._twin_told: list[Told] = []
        self._written = self._twin_written = b""
        for each in (self.connection, self.twin):
            each.receive(PREFACE + http2_frames.settings(), self._now_us)
        self._twin_written = self.twin.output()
        for written in self._output():
            if written.kind != SETTINGS:
                self.model.see(written)

    # ── what the peer does ───────────────────────────────────────────────────────────────────────────────────────

    def frame(self, each: Frame, twin_bytes: int | None = None) -> Reaction | None:
        """One frame comes; of what the twin has not got yet it gets `twin_bytes`, None: all.

        Returns:
            What the connection made of it; None: the connection had ended before.
        """
        if self.model.ended:
            return None
        self.busy = True
        data = http2_frames.frame(*each)
        allowed = self.model.allowed(each)
        self._now_us += SECOND_US
        told = _told(self.connection.receive(data, self._now_us))
        self._told += told
        written = self._output()
        reaction = self._reaction(each, written)
        assert reaction in allowed, f"{reaction} to {_short(each)}, of {sorted(allowed, key=str)}"
        expected = self.model.take(each, reaction)
        assert told == expected, f"told {told} of {_short(each)}, of {expected}"
        self._see(written, each, reaction)
        self._check()
        self._twin_unread += data
        behind = len(self._twin_unread)
        self._feed_twin(behind if twin_bytes is None or behind > MOST_BEHIND_BYTES else twin_bytes)
        self.busy = False
        return reaction

    def _reaction(self, each: Frame, written: list[Frame]) -> Reaction:
        if self.connection.finished:
            assert written[-1].kind == GOAWAY
            return Reaction(Scope.CONNECTION, int.from_bytes(written[-1].payload[4:8], "big"))
        subject = self.model.block_stream if each.kind == http2_frames.CONTINUATION else each.stream
        resets = [reset for reset in written if reset.kind == RST_STREAM and reset.word != NO_ERROR]
        assert all(reset.stream == subject for reset in resets), "another stream was reset"
        return Reaction(Scope.STREAM, resets[0].word) if resets else Reaction(Scope.QUIET)

    def _see(self, written: list[Frame], each: Frame, reaction: Reaction) -> None:
        """Check what the frame's kind calls for, and leave the rest to the model."""
        quiet = reaction.scope is Scope.QUIET
        asks = quiet and each.kind == PING and not each.flags & ACK
        due = [Frame(PING, ACK, 0, each.payload)] if asks else []
        if quiet and each.kind == SETTINGS and not each.flags & ACK:
            due = [Frame(SETTINGS, ACK, 0, b"")]
        # SETTINGS that end the connection may be acknowledged first.
        assert [one for one in written if one.kind in (PING, SETTINGS)] == due or self.model.ended
        assert not due or written[0] == due[0], "an acknowledgement comes after what follows from it"
        answers = self.model.announced and each.kind == PING and each.flags & ACK and each.payload == LEAVING
        if quiet and answers and not self.model.refuses:
            self.model.refuses = True
            assert [one.kind for one in written] == [GOAWAY]
        elif reaction.scope is not Scope.CONNECTION:
            assert GOAWAY not in {one.kind for one in written}
        for one in written:
            if one.kind not in (PING, SETTINGS):
                self.model.see(one)

    # ── what the owner does ──────────────────────────────────────────────────────────────────────────────────────

    def answer(self, number: int, size: int) -> None:
        """Answer a call whole."""
        if self._promise(number, size, ends=True, first=True):
            self._act(lambda each: each.answer(number, FORM, bytes(size)))

    def answer_bare(self, number: int) -> None:
        """Answer a call without a message."""
        if self._promise(number, 0, ends=True, first=True):
            self._act(lambda each: each.answer_bare(number, RESPONSE_HEAD))

    def begin(self, number: int) -> None:
        """Begin an answer."""
        if self._promise(number, 0, ends=False, first=True):
            self._act(lambda each: each.begin(number, RESPONSE_HEAD))

    def send(self, number: int, size: int, trailers: bytes | None) -> None:
        """Go on with an answer that was begun."""
        if self._promise(number, size, ends=trailers is not None, first=False):
            self._act(lambda each: each.send(number, bytes(size), trailers))

    def _promise(self, number: int, size: int, *, ends: bool, first: bool) -> bool:
        """Note what the call is owed; False: an owner would not do this."""
        known = self.model.streams.get(number)
        if known is None or not known.told:
            # It is closed or not told: nothing may come of it.
            return True
        if known.begun is first or known.ending:
            return False
        known.owed, known.ending = known.owed + size, ends
        return True

    def reset(self, number: int) -> None:
        """Give a call up."""
        known = self.model.streams.get(number)
        if known is not None and known.told:
            self.model.reset(number)
            self._act(lambda each: each.reset(number, ErrorCode.CANCEL))

    def announce_end(self) -> None:
        """Begin to leave."""
        self._act(lambda each: each.announce_end())
        self.model.announced = self.model.announced or not self.model.ended

    def refuse_new(self) -> None:
        """Leave, second step."""
        self._act(lambda each: each.refuse_new())
        self.model.refuses = True

    def _act(self, action) -> None:
        self.agree()
        action(self.connection)
        action(self.twin)
        for one in self._output():
            # An owner may speak to a connection that has just ended; nobody reads it.
            if one.kind != PING and not self.model.ended:
                self.model.see(one)
        self.agree()
        self._check()

    # ── the twin, and what always holds ──────────────────────────────────────────────────────────────────────────

    def agree(self) -> None:
        """The twin, which has now got the same bytes, has told and written the same."""
        self._feed_twin(len(self._twin_unread))
        assert _lasting(self._twin_told) == _lasting(self._told), "another split tells other events"
        assert _credit_apart(self._twin_written) == _credit_apart(self._written), "another split writes other frames"
        assert self.twin.held_bytes == self.connection.held_bytes
        assert self.twin.finished == self.connection.finished
        self._told, self._twin_told, self._written, self._twin_written = [], [], b"", b""

    def _feed_twin(self, size: int) -> None:
        data, self._twin_unread = self._twin_unread[:size], self._twin_unread[size:]
        if data:
            self._twin_told += _told(self.twin.receive(data, self._now_us))
        self._twin_written += self.twin.output()

    def _output(self) -> list[Frame]:
        data = self.connection.output()
        self._written += data
        return parse(data)

    def _check(self) -> None:
        if not self.model.ended:
            self.model.check()
            assert self.connection.held_bytes == self.model.held
            assert self.connection.open_streams == self.model.open_count
            assert self.twin.open_streams <= LIMITS.streams

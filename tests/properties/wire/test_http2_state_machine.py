"""Every state of a stream and every frame: our connection, a model of RFC 9113 and the h2 library beside each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import h2.config
import h2.connection
import h2.exceptions
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from msgspec import structs

from ratelimit_service.wire.grpc.calls import OK_TRAILERS
from ratelimit_service.wire.http2.connection import Connection
from ratelimit_service.wire.http2.events import Cancelled, ConnectionLimits, Event
from ratelimit_service.wire.http2.sending import Form
from support.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    WINDOW_UPDATE,
    Frame,
    frame,
    parse,
    word,
)
from support.http2_frames import settings as settings_frame
from support.http2_judge import Judge
from support.http2_model import QUIET, Reaction, Scope
from support.http2_variants import REQUEST, VARIANTS


def _asked(judge: Judge, *names: str) -> None:
    for name in names:
        judge.frame(VARIANTS[name](3))


def _idle(judge: Judge) -> None:
    _asked(judge)


def _open(judge: Judge) -> None:
    _asked(judge, "head")


def _uploading(judge: Judge) -> None:
    _asked(judge, "head", "data")


def _half_closed(judge: Judge) -> None:
    _asked(judge, "head, last")


def _sending(judge: Judge) -> None:
    _asked(judge, "settings, window", "head, last")
    judge.answer(3, 40)


def _watching(judge: Judge) -> None:
    _asked(judge, "head, last")
    judge.begin(3)
    judge.send(3, 7, None)


def _answered(judge: Judge) -> None:
    _asked(judge, "head, last")
    judge.answer(3, 40)


def _reset_by_the_peer(judge: Judge) -> None:
    _asked(judge, "head", "reset")


def _reset_by_us(judge: Judge) -> None:
    _asked(judge, "head", "trailers, not last")


def _reset_by_us_and_then_by_the_peer(judge: Judge) -> None:
    _asked(judge, "head", "trailers, not last", "reset")


def _given_up_by_the_owner(judge: Judge) -> None:
    _asked(judge, "head, last")
    judge.reset(3)


def _oversized(judge: Judge) -> None:
    _asked(judge, "head", "data, longest")


def _oversized_and_answered(judge: Judge) -> None:
    _asked(judge, "head", "data, longest")
    judge.answer_bare(3)


def _passed_by(judge: Judge) -> None:
    judge.frame(VARIANTS["head"](5))


def _refused(judge: Judge) -> None:
    judge.refuse_new()
    _asked(judge, "head")


def _in_a_block(judge: Judge) -> None:
    _asked(judge, "head, not whole")


def _in_trailers(judge: Judge) -> None:
    _asked(judge, "head", "data", "trailers, in two")


def _crowded(judge: Judge) -> None:
    for number in (5, 7, 9):
        judge.frame(VARIANTS["head"](number))


def _leaving(judge: Judge) -> None:
    _asked(judge, "head, last")
    judge.announce_end()


STATES = {
    state.__name__[1:]: state
    for state in (
        _idle, _open, _uploading, _half_closed, _sending, _watching, _answered, _reset_by_the_peer, _reset_by_us,
        _reset_by_us_and_then_by_the_peer, _given_up_by_the_owner, _oversized, _oversized_and_answered, _passed_by,
        _refused, _in_a_block, _in_trailers, _crowded, _leaving,
    )
}  # fmt: skip
SOUND = (
    "data", "data, empty", "data, last", "data, longest", "data, padded", "head, last", "head, into the table",
    "head, of the table", "head, last and not whole", "head, four bytes announced", "trailers", "trailers, in two",
    "priority", "reset", "window", "window, wide", "window, past its most", "window, none", "settings, no window",
    "settings, window", "settings, window twice", "settings, widest window", "ping", "ping, acknowledged", "goaway",
    "unknown",
)  # fmt: skip
"""Frames that end no connection on a stream that is open."""
NUMBERS = (0, 2, 3, 11)
"""The connection, a stream that only a server opens, the stream of the state, one above all."""


def _after(kind: type[Connection], state: str) -> Judge:
    judge = Judge(kind)
    STATES[state](judge)
    return judge


def _judge_state(kind: type[Connection], state: str) -> None:
    """Every frame in this state, on every kind of stream."""
    for name, number in itertools.product(VARIANTS, NUMBERS):
        judge = _after(kind, state)
        judge.frame(VARIANTS[name](number))
        judge.agree()


@pytest.mark.parametrize("state", STATES)
def test_every_frame_in_every_state_does_what_the_rfc_says(state: str) -> None:
    """The reaction is one that the model allows, and so is everything that is told and written with it."""
    _judge_state(Connection, state)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["open", "sending", "reset_by_us"])
def test_every_two_frames_do_what_the_rfc_says(state: str) -> None:
    """What the first leaves behind does not mislead the second."""
    for first, second in itertools.product(SOUND, VARIANTS):
        judge = _after(Connection, state)
        judge.frame(VARIANTS[first](3))
        judge.frame(VARIANTS[second](3))
        judge.agree()


class _Reference:
    """The h2 library as the server, brought into the same state by the same frames."""

    def __init__(self, frames: list[Frame], answers: bool) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.initiate_connection()
        self.h2.receive_data(PREFACE + settings_frame())
        for each in frames:
            self.h2.receive_data(frame(*each))
        if answers:
            self.h2.send_headers(3, [(":status", "200")], end_stream=True)
        self.h2.data_to_send()

    def reaction(self, each: Frame) -> Reaction:
        try:
            self.h2.receive_data(frame(*each))
        except h2.exceptions.ProtocolError as error:
            return Reaction(Scope.CONNECTION, int(error.error_code))
        resets = [written for written in parse(self.h2.data_to_send()) if written.kind == RST_STREAM]
        return Reaction(Scope.STREAM, resets[0].word) if resets else QUIET


REFERENCE_STATES = {
    "idle": ([], False),
    "open": (["head"], False),
    "uploading": (["head", "data"], False),
    "half_closed": (["head, last"], False),
    "answered": (["head, last"], True),
    "reset_by_the_peer": (["head", "reset"], False),
    "in_a_block": (["head, not whole"], False),
}


H2_DIFFERS = {
    "head, not whole": "h2 looks at the stream's number when the block is whole",
    "head, last and not whole": "as above",
    "trailers, in two": "as above",
    "head, too large": "h2 takes 64 KiB of fields, whatever it was told to advertise",
    "head, none but some announced": "h2 compares content-length with DATA frames only",
    "reset": "h2 takes RST_STREAM on an idle stream",
    "reset, unknown code": "as above",
    "window, reserved bit": "h2 refuses the reserved bit, which is ignored (§6.9)",
}


@pytest.mark.parametrize("state", REFERENCE_STATES)
def test_the_h2_library_reaches_as_far_as_the_model_allows(state: str) -> None:
    """Whether a frame costs nothing, its stream or the connection; h2 has codes of its own, and listed exceptions."""
    names, answers = REFERENCE_STATES[state]
    before = [VARIANTS[name](3) for name in names]
    for name, number in itertools.product(VARIANTS.keys() - H2_DIFFERS.keys(), NUMBERS):
        each = VARIANTS[name](number)
        allowed = _after(Connection, state).model.allowed(each)

        assert _Reference(before, answers).reaction(each).scope in {reaction.scope for reaction in allowed}, name


ENDS = st.sampled_from([None, b"", OK_TRAILERS])
TWIN_BYTES = st.none() | st.integers(0, 60)


class AnyOrder(RuleBasedStateMachine):
    """Frames of every kind on streams of every state, cut anywhere for the twin, between anything the owner does."""

    @initialize()
    def begin(self) -> None:
        self.judge = Judge()
        self.steps = 0

    def _number(self, place: int) -> int:
        """A stream near the newest: old ones below, idle ones above, even ones between."""
        return max(self.judge.model.newest + 2 - place, 0)

    @precondition(lambda self: self.steps > 10)
    @rule(name=st.sampled_from(sorted(VARIANTS)), place=st.integers(-2, 6), twin_bytes=TWIN_BYTES)
    def any_frame(self, name: str, place: int, twin_bytes: int | None) -> None:
        """Most of these end the connection: not before it has seen something."""
        self.judge.frame(VARIANTS[name](self._number(place)), twin_bytes)

    @rule(name=st.sampled_from(SOUND), place=st.integers(0, 2), twin_bytes=TWIN_BYTES)
    def sound_frame(self, name: str, place: int, twin_bytes: int | None) -> None:
        """What does not end the connection, so that it gets old."""
        self.steps += 1
        number = max(self.judge.model.newest, 1) - 2 * place
        self.judge.frame(VARIANTS[name](max(number, 1)), twin_bytes)

    @rule(ends=st.booleans(), twin_bytes=TWIN_BYTES)
    def next_head(self, ends: bool, twin_bytes: int | None) -> None:
        newest = self.judge.model.newest
        number = newest + 2 if newest else 1
        self.judge.frame(VARIANTS["head, last" if ends else "head"](number), twin_bytes)

    @precondition(lambda self: self.judge.model.block is not None)
    @rule(last=st.booleans(), part=st.sampled_from([b"", b"\x00", REQUEST[40:]]), twin_bytes=st.integers(0, 60))
    def go_on_with_block(self, last: bool, part: bytes, twin_bytes: int) -> None:
        number = self.judge.model.block_stream
        self.judge.frame(Frame(CONTINUATION, END_HEADERS if last else 0, number, part), twin_bytes)

    @rule(place=st.integers(0, 4), size=st.sampled_from([0, 1, 40, 511, 512, 70_000]))
    def answer(self, place: int, size: int) -> None:
        self.judge.answer(self._number(place), size)

    @rule(place=st.integers(0, 4))
    def answer_bare(self, place: int) -> None:
        self.judge.answer_bare(self._number(place))

    @rule(place=st.integers(0, 4))
    def begin_answer(self, place: int) -> None:
        self.judge.begin(self._number(place))

    @rule(
        place=st.integers(0, 4), size=st.sampled_from([1, 20_000]), trailers=st.sampled_from([None, b"", OK_TRAILERS])
    )
    def send(self, place: int, size: int, trailers: bytes | None) -> None:
        self.judge.send(self._number(place), size, trailers)

    @rule(place=st.integers(0, 4))
    def reset(self, place: int) -> None:
        self.judge.reset(self._number(place))

    @precondition(lambda self: not self.judge.model.announced)
    @rule()
    def announce_end(self) -> None:
        self.judge.announce_end()

    @precondition(lambda self: self.judge.model.announced and not self.judge.model.refuses)
    @rule()
    def refuse_new(self) -> None:
        self.judge.refuse_new()

    def teardown(self) -> None:
        # After a failure this would hide it.
        if not self.judge.busy:
            self.judge.agree()


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyOrder = AnyOrder.TestCase


def _kind_of(data: bytes) -> int:
    """Of the first frame; the judge's first connection gets them one by one."""
    return data[3]


class _MissesNarrowWindows(Connection):
    """A planted bug: SETTINGS_INITIAL_WINDOW_SIZE is taken to be large."""

    def receive(self, data: bytes, now_us: int) -> list[Event]:
        return super().receive(data.replace(b"\0\x04" + word(9), b"\0\x04" + word(65_535)), now_us)


class _MissesStreamWindows(Connection):
    """A planted bug: WINDOW_UPDATE on a stream is passed over."""

    def receive(self, data: bytes, now_us: int) -> list[Event]:
        return [] if _kind_of(data) == WINDOW_UPDATE and data[8] else super().receive(data, now_us)


class _TakesAllData(Connection):
    """A planted bug: DATA is passed over whenever it is not expected."""

    def receive(self, data: bytes, now_us: int) -> list[Event]:
        return [] if _kind_of(data) == DATA and not self.open_streams else super().receive(data, now_us)


class _TellsNoCancel(Connection):
    """A planted bug: the owner is not told that a call was given up."""

    def receive(self, data: bytes, now_us: int) -> list[Event]:
        return [event for event in super().receive(data, now_us) if not isinstance(event, Cancelled)]


class _TellsTwice(Connection):
    """A planted bug: a call is charged twice."""

    def receive(self, data: bytes, now_us: int) -> list[Event]:
        return super().receive(data, now_us) * 2


class _LosesShortReads(Connection):
    """A planted bug: what is shorter than a frame's header is lost."""

    def receive(self, data: bytes, now_us: int) -> list[Event]:
        return super().receive(data, now_us) if len(data) >= 9 else []


class _TakesTooManyStreams(Connection):
    """A planted bug: one stream more than advertised."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__(structs.replace(limits, streams=limits.streams + 1))


class _KeepsLongBodies(Connection):
    """A planted bug: bodies are not bounded."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__(structs.replace(limits, body_bytes=2**20))


class _SaysMore(Connection):
    """Writes more than it should; no bug by itself."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__(limits)
        self.more = b""

    def output(self) -> bytes:
        more, self.more = self.more, b""
        return super().output() + more


class _SendsEndsTwice(_SaysMore):
    """A planted bug: an answer has its trailers twice."""

    def answer(self, stream: int, form: Form, body: bytes) -> None:
        super().answer(stream, form, body)
        self.more = frame(HEADERS, END_HEADERS | END_STREAM, stream, OK_TRAILERS)


class _NamesLaterStreams(Connection):
    """A planted bug: the last GOAWAY names streams that an earlier one refused."""

    def output(self) -> bytes:
        return b"".join(
            frame(*each[:3], word(5) + each.payload[4:] if each.kind == GOAWAY and self.fault else each.payload)
            for each in parse(super().output())
        )


class _ResetsIdleStreams(_SaysMore):
    """A planted bug: a broken PRIORITY ends its stream, even one that is idle."""

    def receive(self, data: bytes, now_us: int) -> list[Event]:
        if _kind_of(data) != PRIORITY or len(data) == 14:
            return super().receive(data, now_us)
        self.more = frame(RST_STREAM, 0, data[8], word(6))
        return []


def _late_window(judge: Judge) -> None:
    _asked(judge, "settings, window", "head, last")
    judge.answer(3, 12)
    _asked(judge, "window")


def _early_window(judge: Judge) -> None:
    _asked(judge, "settings, window", "head", "window", "data, last")
    judge.answer(3, 12)


def _early_window_past_its_most(judge: Judge) -> None:
    _asked(judge, "head", "window", "settings, widest window")


def _data_after_the_end(judge: Judge) -> None:
    _answered(judge)
    _asked(judge, "data")


def _given_up(judge: Judge) -> None:
    _asked(judge, "head, last", "reset")


def _in_two_reads(judge: Judge) -> None:
    judge.frame(VARIANTS["ping"](0), 5)
    judge.agree()


def _four_calls(judge: Judge) -> None:
    _crowded(judge)
    judge.frame(VARIANTS["head"](11))


def _ended_after_leaving(judge: Judge) -> None:
    _half_closed(judge)
    judge.refuse_new()
    judge.frame(VARIANTS["head, last"](5))
    _asked(judge, "push")


def _idle_priority(judge: Judge) -> None:
    _half_closed(judge)
    judge.frame(VARIANTS["priority, short"](2))


PLANTED = [
    (_MissesNarrowWindows, _sending), (_MissesStreamWindows, _late_window), (_MissesStreamWindows, _early_window),
    (_MissesStreamWindows, _early_window_past_its_most), (_TakesAllData, _data_after_the_end),
    (_TellsNoCancel, _given_up), (_TellsTwice, _half_closed), (_LosesShortReads, _in_two_reads),
    (_TakesTooManyStreams, _four_calls), (_KeepsLongBodies, _oversized), (_SendsEndsTwice, _answered),
    (_NamesLaterStreams, _ended_after_leaving), (_ResetsIdleStreams, _idle_priority),
]  # fmt: skip


@pytest.mark.parametrize(("mutant", "scene"), PLANTED)
def test_the_judge_finds_each_planted_bug(mutant: type[Connection], scene: Callable[[Judge], None]) -> None:
    """The same scene is fine with the real connection and fails with the mutant."""
    scene(Judge())

    with pytest.raises(AssertionError):
        scene(Judge(mutant))

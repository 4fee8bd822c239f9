"""Laws of the HTTP/2 connection: any split, any peer, any frame in any state, any bytes."""

from __future__ import annotations

import itertools

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ratelimit_service.wire.grpc.calls import OK_TRAILERS, RESPONSE_HEAD, frame_message
from ratelimit_service.wire.http2.connection import Connection
from ratelimit_service.wire.http2.events import Cancelled, ConnectionLimits, Event, Oversized, Request
from ratelimit_service.wire.http2.frames import ErrorCode
from ratelimit_service.wire.http2.sending import Form
from support.http2_frames import (
    CALL,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    Peer,
    block,
    call,
    frame,
    headers,
    parse,
    word,
)
from support.http2_frames import settings as settings_frame

FORM = Form(RESPONSE_HEAD, OK_TRAILERS)
STREAMS = st.sampled_from([0, 1, 2, 3, 5, 7])
PAYLOADS = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"", word(0), word(1), word(2**31 - 1), bytes(8), word(1) + b"\x10"]),
    st.sampled_from([block(*CALL), b"\x03" + block(*CALL) + b"\0\0\0"]),
    st.tuples(st.integers(1, 6), st.sampled_from([0, 1, 100, 16_384, 2**31 - 1])).map(
        lambda pair: settings_frame(pair)[9:]
    ),
)
FRAMES = st.builds(frame, st.integers(0, 11), st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x25, 0x2D]), STREAMS, PAYLOADS)
CALLS = st.one_of(
    st.sampled_from([1, 3, 5, 7, 9]).map(call),
    st.sampled_from([1, 3, 5, 7, 9]).map(headers),
    st.sampled_from([1, 3, 5, 7, 9]).map(lambda stream: headers(stream, [(b"a", b"b")], 5)),
)
TRAFFIC = st.lists(st.one_of(CALLS, FRAMES), max_size=12).map(b"".join)


def _told(events: list[Event]) -> list[tuple[str, int, bytes]]:
    return [(type(each).__name__, each.stream, getattr(each, "body", b"")) for each in events]


def _without_gone(told: list[tuple[str, int, bytes]]) -> list[tuple[str, int, bytes]]:
    gone = {stream for kind, stream, _ in told if kind == "Cancelled"}
    return [each for each in told if each[1] not in gone]


def _feed(chunks: list[bytes]) -> tuple[list[tuple[str, int, bytes]], bytes, bool]:
    connection = Connection()
    told: list[tuple[str, int, bytes]] = []
    for chunk in chunks:
        told += _told(connection.receive(chunk, 0))
    return _without_gone(told), connection.output(), connection.finished


@given(TRAFFIC, st.lists(st.integers(0, 400), max_size=6))
@example(call(1) + call(3), [24, 33])
@example(frame(6, 0, 0, bytes(8)) + headers(1, flags=0) + frame(9, 4, 1), [50])
def test_any_split_is_the_whole(traffic: bytes, cuts: list[int]) -> None:
    """What is told and written does not depend on how the bytes are cut; a call that is given up may not be told."""
    data = PREFACE + settings_frame() + traffic
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]

    assert _feed(pieces) == _feed([data])


@given(TRAFFIC)
def test_one_byte_at_a_time_is_the_whole(traffic: bytes) -> None:
    """The smallest split of all."""
    data = PREFACE + settings_frame() + traffic

    assert _feed([data[at : at + 1] for at in range(len(data))]) == _feed([data])


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=300)
def test_random_bytes_never_raise(data: bytes, has_preface: bool) -> None:
    """They are answered or refused, what is written is frames, and nothing is kept beyond a frame."""
    connection = Connection()
    connection.receive(PREFACE + settings_frame() if has_preface else b"", 0)
    connection.receive(data, 0)

    parse(connection.output())
    assert connection.held_bytes <= len(data) + 400


class _Client:
    """The h2 library as the peer."""

    def __init__(self) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.server = Connection(ConnectionLimits(body_bytes=200_000))
        self.answers: dict[int, bytes] = {}
        self.ended: set[int] = set()

    def turn(self) -> list[Event]:
        """Pass on what each side has to say, until both are silent; what the server was told."""
        told: list[Event] = []
        while True:
            sent, answered = self.h2.data_to_send(), self.server.output()
            if not sent and not answered:
                return told
            told += self.server.receive(sent, 0)
            for event in self.h2.receive_data(answered):
                if isinstance(event, h2.events.DataReceived):
                    self.answers[event.stream_id] = self.answers.get(event.stream_id, b"") + event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self.ended.add(event.stream_id)


SIZES = st.sampled_from([0, 1, 100, 16_384, 40_000, 70_000])


@given(
    st.lists(st.tuples(SIZES, SIZES, st.integers(0, 20)), min_size=1, max_size=8), st.sampled_from([1, 1_000, 65_535])
)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_the_h2_library_is_served(calls, window: int) -> None:
    """Bodies and answers of any size pass both windows whole, whatever the client's own window."""
    client = _Client()
    if window > 1:
        client.h2.update_settings({4: window})
    for asked, answered, number in calls:
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, [*CALL, (b"x-number", b"%d" % number)])
        body, left = bytes(asked), asked
        while left:
            size = min(left, client.h2.local_flow_control_window(stream), client.h2.max_outbound_frame_size)
            client.h2.send_data(
                stream, body[asked - left : asked - left + size], pad_length=number if size < 1_000 else None
            )
            left -= size
            client.turn()
        client.h2.end_stream(stream)
        told = client.turn()
        client.server.answer(stream, FORM, frame_message(bytes(answered)))
        client.turn()

        assert [(event.stream, event.body) for event in told] == [(stream, body)]
        assert client.answers[stream] == frame_message(bytes(answered))
        assert stream in client.ended
    assert client.server.open_streams == 0
    assert client.server.held_bytes == 0


class EveryStateAndFrame(RuleBasedStateMachine):
    """A connection in any state takes any frame, any answer and any time: it raises nothing and stays bounded."""

    @initialize()
    def begin(self) -> None:
        self.peer = Peer(ConnectionLimits(streams=4, body_bytes=1_000))
        self.newest = -1

    @rule(data=FRAMES)
    def any_frame(self, data: bytes) -> None:
        self.peer.send(data)

    @rule(ends=st.booleans(), body=st.binary(max_size=3))
    def next_call(self, ends: bool, body: bytes) -> None:
        self.newest = max(self.newest + 2, 1)
        self.peer.send(call(self.newest, body) if ends else headers(self.newest))

    @rule(stream=STREAMS, body=st.sampled_from([b"", b"x", bytes(70_000)]))
    def answer(self, stream: int, body: bytes) -> None:
        self.peer.connection.answer(stream, FORM, body)

    @rule(stream=STREAMS)
    def answer_bare(self, stream: int) -> None:
        self.peer.connection.answer_bare(stream, RESPONSE_HEAD)

    @rule(stream=STREAMS)
    def begin_answer(self, stream: int) -> None:
        self.peer.connection.begin(stream, RESPONSE_HEAD)

    @rule(stream=STREAMS, ends=st.booleans())
    def go_on_with_answer(self, stream: int, ends: bool) -> None:
        self.peer.connection.send(stream, b"more", OK_TRAILERS if ends else None)

    @rule(stream=STREAMS)
    def reset(self, stream: int) -> None:
        self.peer.connection.reset(stream, ErrorCode.CANCEL)

    @rule(seconds=st.integers(0, 15))
    def time_passes(self, seconds: int) -> None:
        self.peer.now_us += seconds * 1_000_000
        self.peer.connection.overdue(self.peer.now_us - 10_000_000, self.peer.now_us)

    @rule()
    def drain(self) -> None:
        self.peer.connection.announce_end()

    @invariant()
    def holds_no_more_than_it_may(self) -> None:
        connection = self.peer.connection

        assert connection.open_streams <= 4
        assert connection.held_bytes <= 1_000 + 2**20 + 400
        assert connection.fault is None or connection.finished

    @invariant()
    def writes_frames_in_order(self) -> None:
        for each in self.peer.read():
            assert each.kind not in (HEADERS, RST_STREAM) or each.stream & 1
            assert each.kind != GOAWAY or each.stream == 0


TestEveryStateAndFrame = EveryStateAndFrame.TestCase


@pytest.mark.parametrize("event", [Request, Oversized, Cancelled])
def test_the_machine_can_reach_every_event(event: type[Event]) -> None:
    """Each kind has its shortest way."""
    peer = Peer(ConnectionLimits(body_bytes=10))
    peer.send(call(1, b"x"))
    peer.send(frame(RST_STREAM, 0, 1, word(8)) + headers(3) + frame(0, 0, 3, bytes(11)))

    assert event in {type(each) for each in peer.events}

"""Rules of RFC 9113 as a table: what a client sends, and how the server answers it."""

from __future__ import annotations

import pytest

from ratelimit_service.wire.http2.events import Cancelled, ConnectionLimits, Request
from ratelimit_service.wire.http2.frames import ErrorCode
from support.http2_frames import (
    ACK,
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    block,
    call,
    frame,
    headers,
    message,
    settings,
    word,
)

OPEN = headers(1)
ASKED = call(1)
THREE = (b"content-length", b"3")
ON_ITSELF = word(1) + b"\x10"
OTHERS = word(3) + b"\x10"

CONNECTION_FAULTS = [
    ("DATA on stream 0", frame(DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    ("DATA on an idle stream", frame(DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
    ("DATA on a server's stream", OPEN + frame(DATA, 0, 2, b"x") + OPEN, ErrorCode.PROTOCOL_ERROR),
    ("DATA padding as long as its frame", OPEN + frame(DATA, PADDED, 1, b"\x01"), ErrorCode.PROTOCOL_ERROR),
    ("DATA padded and empty", OPEN + frame(DATA, PADDED, 1, b""), ErrorCode.PROTOCOL_ERROR),
    ("HEADERS on stream 0", headers(0), ErrorCode.PROTOCOL_ERROR),
    ("HEADERS on an even stream", headers(2), ErrorCode.PROTOCOL_ERROR),
    ("HEADERS below the newest stream", call(5) + headers(3), ErrorCode.STREAM_CLOSED),
    ("HEADERS after the end", ASKED + headers(1), ErrorCode.STREAM_CLOSED),
    ("HEADERS too short for its priority", frame(HEADERS, 0x24, 1, b"\0\0\0"), ErrorCode.FRAME_SIZE_ERROR),
    ("HEADERS with too much padding", frame(HEADERS, END_HEADERS | PADDED, 1, b"\x09abc"), ErrorCode.PROTOCOL_ERROR),
    ("HEADERS that cannot be decoded", frame(HEADERS, END_HEADERS, 1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
    ("HEADERS within another block", headers(1, flags=0) + headers(3), ErrorCode.PROTOCOL_ERROR),
    ("DATA within a block", headers(1, flags=0) + frame(DATA, END_STREAM, 1, b""), ErrorCode.PROTOCOL_ERROR),
    ("CONTINUATION of another stream", headers(1, flags=0) + frame(CONTINUATION, 4, 3), ErrorCode.PROTOCOL_ERROR),
    ("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1), ErrorCode.PROTOCOL_ERROR),
    ("CONTINUATION after a whole block", OPEN + frame(CONTINUATION, END_HEADERS, 1), ErrorCode.PROTOCOL_ERROR),
    ("PRIORITY on stream 0", frame(PRIORITY, 0, 0, OTHERS), ErrorCode.PROTOCOL_ERROR),
    ("PRIORITY of a wrong length on an idle stream", frame(PRIORITY, 0, 1, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
    ("RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, word(8)), ErrorCode.PROTOCOL_ERROR),
    ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, word(8)), ErrorCode.PROTOCOL_ERROR),
    ("RST_STREAM of a wrong length", OPEN + frame(RST_STREAM, 0, 1, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
    ("SETTINGS on a stream", frame(SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    ("SETTINGS of a wrong length", frame(SETTINGS, 0, 0, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
    ("SETTINGS ACK with a payload", frame(SETTINGS, ACK, 0, b"abcdef"), ErrorCode.FRAME_SIZE_ERROR),
    ("SETTINGS that would push", settings((2, 2)), ErrorCode.PROTOCOL_ERROR),
    ("SETTINGS with a window of 2^31", settings((4, 2**31)), ErrorCode.FLOW_CONTROL_ERROR),
    ("SETTINGS with a frame too small", settings((5, 16_383)), ErrorCode.PROTOCOL_ERROR),
    ("SETTINGS with a frame too large", settings((5, 2**24)), ErrorCode.PROTOCOL_ERROR),
    ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, word(2)), ErrorCode.PROTOCOL_ERROR),
    ("PING on a stream", frame(PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    ("PING of a wrong length", frame(PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    ("GOAWAY on a stream", frame(GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    ("GOAWAY of a wrong length", frame(GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    ("WINDOW_UPDATE of a wrong length", frame(WINDOW_UPDATE, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    ("WINDOW_UPDATE of 0 on the connection", frame(WINDOW_UPDATE, 0, 0, word(0)), ErrorCode.PROTOCOL_ERROR),
    ("WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, word(1)), ErrorCode.PROTOCOL_ERROR),
    ("WINDOW_UPDATE past 2^31-1", frame(WINDOW_UPDATE, 0, 0, word(2**31 - 1)), ErrorCode.FLOW_CONTROL_ERROR),
    ("a frame of 16,385 bytes", frame(DATA, 0, 1, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
    ("a table size update after a field", frame(HEADERS, END_HEADERS, 1, b"\x83\x20"), ErrorCode.COMPRESSION_ERROR),
]  # fmt: skip

STREAM_FAULTS = [
    ("DATA after the end", ASKED + frame(DATA, 0, 1, b"x"), ErrorCode.STREAM_CLOSED),
    ("PRIORITY of a wrong length", OPEN + frame(PRIORITY, 0, 1, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
    ("PRIORITY on itself", OPEN + frame(PRIORITY, 0, 1, ON_ITSELF), ErrorCode.PROTOCOL_ERROR),
    ("HEADERS on itself", frame(HEADERS, 0x24, 1, ON_ITSELF + block(*CALL)), ErrorCode.PROTOCOL_ERROR),
    ("WINDOW_UPDATE of 0", OPEN + frame(WINDOW_UPDATE, 0, 1, word(0)), ErrorCode.PROTOCOL_ERROR),
    ("a stream's window past 2^31-1", ASKED + frame(8, 0, 1, word(2**31 - 1)), ErrorCode.FLOW_CONTROL_ERROR),
    ("a second block that does not end", OPEN + headers(1, [(b"a", b"b")]), ErrorCode.PROTOCOL_ERROR),
    ("a pseudo-field in trailers", OPEN + headers(1, [(b":path", b"/")], 5), ErrorCode.PROTOCOL_ERROR),
    ("an unknown pseudo-field in trailers", OPEN + headers(1, [(b":x", b"/")], 5), ErrorCode.PROTOCOL_ERROR),
    ("a content-length that differs", headers(1, [*CALL, THREE]) + frame(DATA, 1, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
    ("a content-length without a body", headers(1, [*CALL, THREE], 5), ErrorCode.PROTOCOL_ERROR),
    ("no :path", headers(1, [field for field in CALL if field[0] != b":path"]), ErrorCode.PROTOCOL_ERROR),
]  # fmt: skip

FINE = [
    ("an unknown frame", frame(0xEE, 0xFF, 77, b"whatever")),
    ("an unknown setting", settings((0x99, 7))),
    ("a setting of the table size", settings((1, 0))),
    ("PRIORITY on an idle stream", frame(PRIORITY, 0, 9, OTHERS)),
    ("a SETTINGS ACK", frame(SETTINGS, ACK, 0)),
    ("a PING ACK that nobody asked for", frame(PING, ACK, 0, bytes(8))),
    ("a GOAWAY", frame(GOAWAY, 0, 0, bytes(8) + b"bye")),
    ("WINDOW_UPDATE on a closed stream", ASKED + frame(RST_STREAM, 0, 1, word(8)) + frame(8, 0, 1, word(9))),
    ("RST_STREAM on a closed stream", call(1) + 2 * frame(RST_STREAM, 0, 1, word(8))),
    ("a reserved bit", frame(WINDOW_UPDATE, 0, 2**31, word(1))),
]  # fmt: skip


def _ids(cases):
    return [case[0] for case in cases]


@pytest.mark.parametrize(("name", "data", "code"), CONNECTION_FAULTS, ids=_ids(CONNECTION_FAULTS))
def test_a_connection_error_ends_with_its_code(name: str, data: bytes, code: ErrorCode) -> None:
    """GOAWAY names the error and nothing is read after it."""
    peer = Peer()
    peer.send(data)

    ended = peer.end()
    assert ended is not None
    assert ended[0] == code
    assert peer.connection.finished
    assert peer.send(call(101)) == []


@pytest.mark.parametrize(("name", "data", "code"), STREAM_FAULTS, ids=_ids(STREAM_FAULTS))
def test_a_stream_error_ends_the_stream_alone(name: str, data: bytes, code: ErrorCode) -> None:
    """RST_STREAM names the error, and the next call is taken."""
    peer = Peer()
    peer.send(data)
    resets = [(each.stream, each.word) for each in peer.read() if each.kind == RST_STREAM]

    assert resets == [(1, code)]
    assert [type(event) for event in peer.send(call(3))] == [Request]


@pytest.mark.parametrize(("name", "data"), FINE, ids=_ids(FINE))
def test_what_is_allowed_changes_nothing(name: str, data: bytes) -> None:
    """The next call is taken."""
    peer = Peer()
    peer.send(data)

    assert not [each for each in peer.read() if each.kind in (RST_STREAM, GOAWAY)]
    assert [type(event) for event in peer.send(call(11))] == [Request]


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX", b"X", PREFACE[:-1] + b"X" + bytes(20)]
)
def test_anything_but_the_preface_is_refused_at_once(data: bytes) -> None:
    """As soon as it can be seen, however little came."""
    peer = Peer(settled=False)
    peer.send(data)

    assert peer.connection.finished
    assert not peer.connection.settled


@pytest.mark.parametrize("data", [call(1), frame(PING, 0, 0, bytes(8)), frame(SETTINGS, ACK, 0), frame(0xEE, 0, 0)])
def test_the_first_frame_is_settings(data: bytes) -> None:
    """Anything else is a PROTOCOL_ERROR."""
    peer = Peer(settled=False)
    peer.send(PREFACE + data)

    assert peer.end() == (ErrorCode.PROTOCOL_ERROR, 0)


def test_settings_and_pings_are_acknowledged_in_order() -> None:
    """Each SETTINGS and PING gets its answer, with the PING's own bytes."""
    peer = Peer()
    peer.send(settings((4, 100)) + frame(PING, 0, 0, b"12345678") + settings((4, 200)))

    assert [(each.kind, each.flags, each.payload) for each in peer.read()] == [
        (SETTINGS, ACK, b""),
        (PING, ACK, b"12345678"),
        (SETTINGS, ACK, b""),
    ]


def test_a_call_may_come_in_pieces_of_every_kind() -> None:
    """Padding, priority, continuations, several DATA frames and trailers make one request."""
    fields = block(*CALL)
    peer = Peer()
    peer.send(
        frame(HEADERS, PADDED | PRIORITISED, 1, b"\x03" + word(0) + b"\x01" + fields[:5] + b"\0\0\0")
        + frame(CONTINUATION, 0, 1, fields[5:9])
        + frame(CONTINUATION, END_HEADERS, 1, fields[9:])
        + frame(DATA, PADDED, 1, b"\x02ab\0\0")
        + frame(DATA, 0, 1, b"c")
        + headers(1, [(b"trailer", b"x")], END_HEADERS | END_STREAM)
    )

    assert [(event.stream, event.body) for event in peer.events] == [(1, b"abc")]
    assert peer.events[0].head.shape.path == CALL[2][1]


def test_a_head_may_be_padded_alone() -> None:
    """Without a priority."""
    peer = Peer()
    peer.send(frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, b"\x03" + block(*CALL) + b"\0\0\0"))

    assert [event.stream for event in peer.events] == [1]


def test_a_request_may_have_no_body() -> None:
    """END_STREAM on HEADERS, or on trailers right after them."""
    peer = Peer()
    peer.send(headers(1, flags=5) + headers(3) + headers(3, [(b"a", b"b")], 5))

    assert [(event.stream, event.body) for event in peer.events] == [(1, b""), (3, b"")]


def test_a_call_that_came_and_went_in_one_read_is_not_told() -> None:
    """Nobody waits for it; its neighbour is told."""
    peer = Peer()
    found = peer.send(call(1) + call(3) + frame(RST_STREAM, 0, 1, word(8)))

    assert [(type(event), event.stream) for event in found] == [(Request, 3)]


def test_a_call_that_is_given_up_is_told() -> None:
    """RST_STREAM in a later read is a Cancelled event, once."""
    peer = Peer()
    peer.send(call(1))
    found = peer.send(2 * frame(RST_STREAM, 0, 1, word(8)))

    assert found == [Cancelled(1)]


def test_more_streams_than_allowed_are_refused() -> None:
    """At the limit a call is taken, one more gets REFUSED_STREAM, an answer makes room."""
    peer = Peer(ConnectionLimits(streams=2))
    peer.send(call(1) + call(3) + call(5))
    refused = [(each.stream, each.word) for each in peer.read() if each.kind == RST_STREAM]
    peer.connection.answer_bare(1, b"\x88")
    peer.send(call(7))

    assert refused == [(5, ErrorCode.REFUSED_STREAM)]
    assert [event.stream for event in peer.events] == [1, 3, 7]


def test_a_body_past_its_limit_is_told_and_the_rest_passed_over() -> None:
    """The answer ends the stream on both sides; DATA and trailers still on their way are no error."""
    peer = Peer(ConnectionLimits(body_bytes=10))
    peer.send(headers(1) + frame(DATA, 0, 1, bytes(11)) + frame(DATA, 0, 1, bytes(5)))
    peer.connection.answer_bare(1, b"\x88")
    peer.send(frame(DATA, 0, 1, bytes(5)) + headers(1, [(b"a", b"b")], 5) + frame(DATA, END_STREAM, 1, b"x"))
    frames = peer.read()

    assert [type(event).__name__ for event in peer.events] == ["Oversized"]
    assert [(each.kind, each.word) for each in frames if each.kind == RST_STREAM] == [(RST_STREAM, ErrorCode.NO_ERROR)]
    assert not peer.connection.finished


def test_a_body_past_its_limit_may_end_there() -> None:
    """Then there is nothing to reset."""
    peer = Peer(ConnectionLimits(body_bytes=10))
    peer.send(headers(1) + frame(DATA, 0, 1, bytes(5)) + frame(DATA, END_STREAM, 1, bytes(6)))
    peer.connection.answer_bare(1, b"\x88")

    assert [each.kind for each in peer.read()] == [HEADERS]


def test_trailers_of_a_stream_that_we_ended_are_passed_over() -> None:
    """They were on their way when it ended."""
    peer = Peer()
    peer.send(headers(1))
    peer.connection.reset(1, ErrorCode.CANCEL)
    peer.connection.reset(1, ErrorCode.CANCEL)
    peer.send(headers(1, [(b"a", b"b")], 5) + frame(RST_STREAM, 0, 1, word(8)))

    assert [(each.kind, each.word) for each in peer.read()] == [(RST_STREAM, ErrorCode.CANCEL)]
    assert peer.connection.open_streams == 0


def test_windows_are_opened_again() -> None:
    """The stream's at half, the connection's after half a mebibyte."""
    peer = Peer()
    peer.send(headers(1) + 3 * frame(DATA, 0, 1, bytes(16_000)))
    stream = [(each.stream, each.word) for each in peer.read()]
    for number in range(3, 91, 2):
        peer.send(headers(number) + frame(DATA, END_STREAM, number, bytes(16_000)))
        peer.connection.answer_bare(number, b"\x88")
    connection = [each.word for each in peer.read() if each.kind == WINDOW_UPDATE]

    assert stream == [(1, 48_000)]
    assert connection == [33 * 16_000]


def test_bodies_that_wait_for_each_other_make_room() -> None:
    """The newest is refused before the connection's window shuts; the oldest comes whole."""
    peer = Peer(ConnectionLimits(body_bytes=2**20))
    for _ in range(60):
        for stream in (1, 3, 5):
            peer.send(
                (headers(stream) if stream > peer.connection._newest else b"") + frame(DATA, 0, stream, bytes(10_000))
            )
    refused = [each.stream for each in peer.read() if each.kind == RST_STREAM]
    peer.send(frame(DATA, END_STREAM, 1, b"x"))

    assert refused == [5]
    assert [len(event.body) for event in peer.events] == [600_001]
    assert not peer.connection.finished


def test_more_data_than_the_connections_window_is_a_fault() -> None:
    """Even on streams that have their own window left."""
    peer = Peer(ConnectionLimits(body_bytes=10))
    peer.connection._window = 20_000
    peer.send(call(1, bytes(15_000)) + call(3, bytes(15_000)))

    assert peer.end() == (ErrorCode.FLOW_CONTROL_ERROR, 3)


@pytest.mark.parametrize("fields", [CALL, [(b"bad name", b"x")], 130 * [(b"x" * 50, b"y" * 50)]])
def test_what_follows_a_refused_head_is_passed_over(fields) -> None:
    """The body of a refused call was on its way; it is no second error and no abuse."""
    peer = Peer(ConnectionLimits(streams=1))
    peer.send(call(1) + call(3, fields=fields))

    assert [each.stream for each in peer.read() if each.kind == RST_STREAM] == [3]


def test_a_message_body_keeps_its_bytes() -> None:
    """Whatever they are."""
    peer = Peer()
    peer.send(call(1, bytes(range(256))))

    assert peer.events[0].body == message(bytes(range(256)))


def test_only_so_many_ended_streams_are_remembered() -> None:
    """The oldest is forgotten first, and DATA on it is an error of its stream."""
    peer = Peer(ConnectionLimits(streams=2_000))
    for stream in range(1, 2_055, 2):
        peer.send(headers(stream))
        peer.connection.reset(stream, ErrorCode.CANCEL)
    peer.read()
    peer.send(frame(DATA, 0, 1, b"x") + frame(DATA, 0, 2_051, b"x"))

    assert [(each.stream, each.word) for each in peer.read()] == [(1, ErrorCode.STREAM_CLOSED)]

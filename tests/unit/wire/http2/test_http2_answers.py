"""What is sent, and what the client's windows hold back."""

from __future__ import annotations

import pytest

from ratelimit_service.wire.http2.budgets import Abuse
from ratelimit_service.wire.http2.frames import ErrorCode
from ratelimit_service.wire.http2.sending import Form
from support.http2_frames import (
    DATA,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    call,
    frame,
    settings,
    word,
)

FORM = Form(b"\x88", b"\x89")


def _asked(*streams: int) -> Peer:
    peer = Peer()
    peer.send(b"".join(call(stream) for stream in streams))
    peer.connection.answer_bare(streams[0], b"\x88")
    peer.read()
    return peer


def _data(peer: Peer) -> list[tuple[int, int]]:
    return [(each.stream, len(each.payload)) for each in peer.read() if each.kind == DATA]


def test_an_answer_is_a_head_a_message_and_trailers() -> None:
    """Three frames of its stream, the last of which ends it; a closed stream is passed over."""
    peer = _asked(1, 3)
    peer.connection.answer(3, FORM, b"body")
    peer.connection.answer(3, FORM, b"body")
    peer.connection.answer_bare(3, b"\x88")

    assert [(each.kind, each.flags, each.stream, each.payload) for each in peer.read()] == [
        (HEADERS, 4, 3, b"\x88"),
        (DATA, 0, 3, b"body"),
        (HEADERS, 5, 3, b"\x89"),
    ]
    assert peer.connection.answered == 2


def test_the_first_block_gives_up_our_table() -> None:
    """A size update to 0 stands before the first block of the connection, whichever it is."""
    peer = Peer()
    peer.send(call(1) + call(3))
    peer.connection.answer(1, FORM, b"x")
    peer.connection.answer(3, FORM, b"x")

    assert [each.payload for each in peer.read() if each.kind == HEADERS] == [b"\x20\x88", b"\x89", b"\x88", b"\x89"]


def test_a_stream_without_window_waits_for_it() -> None:
    """Nothing of the body, then what the window allows, then the trailers."""
    peer = _asked(1)
    peer.send(settings((4, 0)) + call(3))
    peer.read()
    peer.connection.answer(3, FORM, b"12345")
    before = _data(peer)
    peer.send(frame(WINDOW_UPDATE, 0, 3, word(2)))
    some = _data(peer)
    peer.send(settings((4, 1)))
    more = _data(peer)
    peer.send(frame(WINDOW_UPDATE, 0, 3, word(9)))
    frames = peer.read()

    assert (before, some, more) == ([], [(3, 2)], [(3, 1)])
    assert [(each.kind, each.payload) for each in frames] == [(DATA, b"45"), (HEADERS, b"\x89")]
    assert peer.connection.open_streams == 0


def test_a_window_that_was_opened_before_the_answer_counts() -> None:
    """WINDOW_UPDATE may come while the call still waits."""
    peer = _asked(1)
    peer.send(settings((4, 0)) + call(3) + frame(WINDOW_UPDATE, 0, 3, word(5)))
    peer.read()
    peer.connection.answer(3, FORM, b"12345")

    assert _data(peer) == [(3, 5)]


def test_the_connections_window_is_shared_oldest_first() -> None:
    """65,535 bytes in all, then the rest in the order of the streams."""
    peer = _asked(1, 3, 5, 7)
    peer.send(settings((4, 2**20)))
    for stream in (3, 5, 7):
        peer.connection.answer(stream, FORM, bytes(40_000))
    first = _data(peer)
    peer.send(frame(WINDOW_UPDATE, 0, 0, word(20_000)))
    second = _data(peer)
    peer.send(frame(WINDOW_UPDATE, 0, 0, word(2**20)))
    third = _data(peer)

    assert sum(size for _, size in first) == 65_535
    assert [sum(size for stream, size in second if stream == number) for number in (5, 7)] == [14_465, 5_535]
    assert sum(size for _, size in third) == 34_465
    assert peer.connection.open_streams == 0


def test_a_wider_stream_does_not_open_the_connection() -> None:
    """New SETTINGS while the connection's window is shut send nothing."""
    peer = _asked(1, 3)
    peer.send(settings((4, 2**20)))
    peer.connection.answer(3, FORM, bytes(70_000))
    sent = sum(size for _, size in _data(peer))
    peer.send(settings((4, 2**21)))

    assert sent == 65_535
    assert _data(peer) == []


def test_an_answer_may_be_empty() -> None:
    """Its trailers follow its head, also as the first answer of a connection."""
    peer = Peer()
    peer.send(call(1))
    peer.connection.answer(1, FORM, b"")

    assert [(each.kind, each.flags) for each in peer.read()] == [(HEADERS, 4), (HEADERS, 5)]


def test_a_long_answer_is_cut_into_frames() -> None:
    """No frame is longer than the smallest limit that a peer may have."""
    peer = _asked(1, 3)
    peer.connection.answer(3, FORM, bytes(40_000))

    assert _data(peer) == [(3, 16_384), (3, 16_384), (3, 7_232)]


def test_settings_are_acknowledged_before_the_data_that_they_let_go() -> None:
    """A client that waits for the acknowledgement first, as h2spec does, still finds the DATA after it."""
    peer = _asked(1)
    peer.send(settings((4, 0)) + call(3))
    peer.connection.answer(3, FORM, b"12345")
    peer.read()
    peer.send(settings((4, 1)))

    assert [(each.kind, each.flags, len(each.payload)) for each in peer.read()] == [(SETTINGS, 1, 0), (DATA, 0, 1)]


def test_a_window_update_while_the_connections_window_is_open_moves_nothing_else() -> None:
    """Streams held back by their own window stay so."""
    peer = _asked(1)
    peer.send(settings((4, 0)) + call(3))
    peer.connection.answer(3, FORM, b"12345")
    peer.read()
    peer.send(frame(WINDOW_UPDATE, 0, 0, word(100)))

    assert _data(peer) == []


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "sending"])
def test_an_initial_window_that_overflows_a_stream_ends_the_connection(waits: bool) -> None:
    """A stream's window passes 2^31-1 by a change of SETTINGS (§6.9.2)."""
    peer = _asked(1)
    peer.send(settings((4, 0)) + call(3) + frame(WINDOW_UPDATE, 0, 3, word(1)))
    answers = [] if waits else [b"12345"]
    for body in answers:
        peer.connection.answer(3, FORM, body)
    peer.read()
    peer.send(frame(WINDOW_UPDATE, 0, 3, word(5)) + settings((4, 2**31 - 1)))

    assert (peer.end() is not None) is waits


def test_messages_may_come_one_by_one() -> None:
    """As health Watch does; what is sent to a closed stream is passed over."""
    peer = _asked(1, 3)
    connection = peer.connection
    connection.begin(3, b"\x88")
    connection.begin(3, b"\x88")
    connection.send(3, b"one")
    connection.send(3, b"two", b"\x89")
    connection.send(3, b"three")

    assert [(each.kind, each.payload) for each in peer.read()] == [
        (HEADERS, b"\x88"),
        (DATA, b"one"),
        (DATA, b"two"),
        (HEADERS, b"\x89"),
    ]


def test_an_answer_may_end_without_trailers() -> None:
    """Plain HTTP: END_STREAM on the last DATA frame."""
    peer = _asked(1, 3)
    peer.connection.begin(3, b"\x88")
    peer.connection.send(3, bytes(20_000), b"")

    assert [(each.kind, each.flags) for each in peer.read()] == [(HEADERS, 4), (DATA, 0), (DATA, END_STREAM)]
    assert peer.connection.open_streams == 0


def test_reset_by_the_client_drops_what_was_held_back() -> None:
    """Nothing of it is sent when the window opens."""
    peer = _asked(1)
    peer.send(settings((4, 0)) + call(3))
    peer.connection.answer(3, FORM, b"12345")
    peer.read()
    peer.send(frame(RST_STREAM, 0, 3, word(8)) + frame(WINDOW_UPDATE, 0, 3, word(9)))

    assert peer.read() == []
    assert peer.connection.open_streams == 0


def test_a_graceful_end_takes_two_steps() -> None:
    """Calls on their way after the first GOAWAY are taken; after the PING's answer new ones are refused."""
    peer = _asked(1)
    connection = peer.connection
    connection.announce_end()
    connection.announce_end()
    goaway, ping = peer.read()
    peer.send(call(3) + frame(6, 1, 0, b"notours!"))
    taken = [event.stream for event in peer.events]
    early = connection.done
    peer.send(frame(6, 1, 0, ping.payload) + call(5))
    final, refused = peer.read()
    connection.refuse_new()
    connection.answer_bare(3, b"\x88")

    assert goaway.payload == word(2**31 - 1) + word(0)
    assert taken == [1, 3]
    assert not early
    assert final.payload == word(3) + word(0)
    assert (refused.stream, refused.word) == (5, ErrorCode.REFUSED_STREAM)
    assert connection.done
    assert not connection.finished


def test_after_the_end_nothing_is_said() -> None:
    """A connection that is over takes no second end."""
    peer = Peer()
    peer.send(b"\xff" * 20)
    peer.read()
    connection = peer.connection
    connection.announce_end()
    connection.refuse_new()
    ended = [connection.fault]
    connection.abandon(Abuse.STALLED)

    assert peer.read() == []
    assert [connection.fault] == ended

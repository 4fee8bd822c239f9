"""Peers that cost more than any client has a reason to, and Envoy, which is never taken for one (DECISIONS 27)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ratelimit_service.wire.http2 import huffman
from ratelimit_service.wire.http2.budgets import SECOND_US, Abuse, Budgets
from ratelimit_service.wire.http2.events import ConnectionLimits
from ratelimit_service.wire.http2.faults import Flood
from ratelimit_service.wire.http2.frames import ErrorCode
from support.http2_frames import (
    ACK,
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    call,
    frame,
    headers,
    settings,
    word,
)

Load = Callable[[int], bytes]
"""The n-th thing that an abuser sends, n from 0; streams are 2n+1 and 2n+3."""


def _bomb(number: int) -> bytes:
    # One entry of 4,000 bytes goes to the table and is then named by one byte each time.
    first = b"\x40\x01a" + b"\x7f\xa1\x1e" + bytes(4_000)
    return frame(HEADERS, END_HEADERS, 2 * number + 1, first + 1_000 * b"\xbe")


def _continuations(number: int) -> bytes:
    return frame(CONTINUATION, 0, 1, b"") if number else headers(1, flags=0)


def _fat(number: int) -> bytes:
    return headers(2 * number + 1, 130 * [(b"x" * 50, b"y" * 50)], 5)


FLOODS: list[tuple[Abuse, Load]] = [
    (Abuse.RAPID_RESET, lambda n: call(2 * n + 1) + frame(RST_STREAM, 0, 2 * n + 1, word(8))),
    (Abuse.RAPID_RESET, lambda n: headers(2 * n + 1) + frame(RST_STREAM, 0, 2 * n + 1, word(8))),
    (Abuse.RAPID_RESET, lambda n: call(2 * n + 1) + frame(PRIORITY, 0, 2 * n + 1, word(2 * n + 1) + b"\0")),
    (Abuse.RAPID_RESET, lambda n: headers(2 * n + 1, [(b"Bad", b"x")], 5)),
    (Abuse.SETTINGS, lambda n: settings((4, 100 + n))),
    (Abuse.SETTINGS, lambda n: frame(SETTINGS, ACK, 0)),
    (Abuse.PING, lambda n: frame(PING, 0, 0, bytes(8))),
    (Abuse.PING, lambda n: frame(PING, ACK, 0, bytes(8))),
    (Abuse.PRIORITY, lambda n: frame(PRIORITY, 0, 2 * n + 1, word(0) + b"\0")),
    (Abuse.WINDOW_UPDATE, lambda n: frame(WINDOW_UPDATE, 0, 0, word(1))),
    (Abuse.EMPTY_DATA, lambda n: frame(DATA, 0, 1) if n else headers(1)),
    (Abuse.EMPTY_DATA, lambda n: frame(DATA, PADDED, 1, b"\xff" + bytes(255)) if n else headers(1)),
    (Abuse.EMPTY_DATA, lambda n: frame(DATA, 0, 1, b"x") if n else headers(1, [(b"Bad", b"x")])),
    (Abuse.UNKNOWN_FRAME, lambda n: frame(0x77, 0, 0)),
    (Abuse.UNKNOWN_FRAME, lambda n: frame(7, 0, 0, bytes(8))),
    (Abuse.HEADER_BLOCK, _bomb),
    (Abuse.HEADER_BLOCK, _continuations),
    (Abuse.HEADER_BLOCK, _fat),
    (Abuse.STREAMS, lambda n: headers(2 * n + 1)),
]


@pytest.mark.parametrize(("kind", "load"), FLOODS)
def test_a_flood_ends_with_enhance_your_calm(kind: Abuse, load: Load) -> None:
    """Within one second of any load of that kind; a well-behaved connection beside it goes on."""
    abuser, friend = Peer(ConnectionLimits(streams=100)), Peer()
    sent = 0
    while not abuser.connection.finished and sent < 20_000:
        abuser.send(load(sent))
        sent += 1
    friend.send(call(1))
    ended = abuser.end()

    assert ended is not None
    assert ended[0] == ErrorCode.ENHANCE_YOUR_CALM
    assert isinstance(abuser.connection.fault, Flood)
    assert abuser.connection.fault.abuse is kind
    assert len(friend.events) == 1
    assert abuser.connection.held_bytes < 100_000


@pytest.mark.parametrize(("kind", "load"), [case for case in FLOODS if case[0] is not Abuse.HEADER_BLOCK])
def test_half_of_every_budget_is_no_abuse(kind: Abuse, load: Load) -> None:
    """However many seconds it goes on."""
    peer = Peer(ConnectionLimits(streams=100))
    half = {Abuse.RAPID_RESET: 500, Abuse.SETTINGS: 49, Abuse.STREAMS: 500}.get(kind, 499)
    for number in range(4 * half):
        peer.send(load(number))
        peer.now_us += SECOND_US // half
        peer.read()

    assert not peer.connection.finished


def test_envoy_whose_calls_all_time_out_keeps_its_connection() -> None:
    """5 s of 10,000 calls a second, each reset 20 ms later without an answer (DECISIONS 27)."""
    peer = Peer()
    stream = 1
    for _ in range(250):
        for _ in range(200):
            peer.send(call(stream))
            stream += 2
        peer.now_us += 20_000
        peer.send(b"".join(frame(RST_STREAM, 0, old, word(8)) for old in range(stream - 400, stream, 2)))

    assert not peer.connection.finished
    assert peer.connection.open_streams == 0
    assert peer.connection.streams_seen == 50_000


def test_resets_of_answered_calls_are_free() -> None:
    """Users leave as they like; what was answered is no abuse at any rate."""
    peer = Peer()
    for stream in range(1, 60_001, 2):
        peer.send(call(stream))
        peer.connection.answer_bare(stream, b"\x88")
        peer.send(frame(RST_STREAM, 0, stream, word(8)))
        peer.connection.output()

    assert not peer.connection.finished


def test_window_updates_for_answers_are_free() -> None:
    """Two for each, as clients send them that open both windows at once."""
    peer = Peer()
    for stream in range(1, 10_001, 2):
        peer.send(call(stream))
        peer.connection.answer_bare(stream, b"\x88")
        peer.send(frame(WINDOW_UPDATE, 0, stream, word(5)) + frame(WINDOW_UPDATE, 0, 0, word(5)))
        peer.connection.output()

    assert not peer.connection.finished


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_budget_is_spent_to_its_last_unit(count: int) -> None:
    """At the limit it holds, one more breaks it, and calls answered in the second add to it."""
    budgets = Budgets(1)
    budgets.spend(Abuse.PRIORITY, 5, 7)
    within = [budgets.spend(Abuse.RAPID_RESET, 5, 7 + count) for _ in range(10 + count)]

    assert all(within)
    assert not budgets.spend(Abuse.RAPID_RESET, 5 + SECOND_US - 1, 7 + count)
    assert budgets.spend(Abuse.RAPID_RESET, 5 + SECOND_US, 7 + count)


# ── what only time shows ─────────────────────────────────────────────────────────────────────────────────────────────

PATIENCE_US = 10 * SECOND_US


def _looks(peer: Peer, *, seconds: int) -> bool:
    """Look every second as the transport does; whether something was found."""
    found = False
    for _ in range(seconds):
        peer.now_us += SECOND_US
        found = found or peer.connection.overdue(peer.now_us - PATIENCE_US, peer.now_us)
    return found


STALLS = [
    ("half a frame", call(1)[:30]),
    ("half a header block", headers(1, flags=0)),
    ("a call without its body", headers(1)),
    ("half a body", headers(1) + frame(DATA, 0, 1, b"x")),
    ("an answer without a window", settings((4, 0)) + call(1)),
]


@pytest.mark.parametrize(("name", "data"), STALLS, ids=[name for name, _ in STALLS])
def test_what_is_begun_and_left_is_noticed(name: str, data: bytes) -> None:
    """Not in the first ten seconds, and before twenty-two have passed."""
    peer = Peer()
    peer.send(data)
    for event in peer.events:
        peer.connection.begin(event.stream, b"\x88")
        peer.connection.send(event.stream, b"answer", b"\x89")

    assert not _looks(peer, seconds=9)
    assert _looks(peer, seconds=13)
    peer.connection.abandon(Abuse.STALLED)
    assert peer.end() == (ErrorCode.ENHANCE_YOUR_CALM, peer.connection._newest)


def test_trickling_is_noticed_too() -> None:
    """A byte of a frame each second does not begin it anew."""
    peer = Peer()
    data = call(1)[:40]
    noticed = False
    for byte in data:
        peer.send(bytes((byte,)))
        noticed = noticed or _looks(peer, seconds=1)

    assert noticed


def test_busy_and_idle_connections_are_left_alone() -> None:
    """Calls that end, a watch that says nothing, and silence are no stall."""
    peer = Peer()
    peer.send(call(1))
    peer.connection.begin(1, b"\x88")
    found = False
    for stream in range(3, 103, 2):
        peer.send(headers(stream))
        found = found or _looks(peer, seconds=1)
        peer.send(frame(DATA, END_STREAM, stream, b"x"))
        peer.connection.answer_bare(stream, b"\x88")

    assert not found
    assert not _looks(peer, seconds=50)


def test_a_frame_that_follows_another_has_its_own_time() -> None:
    """The rest of a read is dated by the read that left it."""
    peer = Peer()
    whole = call(1)
    peer.send(whole[:30])
    assert not _looks(peer, seconds=8)
    peer.send(whole[30:] + call(3)[:30])

    assert not _looks(peer, seconds=8)


def test_memory_of_one_connection_is_bounded() -> None:
    """Bodies in frames of one byte, on as many streams as there may be, cost no more than their bytes."""
    peer = Peer(ConnectionLimits(streams=100, body_bytes=100_000))
    for stream in range(1, 201, 2):
        peer.send(headers(stream))
    for stream in range(1, 201, 2):
        peer.send(b"".join(frame(DATA, 0, stream, b"x") for _ in range(1_000)))
    whole = sum(len(getattr(entry, "body", b"")) for entry in peer.connection._receiving.values())

    assert peer.connection.held_bytes == whole == 100_000


def test_blocks_that_are_remembered_are_few_and_short() -> None:
    """Sixty-four at most, none above a kibibyte."""
    peer = Peer()
    for stream in range(1, 401, 2):
        peer.send(headers(stream, [*CALL, (b"x-number", b"%d" % stream)], 5))
    peer.send(headers(401, [*CALL, *(12 * [(b"x-long", b"y" * 100)])], 5))
    memo = peer.connection._blocks.memo

    assert 0 < len(memo) <= 64
    assert max(map(len, memo)) <= 1_024


def test_a_huffman_bomb_is_no_bomb() -> None:
    """Symbols are at least five bits, so a string grows to 8/5 at most."""
    packed = huffman.encode(b"0" * 8_000)

    assert len(huffman.decode(packed)) * 5 <= len(packed) * 8

"""The same calls through the native transport and through grpcio, byte for byte: they end alike.

Compared are `:status`, `grpc-status`, all DATA and how the stream ended, and `grpc-message` where the words are ours on
both sides. Where the two part, it is listed in `DIFFERENCES`, with what each does and why.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ratelimit_service.transport.contract import Decider, Transport
from ratelimit_service.transport.tls import TlsSettings
from ratelimit_service.wire.rls.client import encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request
from support.differential import MOST_MESSAGE_BYTES, Call, Outcome, ask, side_by_side
from support.rls_messages import requests, wire_requests
from support.transports import ASK, CHECK, TRANSPORTS, WATCH

Ports = Mapping[str, int]


def head(path: str = ASK, *more: tuple[str, str], method: str = "POST", kind: str | None = "application/grpc"):
    """The header block of a call."""
    first = ((":method", method), (":scheme", "http"), (":path", path), (":authority", "tidegate"), ("te", "trailers"))
    return (*first, *([] if kind is None else [("content-type", kind)]), *more)


def message(body: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(body)) + body


SOUND = message(encode_request(Request(b"d", (Descriptor(((b"user", b"ann"),)),))))
PACKED = gzip.compress(SOUND[5:], mtime=0)


class Difference(NamedTuple):
    """Where the transports part.

    Attributes:
        call: What is asked.
        native, grpcio: How it ends; words are left out, and None is never asked.
        why: The reason.
    """

    call: Call
    native: Outcome
    grpcio: Outcome | None
    why: str


def _call(
    *fields: tuple[str, str], chunks: tuple[bytes, ...] = (SOUND,), kind: str | None = "application/grpc"
) -> Call:
    return Call("", head(ASK, *fields, kind=kind), chunks)


INTERNAL, UNIMPLEMENTED = Outcome(200, 13), Outcome(200, 12)
DECIDED = Outcome(200, 0, "", SOUND)
EMPTY = Outcome(200, 0, "", message(b""))
NOT_GRPC = Outcome(415, -1, "", b"this port speaks gRPC: content-type must be application/grpc\n")
NOT_POST = Outcome(405, -1, "", b"this port speaks gRPC: the method must be POST\n")
DIFFERENCES = {
    # Heads.
    "another content-type": Difference(
        _call(kind="text/html"), NOT_GRPC, DECIDED, "the specification asks for 415, h2spec for a body (DECISIONS 28)"
    ),
    "no content-type": Difference(_call(kind=None), NOT_GRPC, DECIDED, "as above"),
    "content-type twice": Difference(_call(("content-type", "application/grpc")), NOT_GRPC, DECIDED, "as above"),
    "messages of JSON": Difference(_call(kind="application/grpc+json"), UNIMPLEMENTED, DECIDED, "protobuf only"),
    "GET": Difference(Call("", head(method="GET"), ()), NOT_POST, Outcome(reset=2), "an answer that a browser shows"),
    "HEAD": Difference(Call("", head(method="HEAD"), ()), NOT_POST._replace(body=b""), INTERNAL, "as above"),
    "no te": Difference(
        Call("", tuple(field for field in head() if field[0] != "te"), (SOUND,)), DECIDED, Outcome(reset=2),
        "it only tells proxies apart; harmless",
    ),
    "no :authority": Difference(
        Call("", tuple(field for field in head() if field[0] != ":authority"), (SOUND,)), DECIDED, Outcome(reset=2),
        "HTTP/2 does not ask for it (RFC 9113 §8.3.1)",
    ),
    "a header list of 17 kB": Difference(
        _call(("x-large", "y" * 17_000)), Outcome(reset=11), DECIDED, "we advertise 16 KiB and hold to it"
    ),
    "a content-length that lies": Difference(
        _call(("content-length", "3")), Outcome(reset=1), DECIDED, "malformed (RFC 9113 §8.1.1)"
    ),
    "a deadline of nine digits": Difference(
        _call(("grpc-timeout", "000000001S")), INTERNAL, DECIDED, "the specification has eight at most"
    ),
    "a deadline with a blank": Difference(_call(("grpc-timeout", "1 S")), INTERNAL, DECIDED, "it has none"),
    "two deadlines": Difference(
        _call(("grpc-timeout", "10S"), ("grpc-timeout", "20S")), INTERNAL, DECIDED, "which of them is meant is unknown"
    ),
    "deflate": Difference(
        _call(("grpc-encoding", "deflate")), UNIMPLEMENTED, DECIDED, "gzip is what Envoy and clients use"
    ),
    "an unknown encoding": Difference(
        _call(("grpc-encoding", "br")), UNIMPLEMENTED, INTERNAL, "the specification asks for UNIMPLEMENTED"
    ),
    # Bodies.
    "no message": Difference(_call(chunks=()), INTERNAL, None, "grpcio never answers"),
    "an empty DATA frame": Difference(_call(chunks=(b"",)), INTERNAL, None, "as above"),
    "a prefix cut short": Difference(_call(chunks=(b"\0\0",)), INTERNAL, None, "as above"),
    "a message cut short": Difference(_call(chunks=(SOUND[:-1],)), INTERNAL, None, "as above"),
    "two messages": Difference(_call(chunks=(SOUND + SOUND,)), INTERNAL, DECIDED, "one is asked for; grpcio drops one"),
    "bytes after the message": Difference(_call(chunks=(SOUND + b"x",)), INTERNAL, DECIDED, "as above"),
    "an unknown flag": Difference(
        _call(chunks=(b"\2" + SOUND[1:],)), INTERNAL, EMPTY, "grpcio hands over an empty message instead"
    ),
    "gzip of no bytes": Difference(
        _call(("grpc-encoding", "gzip"), chunks=(message(b"", 1),)), INTERNAL, EMPTY, "gzip has a head at least"
    ),
}  # fmt: skip
"""All that is known and stays so. Two more depend on time and order: a deadline of a few µs has passed when the native
transport looks and not when grpcio does; and grpcio refuses good deadlines too once a connection has sent a bad one.
"""


# ── calls that end alike ─────────────────────────────────────────────────────────────────────────────────────────────

CODES = st.sampled_from([b"UNAVAILABLE", b"INVALID_ARGUMENT", b"INTERNAL", b"UNKNOWN", b"RESOURCE_EXHAUSTED"])
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(str.strip) | st.sampled_from(
    ["50 % é\n\t~", ""]
)
BODIES = st.one_of(
    requests.map(encode_request),
    wire_requests,
    st.builds(lambda code, words: encode_request(Request(code, (Descriptor(((words.encode(), b""),)),))), CODES, WORDS),
    st.sampled_from(
        [encode_request(Request(b"late", ())), b"", b"\x0a\xff", b"\x12\x05\x0a\x03\xff", b"\x0a\xe5\x07" + b"a" * 997]
    ),
    st.binary(max_size=30),
).filter(lambda body: len(body) <= MOST_MESSAGE_BYTES)
HEALTH = st.sampled_from([b"", b"\x0a\x09ratelimit", b"\x0a\x04nope", b"\x0a\x05", b"\x08\x01", b"\x0a\x02\xff\xff"])
TIMEOUTS = st.builds(
    "{}{}".format, st.integers(10, 99_999_999), st.sampled_from("SMH")
) | st.integers(10_000_000, 99_999_999).map("{}u".format)  # fmt: skip
FIELDS = st.lists(
    st.one_of(
        TIMEOUTS.map(lambda text: ("grpc-timeout", text)),
        st.tuples(st.sampled_from(["x-a", "x-b", "user-agent"]), st.sampled_from(["", "1", "a b"])),
        st.tuples(st.just("traceparent"), st.text("0123456789abcdef-", max_size=55)),
        st.tuples(st.just("x-bytes-bin"), st.sampled_from(["", "AAAA", "/+8="])),
        st.just(("x-large", "y" * 5_000)),
    ),
    max_size=4, unique_by=lambda field: field[0],
)  # fmt: skip


def _cut(data: bytes, places: Sequence[int]) -> tuple[bytes, ...]:
    """DATA frames, empty ones too."""
    ends = sorted(place % (len(data) + 1) for place in places)
    return tuple(data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True))


PLACES = st.lists(st.integers(0, 2_000), max_size=3)
PLAIN = st.builds(
    lambda body, fields, places, trailers: Call("plain", head(ASK, *fields), _cut(message(body), places), trailers),
    BODIES, FIELDS, PLACES, st.booleans(),
)  # fmt: skip
GZIP = st.builds(
    lambda body, places: Call(
        "gzip", head(ASK, ("grpc-encoding", "gzip")), _cut(message(gzip.compress(body, mtime=0), 1), places)
    ),
    BODIES, PLACES,
)  # fmt: skip
NOT_PACKED = BODIES.map(lambda body: Call("gzip", head(ASK, ("grpc-encoding", "gzip")), (message(body),)))
CHECKS = HEALTH.map(lambda body: Call("health", head(CHECK), (message(body),)))
WATCHES = HEALTH.map(lambda body: Call("health", head(WATCH), (message(body),), watches=True))
GIVEN_UP = st.just(Call("given up", head(), (message(encode_request(Request(b"never", ()))),), gives_up=True))
OVERSIZED = st.builds(
    lambda body, places: Call("refused: too long", head(), _cut(message(body), places)),
    st.integers(MOST_MESSAGE_BYTES + 1, 5_000).map(bytes), PLACES,
)  # fmt: skip
BOMBS = st.integers(MOST_MESSAGE_BYTES + 1, 100_000).map(
    lambda size: Call(
        "refused: too long", head(ASK, ("grpc-encoding", "gzip")), (message(gzip.compress(bytes(size)), 1),)
    )
)
BROKEN_GZIP = st.sampled_from(
    [b"xxxxxx", PACKED[:-4], PACKED[:12], PACKED[:-8] + bytes(8), PACKED + b"x", PACKED * 2]
).map(lambda packed: Call("refused: gzip", head(ASK, ("grpc-encoding", "gzip")), (message(packed, 1),)))
UNSAID_GZIP = st.sampled_from([(), (("grpc-encoding", "identity"),)]).map(
    lambda fields: Call("refused: gzip", head(ASK, *fields), (message(PACKED, 1),))
)
UNKNOWN = st.sampled_from(["/a.B/C", "/", "nopath", ASK + "/", ASK + "?x=1", ASK.replace("Should", "should")]).map(
    lambda path: Call("refused: unknown method", head(path), (SOUND,))
)
BAD_TIMEOUTS = ("1", "S", "", "1x", "-1S", "+1S", "1s", "1.5S")
CALLS = st.one_of(
    PLAIN, GZIP, NOT_PACKED, CHECKS, WATCHES, GIVEN_UP, OVERSIZED, BOMBS, BROKEN_GZIP, UNSAID_GZIP, UNKNOWN
)


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with side_by_side() as found:
        yield found


def _comparable(call: Call, outcome: Outcome) -> Outcome:
    """The words of a refusal are each transport's own."""
    return outcome._replace(words="") if call.kind.startswith("refused") else outcome


def _both(ports: Ports, calls: Sequence[Call], order: Sequence[int], cuts: Sequence[int]) -> dict[str, list[Outcome]]:
    return {
        name: [
            _comparable(call, outcome)
            for call, outcome in zip(calls, ask(port, calls, order, cuts), strict=True)
        ]
        for name, port in ports.items()
    }  # fmt: skip


@given(
    st.lists(CALLS, min_size=1, max_size=8),
    st.lists(st.integers(0, 7), max_size=24),
    st.lists(st.integers(0, 2_000), max_size=6),
)
@example([Call("plain", head(), (SOUND,))] * 8, [0, 3, 1, 2] * 6, [1, 9, 24, 33, 60])
@example([Call("refused: gzip", head(ASK, ("grpc-encoding", "gzip")), (message(PACKED * 2, 1),))], [], [])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_calls_end_alike_on_both_transports(ports: Ports, calls: list[Call], order: list[int], cuts: list[int]) -> None:
    """Several calls at once on one connection, their frames in turns, the bytes in pieces."""
    found = _both(ports, calls, order, cuts)

    assert found["native"] == found["grpcio"]


@pytest.mark.parametrize("text", BAD_TIMEOUTS)
def test_a_bad_deadline_is_refused_by_both(ports: Ports, text: str) -> None:
    """With INTERNAL; alone on its connection, since grpcio takes it ill."""
    found = _both(ports, [Call("refused: deadline", head(ASK, ("grpc-timeout", text)), (SOUND,))], [], [])

    assert found["native"] == found["grpcio"] == [INTERNAL]


@pytest.mark.parametrize("name", DIFFERENCES)
def test_where_they_part_is_known(ports: Ports, name: str) -> None:
    """Each listed difference is still there, on both sides as it is told."""
    call, native, grpcio, _why = DIFFERENCES[name]
    told = {"native": native, **({"grpcio": grpcio} if grpcio is not None else {})}

    assert {each: ask(ports[each], [call], [], [])[0]._replace(words="") for each in told} == told


METADATA = st.lists(
    st.tuples(st.sampled_from(["x-a", "x-b"]), st.text("abc 019", max_size=5).map(str.strip))
    | st.tuples(st.just("x-c-bin"), st.binary(max_size=5)),
    max_size=4,
)


@given(BODIES, METADATA, st.booleans(), st.sampled_from([None, 30.0]), st.sampled_from([ASK, CHECK, "/a.B/C"]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_grpcio_client_sees_no_difference(
    ports: Ports, body: bytes, metadata: list, packs: bool, timeout_s: float | None, path: str
) -> None:
    """Any metadata, packed or not, with a deadline and without; the words of an unknown method are each one's own."""
    compression = grpc.Compression.Gzip if packs else grpc.Compression.NoCompression
    seen = {}
    for name, port in ports.items():
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = channel.unary_unary(path).future(
                body, metadata=metadata, compression=compression, timeout=timeout_s
            )  # fmt: skip
            code = call.code()
            words = "" if code is grpc.StatusCode.UNIMPLEMENTED else call.details()
            seen[name] = code, words, call.result() if code is grpc.StatusCode.OK else None

    assert seen["native"] == seen["grpcio"]


# ── planted bugs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _with_another_cap(decider: Decider, addresses: Sequence[str], tls: TlsSettings | None, most: int) -> Transport:
    """A planted bug: the cap does not hold."""
    return TRANSPORTS["native"](decider, addresses, tls, 2 * most)


def _with_a_lost_byte(decider: Decider, addresses: Sequence[str], tls: TlsSettings | None, most: int) -> Transport:
    """A planted bug: the last byte of a message is lost."""

    class Shortened:
        def decide(self, body, now, deadline_us, reply):
            return decider.decide(body[:-1], now, deadline_us, reply)

    return TRANSPORTS["native"](Shortened(), addresses, tls, most)


@pytest.mark.parametrize(
    ("mutant", "call"),
    [
        (_with_another_cap, Call("refused: too long", head(), (message(bytes(MOST_MESSAGE_BYTES + 1)),))),
        (_with_a_lost_byte, Call("plain", head(), (SOUND,))),
    ],
)
def test_the_comparison_finds_planted_bugs(mutant, call: Call) -> None:
    """A server whose cap does not hold, and one that loses a byte."""
    with side_by_side({**TRANSPORTS, "native": mutant}) as ports:
        found = _both(ports, [call], [], [])

    assert found["native"] != found["grpcio"]

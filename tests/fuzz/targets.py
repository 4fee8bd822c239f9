"""What is fuzzed: each target takes any bytes and fails with AssertionError where the code and its oracle part.

An expected error (a malformed message, a broken block) is an answer like any other. Nothing here knows the fuzzer, so
that the kept corpus runs as plain tests on every interpreter.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar
from urllib.parse import unquote_to_bytes

import hpack
from envoy.service.ratelimit.v3 import rls_pb2
from fuzz.payload_targets import fuzz_envelope, fuzz_record
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from ratelimit_service.wire.grpc import calls
from ratelimit_service.wire.grpc.health import decode_health_request
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.http2.connection import Connection
from ratelimit_service.wire.http2.events import Cancelled, ConnectionLimits, Event, Request
from ratelimit_service.wire.http2.fields import Shape
from ratelimit_service.wire.http2.hpack import Decoder, HeaderListTooLarge, HpackError, encode
from ratelimit_service.wire.http2.sending import Form
from ratelimit_service.wire.protobuf import MalformedMessage
from ratelimit_service.wire.rls import messages
from ratelimit_service.wire.rls.client import encode_request
from ratelimit_service.wire.rls.decode import MalformedRequest, decode_request

FORM: Final = Form(calls.RESPONSE_HEAD, calls.OK_TRAILERS)
LIMITS: Final = ConnectionLimits(streams=4, body_bytes=2_000, header_list_bytes=2_000, header_block_bytes=3_000)
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST: Final = encode(
    [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a"), (b"content-type", b"application/grpc")]
)
MOST_HELD_BYTES: Final = LIMITS.body_bytes + 2**20 + LIMITS.header_block_bytes + 16_384 + 9
MOST_MESSAGE_BYTES: Final = 1_000
SMALL_LIST_BYTES: Final = 64
STRICTER: Final = "field"
"""Where upb reads on: a known field of another wire type."""


Kind = TypeVar("Kind")
Bad = TypeVar("Bad", bound=Exception)


def _outcome(read: Callable[[bytes], Kind], data: bytes, kind: type[Bad]) -> Kind | Bad:
    """What `read` makes of `data`; an expected error is a value."""
    try:
        return read(data)
    except kind as error:
        return error


def _pieces(data: bytes) -> Iterator[bytes]:
    """Parts led by a byte that gives their length."""
    at = 0
    while at < len(data):
        yield data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]


def fuzz_hpack(data: bytes) -> None:
    """Header blocks of one connection, each led by its length; the oracle is the package `hpack`."""
    ours, theirs = Decoder(most_list_bytes=10**6), hpack.Decoder(max_header_list_size=10**6)
    small = Decoder(most_list_bytes=SMALL_LIST_BYTES)
    for block in _pieces(data):
        expected = _outcome(lambda each: list(theirs.decode(each, raw=True)), block, hpack.HPACKError)
        fields = _outcome(ours.decode, block, HpackError)
        if isinstance(fields, HpackError):
            # Ours is stricter in one thing: no integer needs more than five bytes after its prefix.
            assert isinstance(expected, hpack.HPACKError) or "too long" in str(fields), (block, expected)
            return
        assert fields == expected, (block, fields, expected)
        assert Decoder(most_list_bytes=10**6).decode(encode(fields)) == fields
        size_bytes = sum(len(name) + len(value) + 32 for name, value in fields)
        capped = _outcome(small.decode, block, Exception)
        assert (
            capped == fields if size_bytes <= SMALL_LIST_BYTES else isinstance(capped, HpackError | HeaderListTooLarge)
        )
        if isinstance(capped, HpackError):
            # It was not read to its end, so its table is out of step.
            return


def _frames(data: bytes) -> bytes:
    """Frames made of (type, flags, stream, length, payload), so that their lengths are right.

    Type 0x81 stands for HEADERS with a sound request before the payload.
    """
    made, at = [], 0
    while at + 4 <= len(data):
        kind, flags, stream, length = data[at : at + 4]
        payload = data[at + 4 : at + 4 + length]
        if kind == 0x81:
            kind, payload = 1, REQUEST + payload
        made.append(len(payload).to_bytes(3, "big") + bytes((kind, flags, 0, 0, 0, stream)) + payload)
        at += 4 + length
    return b"".join(made)


def _told(events: list[Event]) -> list[tuple[str, int, bytes]]:
    return [(type(each).__name__, each.stream, getattr(each, "body", b"")) for each in events]


def _play(reads: list[bytes], *, answers: bool) -> tuple[list[tuple[str, int, bytes]], bytes, bool, int]:
    """What a connection tells and writes; where it answers, calls end in every way there is."""
    connection = Connection(LIMITS)
    told: list[tuple[str, int, bytes]] = []
    written, now_us = connection.output(), 0
    for read in reads:
        now_us += 1_000
        events = connection.receive(read, now_us)
        told += _told(events)
        if answers:
            for event in events:
                _answer(connection, event)
        written += connection.output()
        assert 0 <= connection.held_bytes <= MOST_HELD_BYTES
        assert connection.open_streams <= LIMITS.streams
        connection.overdue(now_us - 500, now_us)
    at = 0
    while at < len(written):
        at += 9 + int.from_bytes(written[at : at + 3], "big")
    assert at == len(written)
    gone = {number for kind, number, _ in told if kind == "Cancelled"}
    return [each for each in told if each[1] not in gone], written, connection.finished, connection.held_bytes


def _answer(connection: Connection, event: Event) -> None:
    if isinstance(event, Cancelled):
        return
    body = event.body if isinstance(event, Request) else b"too long"
    if event.stream % 4 == 1:
        connection.answer(event.stream, FORM, body * 9)
    elif event.stream % 8 == 3:
        connection.answer_bare(event.stream, FORM.trailers)
    else:
        connection.begin(event.stream, FORM.head)
        connection.send(event.stream, body or b"x")
        connection.send(event.stream, b"x", FORM.trailers)


def fuzz_connection(data: bytes) -> None:
    """A client's bytes. The first one says whether they are frames to be built, are led by the preface, and are cut."""
    if not data:
        return
    how, rest = data[0], data[1:]
    sent = _frames(rest) if how & 1 else rest
    if how & 2:
        sent = PREFACE + b"\0\0\0\4\0\0\0\0\0" + sent
    step = 1 + (how >> 3)
    cut = [sent[at : at + step] for at in range(0, len(sent), step)]
    if how & 4:
        _play([sent], answers=True)
        _play(cut, answers=True)
    else:
        assert _play(cut, answers=False) == _play([sent], answers=False)


def fuzz_rls(data: bytes) -> None:
    """A `RateLimitRequest`; the oracle is upb, which refuses strings that are no UTF-8 and does not know field 4."""
    theirs = _outcome(rls_pb2.RateLimitRequest.FromString, data, DecodeError)
    ours = _outcome(decode_request, data, MalformedRequest)
    if isinstance(ours, MalformedRequest):
        assert 0 <= ours.offset <= len(data)
        assert isinstance(theirs, DecodeError) or ours.reason.startswith(STRICTER), (data, ours.reason)
        return
    assert decode_request(encode_request(ours)) == ours
    if isinstance(theirs, DecodeError):
        assert not data.isascii(), data
    else:
        _assert_same(ours, theirs)


def _assert_same(ours: messages.Request, theirs: rls_pb2.RateLimitRequest) -> None:
    assert ours.domain == theirs.domain.encode()
    assert ours.hits_addend == theirs.hits_addend
    assert len(ours.descriptors) == len(theirs.descriptors)
    for mine, other in zip(ours.descriptors, theirs.descriptors, strict=True):
        assert mine.entries == tuple((entry.key.encode(), entry.value.encode()) for entry in other.entries)
        assert (mine.override is None) is not other.HasField("limit")
        if mine.override is not None:
            assert (mine.override.requests, mine.override.unit) == (other.limit.requests_per_unit, other.limit.unit)
        assert mine.hits == (other.hits_addend.value if other.HasField("hits_addend") else None)


def fuzz_grpc(data: bytes) -> None:
    """One field of the head by the first byte, or a message: its prefix, its gzip, its cap."""
    how, rest = data[:1], data[1:]
    if how == b"t":
        _timeout(rest)
    elif how == b"p":
        text = rest.decode(errors="replace")
        assert unquote_to_bytes(calls.percent_encode(text)) == text.encode()
        assert calls.percent_encode(text).isascii()
    elif how == b"h":
        _health(rest)
    elif how == b"c":
        kind, _, encoding = rest.partition(b"\0")
        call = calls.read_call(Shape(b"POST", b"/a", {b"content-type": kind, b"grpc-encoding": encoding}, None, 4))
        assert isinstance(call, calls.Refusal) or kind.startswith(b"application/grpc")
    else:
        _message(rest, compressed=how < b"\x80")


def _timeout(text: bytes) -> None:
    """The oracle is the grammar of the gRPC specification, by hand."""
    found = calls.read_timeout_us(text)
    sound = 2 <= len(text) <= 9 and text[-1:] in b"HMSmun" and all(0x30 <= byte <= 0x39 for byte in text[:-1])
    assert (found is not None) is sound, text
    assert found is None or 0 <= found <= 99_999_999 * 3_600_000_000


def _health(body: bytes) -> None:
    theirs = _outcome(health_pb2.HealthCheckRequest.FromString, body, DecodeError)
    service = _outcome(decode_health_request, body, MalformedMessage)
    if isinstance(service, MalformedMessage):
        assert isinstance(theirs, DecodeError) or service.reason.startswith(STRICTER), (body, service.reason)
    elif isinstance(theirs, DecodeError):
        assert not body.isascii(), body
    else:
        assert service == theirs.service.encode()


def _message(body: bytes, *, compressed: bool) -> None:
    found = calls.read_message(body, compressed=compressed, most_bytes=MOST_MESSAGE_BYTES)
    length = int.from_bytes(body[1:5], "big")
    if len(body) < 5 or (length <= MOST_MESSAGE_BYTES and length != len(body) - 5):
        allowed: tuple[bytes | GrpcCode, ...] = (GrpcCode.INTERNAL,)
    elif length > MOST_MESSAGE_BYTES:
        allowed = (GrpcCode.RESOURCE_EXHAUSTED,)
    elif body[0] == 0:
        allowed = (body[5:],)
    else:
        allowed = _unpacked(body[5:]) if body[0] == 1 and compressed else (GrpcCode.INTERNAL,)
    assert (found.code if isinstance(found, GrpcError) else found) in allowed, (body, found)
    assert isinstance(found, GrpcError) or len(found) <= MOST_MESSAGE_BYTES


def _unpacked(packed: bytes) -> tuple[bytes | GrpcCode, ...]:
    """What may come of gzip. Unpacked in one go, which is safe: what was sent is small."""
    reader = zlib.decompressobj(wbits=31)
    text = _outcome(reader.decompress, packed, zlib.error)
    if isinstance(text, zlib.error):
        # What comes before the fault may be too much already.
        return (GrpcCode.INTERNAL, GrpcCode.RESOURCE_EXHAUSTED)
    if len(text) > MOST_MESSAGE_BYTES:
        return (GrpcCode.RESOURCE_EXHAUSTED,)
    # Nothing may follow it: a second member that is passed over would be half a message.
    return (text,) if reader.eof and not reader.unused_data else (GrpcCode.INTERNAL,)


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "hpack": fuzz_hpack,
    "connection": fuzz_connection,
    "rls": fuzz_rls,
    "grpc": fuzz_grpc,
    "envelope": fuzz_envelope,
    "record": fuzz_record,
}
"""By the name of their corpus."""

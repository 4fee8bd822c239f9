"""gRPC's rules for requests and answers (grpc/grpc doc/PROTOCOL-HTTP2.md)."""

from __future__ import annotations

import gzip

import hpack
import pytest

from ratelimit_service.wire.grpc.calls import (
    Call,
    Refusal,
    frame_message,
    percent_encode,
    read_call,
    read_message,
    read_timeout_us,
    trailers_only,
)
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.http2.fields import Shape

GZIPPED = gzip.compress(b"hello", mtime=0)


def _shape(method: bytes = b"POST", **fields: bytes) -> Shape:
    named = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return Shape(method, b"/a/b", named, None, 3)


def _fields(refusal: Call | Refusal) -> dict[bytes, bytes]:
    assert isinstance(refusal, Refusal)
    return dict(hpack.Decoder().decode(refusal.head, raw=True))


@pytest.mark.parametrize(
    "content_type", [b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=utf-8"]
)
def test_a_grpc_call_is_read(content_type: bytes) -> None:
    """The content types of protobuf messages, with and without gzip."""
    assert read_call(_shape(content_type=content_type)) == Call(b"/a/b", gzip=False)
    assert read_call(_shape(content_type=content_type, grpc_encoding=b"identity")) == Call(b"/a/b", gzip=False)
    assert read_call(_shape(content_type=content_type, grpc_encoding=b"gzip")) == Call(b"/a/b", gzip=True)


@pytest.mark.parametrize("content_type", [b"", b"text/html", b"application/grpcx", b"application/json"])
def test_what_is_not_grpc_is_told_so_in_http(content_type: bytes) -> None:
    """415 with a short text; the answer to HEAD has its length and no body."""
    refusal = read_call(_shape(content_type=content_type))
    bare = read_call(_shape(b"HEAD", content_type=content_type))

    assert _fields(refusal)[b":status"] == b"415"
    assert int(_fields(refusal)[b"content-length"]) == len(refusal.body) > 0
    assert _fields(bare) == _fields(refusal)
    assert bare.body == b""


def test_a_call_is_a_post() -> None:
    """405 names the method that is allowed."""
    assert _fields(read_call(_shape(b"GET", content_type=b"application/grpc")))[b"allow"] == b"POST"


@pytest.mark.parametrize(
    "fields",
    [{"content_type": b"application/grpc+json"}, {"content_type": b"application/grpc", "grpc_encoding": b"br"}],
)
def test_an_encoding_that_we_do_not_speak_is_unimplemented(fields: dict[str, bytes]) -> None:
    """UNIMPLEMENTED; for compression with what is spoken."""
    found = _fields(read_call(_shape(**fields)))

    assert found[b"grpc-status"] == b"12"
    assert found.get(b"grpc-accept-encoding") == (b"identity,gzip" if "grpc_encoding" in fields else None)


@pytest.mark.parametrize(
    ("text", "timeout_us"),
    [
        (b"1H", 3_600_000_000), (b"2M", 120_000_000), (b"3S", 3_000_000), (b"4m", 4_000), (b"5u", 5), (b"1999n", 1),
        (b"0m", 0), (b"99999999H", 99_999_999 * 3_600_000_000), (b"999999999m", None), (b"m", None), (b"", None),
        (b"1", None), (b"1x", None), (b"-1m", None), (b"1.5S", None), (b" 1m", None), (b"\xd9\xa1m", None),
    ],
)  # fmt: skip
def test_a_timeout_is_read(text: bytes, timeout_us: int | None) -> None:
    """Units, rounding, at most eight digits, nothing else."""
    assert read_timeout_us(text) == timeout_us


@pytest.mark.parametrize(
    ("body", "compressed", "expected"),
    [
        (frame_message(b"hello"), False, b"hello"),
        (frame_message(b""), False, b""),
        (frame_message(b"hello"), True, b"hello"),
        (b"\1" + frame_message(GZIPPED)[1:], True, b"hello"),
        (b"\1" + frame_message(GZIPPED)[1:], False, GrpcCode.INTERNAL),
        (b"\2" + frame_message(b"hello")[1:], True, GrpcCode.INTERNAL),
        (b"", False, GrpcCode.INTERNAL),
        (b"\0\0\0\0", False, GrpcCode.INTERNAL),
        (frame_message(b"hello")[:-1], False, GrpcCode.INTERNAL),
        (2 * frame_message(b"hello"), False, GrpcCode.INTERNAL),
        (frame_message(bytes(100)), False, bytes(100)),
        (frame_message(bytes(101)), False, GrpcCode.RESOURCE_EXHAUSTED),
        (b"\1" + frame_message(gzip.compress(bytes(100)))[1:], True, bytes(100)),
        (b"\1" + frame_message(gzip.compress(bytes(101)))[1:], True, GrpcCode.RESOURCE_EXHAUSTED),
        (b"\1" + frame_message(b"nonsense")[1:], True, GrpcCode.INTERNAL),
        (b"\1" + frame_message(GZIPPED[:-3])[1:], True, GrpcCode.INTERNAL),
    ],
)
def test_a_request_is_one_message(body: bytes, compressed: bool, expected: bytes | GrpcCode) -> None:
    """Whole, alone, within the cap before and after decompression."""
    found = read_message(body, compressed=compressed, most_bytes=100)

    assert (found.code if isinstance(found, GrpcError) else found) == expected


def test_an_error_is_one_block() -> None:
    """Status and message, percent-encoded; an empty message is left out."""
    fields = _fields(trailers_only(GrpcError(GrpcCode.INTERNAL, "50 % of ü\n")))

    assert fields[b"grpc-status"] == b"13"
    assert fields[b"grpc-message"] == b"50 %25 of %C3%BC%0A"
    assert b"grpc-message" not in _fields(trailers_only(GrpcError(GrpcCode.INTERNAL, "")))
    assert percent_encode(" ~") == b" ~"

"""gRPC over HTTP/2: what a request's head asks for, and how an answer is framed.

Source: grpc/grpc `doc/PROTOCOL-HTTP2.md`.
"""

from __future__ import annotations

import re
import zlib
from struct import Struct
from typing import Final

import msgspec

from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.http2 import hpack
from ratelimit_service.wire.http2.fields import Shape

PREFIX_BYTES: Final = 5
"""Compressed flag and length before each message."""
_MOST_TIMEOUT_DIGITS: Final = 8
_UNIT_NS: Final = {
    b"H": 3_600_000_000_000, b"M": 60_000_000_000, b"S": 1_000_000_000, b"m": 1_000_000, b"u": 1_000, b"n": 1,
}  # fmt: skip
_CONTENT_TYPE: Final = re.compile(rb"application/grpc(?:\+proto)?(?:;.*)?").fullmatch
_ANY_GRPC: Final = re.compile(rb"application/grpc(?:[+;].*)?").fullmatch
ENCODINGS: Final = b"identity,gzip"
"""What messages may be compressed with."""

RESPONSE_HEAD: Final = hpack.encode([(b":status", b"200"), (b"content-type", b"application/grpc")])
OK_TRAILERS: Final = hpack.encode([(b"grpc-status", b"0")])
read_prefix: Final = Struct(">BI").unpack_from
"""(compressed flag, length) at the beginning of a message."""
write_prefix: Final = Struct(">BI").pack


class Call(msgspec.Struct, frozen=True):
    """What a head asks for.

    Attributes:
        path: `/package.Service/Method`.
        gzip: Messages flagged as compressed are gzip; else they may not be compressed.
    """

    path: bytes
    gzip: bool


class Refusal(msgspec.Struct, frozen=True):
    """A head that is no gRPC call, as the header block and body of its answer; an empty body is trailers-only."""

    head: bytes
    body: bytes = b""


def read_call(head: Shape) -> Call | Refusal:
    """What requests of this shape ask for; kept in `head.call` by the caller, since shapes repeat."""
    fields = head.fields
    if not _ANY_GRPC(fields.get(b"content-type", b"")):
        return _not_grpc(head, 415, b"this port speaks gRPC: content-type must be application/grpc\n")
    if head.method != b"POST":
        return _not_grpc(head, 405, b"this port speaks gRPC: the method must be POST\n")
    if not _CONTENT_TYPE(fields[b"content-type"]):
        return trailers_only(
            GrpcError(GrpcCode.UNIMPLEMENTED, "messages are protobuf: application/grpc or application/grpc+proto")
        )
    encoding = fields.get(b"grpc-encoding", b"identity")
    if encoding not in (b"identity", b"gzip"):
        error = GrpcError(GrpcCode.UNIMPLEMENTED, "grpc-encoding is identity or gzip")
        return trailers_only(error, ((b"grpc-accept-encoding", ENCODINGS),))
    return Call(head.path, encoding == b"gzip")


def read_timeout_us(text: bytes) -> int | None:
    """Microseconds of a `grpc-timeout`, nanoseconds rounded down; None: it is none."""
    digits = text[:-1]
    unit_ns = _UNIT_NS.get(text[-1:])
    if unit_ns is None or not digits.isdigit() or len(digits) > _MOST_TIMEOUT_DIGITS:
        return None
    return int(digits) * unit_ns // 1_000


def read_message(body: bytes, *, compressed: bool, most_bytes: int) -> bytes | GrpcError:
    """The one message of a unary request.

    Args:
        body: All DATA of the request.
        compressed: The head named gzip.
        most_bytes: Longest message, after decompression too.
    """
    if len(body) < PREFIX_BYTES:
        return GrpcError(GrpcCode.INTERNAL, "the request holds no message")
    length = int.from_bytes(body[1:PREFIX_BYTES], "big")
    if length > most_bytes:
        return GrpcError(
            GrpcCode.RESOURCE_EXHAUSTED, f"a message of {length} bytes, more than the {most_bytes} allowed"
        )
    if len(body) != PREFIX_BYTES + length:
        return GrpcError(GrpcCode.INTERNAL, "a unary request is one message, no less and no more")
    message = body[PREFIX_BYTES:]
    if body[0] == 0:
        return message
    if body[0] != 1 or not compressed:
        return GrpcError(GrpcCode.INTERNAL, "the message is flagged as compressed without a grpc-encoding")
    return _inflate(message, most_bytes)


def _inflate(message: bytes, most_bytes: int) -> bytes | GrpcError:
    reader = zlib.decompressobj(wbits=31)
    try:
        # One byte more than allowed shows a bomb without unpacking it.
        text = reader.decompress(message, most_bytes + 1)
    except zlib.error:
        return GrpcError(GrpcCode.INTERNAL, "the message is no gzip")
    if len(text) > most_bytes:
        return GrpcError(GrpcCode.RESOURCE_EXHAUSTED, f"a message of more than the {most_bytes} bytes allowed")
    if not reader.eof or reader.unused_data:
        return GrpcError(GrpcCode.INTERNAL, "the message is not one whole gzip")
    return text


def message_prefix(size: int) -> bytes:
    """What stands before a message of `size` bytes that is not compressed."""
    return write_prefix(0, size)


def frame_message(message: bytes) -> bytes:
    """`message` behind its prefix, not compressed."""
    return message_prefix(len(message)) + message


def trailers_only(error: GrpcError, fields: tuple[tuple[bytes, bytes], ...] = ()) -> Refusal:
    """The one header block of an answer without a message."""
    head = [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", b"%d" % error.code)]
    if error.message:
        head.append((b"grpc-message", percent_encode(error.message)))
    return Refusal(hpack.encode([*head, *fields]))


def percent_encode(text: str) -> bytes:
    """`grpc-message`: UTF-8, every byte outside printable ASCII and `%` itself as %XX."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in text.encode()
    )


def _not_grpc(request: Shape, status: int, text: bytes) -> Refusal:
    head = [
        (b":status", b"%d" % status),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(text)),
    ]
    # The answer to HEAD tells the length of a body that is not there (RFC 9110 §9.3.2).
    if status == 405:
        head.append((b"allow", b"POST"))
    return Refusal(hpack.encode(head), b"" if request.method == b"HEAD" else text)


BAD_TIMEOUT: Final = trailers_only(
    GrpcError(GrpcCode.INTERNAL, "grpc-timeout is at most 8 digits and one of H M S m u n")
)

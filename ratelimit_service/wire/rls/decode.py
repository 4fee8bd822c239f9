"""Read Envoy's rate-limit request from bytes.

Sources: envoy/service/ratelimit/v3/rls.proto, envoy/extensions/common/ratelimit/v3/ratelimit.proto.
Written by hand because upb refuses strings that are no UTF-8, which Envoy forwards and which must be
limited like any other (DECISIONS 1). Otherwise this accepts what upb accepts and reads it alike, which
tests/properties/wire holds it to, with one exception: a known field sent with another wire type is an
error here and an unknown field there, because a limit that is silently not read is worse than a refusal.

`decode_request` is the hot path: lengths and tags of one byte are read in line, since a call costs as
much as the read itself. A submessage is never cut out of the body, so the work is linear in its length.
"""

from __future__ import annotations

from ratelimit_service.wire.protobuf import (
    MAX_DEPTH,
    MalformedMessage,
    read_size,
    read_tag,
    read_varint,
    skip_field,
)
from ratelimit_service.wire.rls.messages import Descriptor, Override, Request

_FIRST_STRING, _SECOND_STRING = 0x0A, 0x12  # fields 1 and 2 as LENGTH
_FIRST_VARINT, _SECOND_VARINT, _THIRD_VARINT, _FOURTH_VARINT = 0x08, 0x10, 0x18, 0x20
_THIRD_MESSAGE = 0x1A
_ONE_BYTE = 0x80  # a tag or length below this is one byte long

_UINT32_MASK = 0xFFFF_FFFF
_INT32_SIGN = 0x8000_0000


class MalformedRequest(MalformedMessage):
    """Bytes that are no `RateLimitRequest`; the only error that `decode_request` raises."""


def decode_request(body: bytes) -> Request:
    """Return the `RateLimitRequest` in `body`.

    Any bytes may come, of any length; domain, keys and values need not be UTF-8. A singular field that
    comes twice counts once, the last time, and messages are merged, as protobuf has it.

    Raises:
        MalformedRequest: `body` is no such message.
    """
    try:
        return _read_request(body)
    except MalformedMessage as error:
        raise MalformedRequest(error.offset, error.reason) from None
    except IndexError:
        raise MalformedRequest(len(body), "truncated") from None


def _read_request(body: bytes) -> Request:
    domain = b""
    descriptors: list[Descriptor] = []
    hits_addend = at = 0
    end = len(body)
    while at < end:
        tag = body[at]
        at += 1
        if tag >= _ONE_BYTE:
            tag, at = read_tag(body, at - 1, end)
        if tag == _SECOND_STRING:
            size = body[at]
            stop = at + 1 + size
            if size < _ONE_BYTE and stop <= end:
                at += 1
            else:
                at, stop = read_size(body, at, end)
            descriptors.append(_read_descriptor(body, at, stop))
            at = stop
        elif tag == _FIRST_STRING:
            start, at = read_size(body, at, end)
            domain = body[start:at]
        elif tag == _THIRD_VARINT:
            value, at = read_varint(body, at, end)
            hits_addend = value & _UINT32_MASK
        else:
            at = _skip_unknown(body, at, end, tag, known=3, depth=MAX_DEPTH)
    return Request(domain, tuple(descriptors), hits_addend)


def _read_descriptor(body: bytes, at: int, end: int) -> Descriptor:
    entries: list[tuple[bytes, bytes]] = []
    override: Override | None = None
    hits: int | None = None
    is_negative = False
    while at < end:
        tag = body[at]
        at += 1
        if tag >= _ONE_BYTE:
            tag, at = read_tag(body, at - 1, end)
        if tag == _FIRST_STRING:
            size = body[at]
            stop = at + 1 + size
            if size < _ONE_BYTE and stop <= end:
                at += 1
            else:
                at, stop = read_size(body, at, end)
            entries.append(_read_entry(body, at, stop))
            at = stop
        elif tag == _SECOND_STRING:
            start, at = read_size(body, at, end)
            override = _read_override(body, start, at, override)
        elif tag == _THIRD_MESSAGE:
            start, at = read_size(body, at, end)
            hits = _read_hits(body, start, at, hits)
        elif tag == _FOURTH_VARINT:
            value, at = read_varint(body, at, end)
            is_negative = value != 0
        else:
            at = _skip_unknown(body, at, end, tag, known=4, depth=MAX_DEPTH - 1)
    return Descriptor(tuple(entries), override, hits, is_negative)


def _read_entry(body: bytes, at: int, end: int) -> tuple[bytes, bytes]:
    # The shape that every encoder writes: key, then value, each shorter than 128 bytes, and nothing else.
    if end - at > 3 and body[at] == _FIRST_STRING:
        key_size = body[at + 1]
        key_stop = at + 2 + key_size
        if key_stop + 1 < end and body[key_stop] == _SECOND_STRING:
            value_size = body[key_stop + 1]
            if key_size | value_size < _ONE_BYTE and key_stop + 2 + value_size == end:
                return body[at + 2 : key_stop], body[key_stop + 2 : end]
    key = value = b""
    while at < end:
        tag, at = read_tag(body, at, end)
        if tag == _FIRST_STRING:
            start, at = read_size(body, at, end)
            key = body[start:at]
        elif tag == _SECOND_STRING:
            start, at = read_size(body, at, end)
            value = body[start:at]
        else:
            at = _skip_unknown(body, at, end, tag, known=2, depth=MAX_DEPTH - 2)
    return key, value


def _read_override(body: bytes, at: int, end: int, before: Override | None) -> Override:
    requests, unit = (0, 0) if before is None else (before.requests, before.unit)
    while at < end:
        tag, at = read_tag(body, at, end)
        if tag == _FIRST_VARINT:
            value, at = read_varint(body, at, end)
            requests = value & _UINT32_MASK
        elif tag == _SECOND_VARINT:
            value, at = read_varint(body, at, end)
            # Enums are int32 on the wire; an unknown number, a negative one too, is kept for the error message.
            unit = ((value & _UINT32_MASK) ^ _INT32_SIGN) - _INT32_SIGN
        else:
            at = _skip_unknown(body, at, end, tag, known=2, depth=MAX_DEPTH - 2)
    return Override(requests, unit)


def _read_hits(body: bytes, at: int, end: int, before: int | None) -> int:
    hits = before or 0  # a wrapper that is present but empty is an explicit 0
    while at < end:
        tag, at = read_tag(body, at, end)
        if tag == _FIRST_VARINT:
            hits, at = read_varint(body, at, end)
        else:
            at = _skip_unknown(body, at, end, tag, known=1, depth=MAX_DEPTH - 2)
    return hits


def _skip_unknown(body: bytes, at: int, end: int, tag: int, *, known: int, depth: int) -> int:
    """Skip a field that is none of the message's own, which are numbered 1 to `known`."""
    if tag >> 3 <= known:
        raise MalformedRequest(at, f"field {tag >> 3} with wire type {tag & 7}")
    return skip_field(body, at, end, tag, depth)

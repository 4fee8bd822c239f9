"""Write Envoy's rate-limit response as bytes.

Sources: envoy/service/ratelimit/v3/rls.proto, google/protobuf/struct.proto and duration.proto.
Fields are written in the order of their numbers and left out at their default, as every protobuf library does.
Numbers saturate at what their field can carry, because a wrapped number would be read as a small one.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from typing import Final

from ratelimit_service.wire.protobuf import write_bytes, write_varint
from ratelimit_service.wire.rls.messages import CurrentLimit, Status, Verdict

_MAX_UINT32: Final = 0xFFFF_FFFF
_MAX_DURATION_S: Final = 315_576_000_000  # duration.proto: 10,000 years
_MAX_DOUBLE: Final = float.fromhex("0x1.fffffffffffffp+1023")

_CODE: Final = (b"\x08\x01", b"\x08\x02")  # field 1: OK, OVER_LIMIT
_PLAIN_STATUS: Final = (b"\x12\x02\x08\x01", b"\x12\x02\x08\x02")  # a status of a code and nothing else

_NULL_VALUE: Final = b"\x08\x00"
_BOOL_VALUE: Final = (b"\x20\x00", b"\x20\x01")


def encode_response(verdict: Verdict) -> bytes:
    """Return `verdict` as a `RateLimitResponse`.

    `remaining` and `requests` saturate to 0 … 2³²−1, `reset_s` to 0 … 315,576,000,000. Text that is no
    Unicode (lone surrogates) is sent with `?` in its place, since Envoy would refuse the whole message.

    Raises:
        TypeError: `metadata` holds a value that is not JSON-like.
    """
    parts = [_CODE[verdict.over]]
    for status in verdict.statuses:
        if status.limit is None and not status.remaining and status.reset_s is None:
            parts.append(_PLAIN_STATUS[status.over])
        else:
            parts.append(write_bytes(b"\x12", _status(status)))
    for name, value in verdict.headers:
        parts.append(write_bytes(b"\x1a", _string(b"\x0a", name) + _string(b"\x12", value)))
    if verdict.metadata is not None:
        parts.append(write_bytes(b"\x32", _struct(verdict.metadata)))
    return b"".join(parts)


def _status(status: Status) -> bytes:
    encoded = _CODE[status.over]
    if status.limit is not None:
        encoded += _current_limit(status.limit)
    if status.remaining > 0:
        encoded += b"\x18" + write_varint(min(status.remaining, _MAX_UINT32))
    if status.reset_s is not None:
        encoded += _duration(status.reset_s)
    return encoded


@functools.lru_cache(maxsize=4096)
def _current_limit(limit: CurrentLimit) -> bytes:
    # Limits come from policies, so a few are answered again and again; overrides pass through the bounded cache.
    encoded = b""
    if limit.requests > 0:
        encoded = b"\x08" + write_varint(min(limit.requests, _MAX_UINT32))
    if limit.unit:
        encoded += b"\x10" + write_varint(limit.unit)
    return write_bytes(b"\x12", encoded + _string(b"\x1a", limit.name))


@functools.lru_cache(maxsize=4096)
def _duration(reset_s: int) -> bytes:
    if reset_s <= 0:
        return b"\x22\x00"
    return write_bytes(b"\x22", b"\x08" + write_varint(min(reset_s, _MAX_DURATION_S)))


def _struct(mapping: Mapping[str, object]) -> bytes:
    return b"".join(
        write_bytes(b"\x0a", write_bytes(b"\x0a", _text(name)) + write_bytes(b"\x12", _value(value)))
        for name, value in mapping.items()
    )


def _value(value: object) -> bytes:
    match value:
        case None:
            return _NULL_VALUE
        case bool():
            return _BOOL_VALUE[value]
        case int() | float():
            return b"\x11" + struct.pack("<d", _double(value))
        case str():
            return write_bytes(b"\x1a", _text(value))
        case Mapping():
            return write_bytes(b"\x2a", _struct(value))
        case list() | tuple():
            return write_bytes(b"\x32", b"".join(write_bytes(b"\x0a", _value(item)) for item in value))
    raise TypeError(f"metadata holds a {type(value).__name__}, which is not JSON-like")


def _double(number: float) -> float:
    # Only an int can be out of a double's range; an int of 400 digits is still a number to its reader.
    try:
        return float(number)
    except OverflowError:
        return _MAX_DOUBLE if number > 0 else -_MAX_DOUBLE


def _string(tag: bytes, text: str) -> bytes:
    return write_bytes(tag, _text(text)) if text else b""


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")

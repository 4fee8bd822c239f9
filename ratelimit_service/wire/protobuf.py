"""Protobuf's wire format on bytes: varints, tags, fields that nobody knows.

Source: protobuf.dev/programming-guides/encoding. What is accepted is what upb (the C core of every
official binding) accepts: tags and lengths of up to five bytes, values of up to ten whose surplus bits
are dropped, unknown fields skipped by wire type, groups only when closed by their own number and
nested no deeper than 100. Every reader takes `end` and never looks at a byte past it, so a
submessage cannot borrow from its parent.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import msgspec

from ratelimit_service.errors import TidegateError

MAX_DEPTH = 100
"""Messages and groups within each other, the outermost message not counted (upb's default)."""

_MAX_TAG = 0xFFFF_FFFF
_MAX_SIZE = 0x7FFF_FFFF
_UINT64_MASK = 0xFFFF_FFFF_FFFF_FFFF


class MalformedMessage(TidegateError):
    """Bytes that are no message of the expected type.

    Attributes:
        offset: Index of the first byte that cannot be right, 0 to the body's length.
        reason: What is wrong there, without values of the message.
    """

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"malformed message at byte {offset}: {reason}")
        self.offset = offset
        self.reason = reason


class WireType(enum.IntEnum):
    """The low three bits of a tag."""

    VARINT = 0
    FIXED64 = 1
    LENGTH = 2
    START_GROUP = 3
    END_GROUP = 4
    FIXED32 = 5


class Field(msgspec.Struct, frozen=True):
    """One field of a message that is read without haste.

    Attributes:
        offset: Index of its first byte after the tag.
        number: Field number, at least 1.
        wire_type: How it was sent; a caller checks it against the field's type.
        value: The unsigned 64-bit value of a VARINT, 0 otherwise.
        data: The bytes of a LENGTH, FIXED64 or FIXED32 field, empty otherwise.
    """

    offset: int
    number: int
    wire_type: WireType
    value: int = 0
    data: bytes = b""


def read_varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the unsigned 64-bit value at `at` and the index after it.

    Raises:
        MalformedMessage: It is cut off by `end` or longer than ten bytes.
    """
    if at < end and body[at] < 0x80:
        return body[at], at + 1
    return _read(body, at, end, 10)


def read_tag(body: bytes, at: int, end: int, *, least: int = 8) -> tuple[int, int]:
    """Return the tag at `at` (field number and wire type, undivided) and the index after it.

    Raises:
        MalformedMessage: It is cut off, longer than five bytes, above 2³²−1, or below `least`: its field number is 0.
    """
    if at < end and 8 <= body[at] < 0x80:
        return body[at], at + 1
    tag, after = _read(body, at, end, 5)
    if tag > _MAX_TAG or tag < least:
        raise MalformedMessage(at, "invalid field number")
    return tag, after


def read_size(body: bytes, at: int, end: int) -> tuple[int, int]:
    """Return where the bytes after the length at `at` begin and where they stop.

    Raises:
        MalformedMessage: The length is cut off, longer than five bytes, or reaches past `end`.
    """
    if at < end and (size := body[at]) < 0x80:
        start = at + 1
    else:
        size, start = _read(body, at, end, 5)
    if size > _MAX_SIZE or start + size > end:
        raise MalformedMessage(at, "length past the end")
    return start, start + size


def skip_field(body: bytes, at: int, end: int, tag: int, depth: int) -> int:
    """Return the index after the unknown field whose `tag` ends just before `at`.

    Work is linear in what is skipped and recursion-free, however groups are nested.

    Args:
        body: The whole message.
        at: First byte after the tag.
        end: Where the enclosing message stops.
        tag: The field's tag as `read_tag` gives it.
        depth: How many groups may still be nested here; `MAX_DEPTH` in the outermost message.

    Raises:
        MalformedMessage: The field is cut off, a group is not closed by its own number, groups are nested
            deeper than `depth`, or the wire type is 6 or 7.
    """
    open_groups: list[int] = []
    while True:
        wire_type = tag & 7
        if wire_type == WireType.START_GROUP:
            open_groups.append(tag >> 3)
            if len(open_groups) > depth:
                raise MalformedMessage(at, "groups nested too deep")
        elif wire_type == WireType.END_GROUP:
            if not open_groups or open_groups.pop() != tag >> 3:
                raise MalformedMessage(at, "end of a group that is not open")
        else:
            at = _skip_scalar(body, at, end, wire_type)
        if not open_groups:
            return at
        # What nobody reads may have number 0, as protobuf's own parser (upb) has it.
        tag, at = read_tag(body, at, end, least=0)


def read_fields(body: bytes) -> Iterator[Field]:
    """Yield the fields of a small message in the order sent; groups are skipped.

    For messages off the hot path: each field costs about a microsecond.

    Raises:
        MalformedMessage: `body` is no protobuf message.
    """
    at, end = 0, len(body)
    while at < end:
        tag, at = read_tag(body, at, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == WireType.VARINT:
            start = at
            value, at = read_varint(body, at, end)
            yield Field(start, number, WireType.VARINT, value=value)
        elif wire_type == WireType.LENGTH:
            start, at = read_size(body, at, end)
            yield Field(start, number, WireType.LENGTH, data=body[start:at])
        else:
            start, at = at, skip_field(body, at, end, tag, MAX_DEPTH)
            if wire_type != WireType.START_GROUP:
                yield Field(start, number, WireType(wire_type), data=body[start:at])


def write_varint(value: int) -> bytes:
    """Return `value` (0 to 2⁶⁴−1) in the fewest bytes."""
    if value < 0x80:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return (value & 0x7F | (value & 0x3F80) << 1 | 0x80).to_bytes(2, "little")
    if value < 0x1000_0000:
        # The groups of seven bits moved apart, at once; most counts end here.
        spread = value & 0x7F | (value & 0x3F80) << 1 | (value & 0x1F_C000) << 2 | (value & 0xFE0_0000) << 3
        if value < 0x20_0000:
            return (spread | 0x8080).to_bytes(3, "little")
        return (spread | 0x80_8080).to_bytes(4, "little")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_bytes(tag: bytes, data: bytes) -> bytes:
    """Return a LENGTH field: `tag`, the length, `data`."""
    return tag + write_varint(len(data)) + data


_ONE_BYTE = tuple(bytes((value,)) for value in range(0x80))


def _read(body: bytes, at: int, end: int, max_bytes: int) -> tuple[int, int]:
    value = shift = 0
    for index in range(at, min(end, at + max_bytes)):
        byte = body[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _UINT64_MASK, index + 1
        shift += 7
    if end < at + max_bytes:
        raise MalformedMessage(end, "truncated")
    raise MalformedMessage(at, f"varint longer than {max_bytes} bytes")


def _skip_scalar(body: bytes, at: int, end: int, wire_type: int) -> int:
    if wire_type == WireType.VARINT:
        return read_varint(body, at, end)[1]
    if wire_type == WireType.LENGTH:
        return read_size(body, at, end)[1]
    if wire_type == WireType.FIXED64:
        after = at + 8
    elif wire_type == WireType.FIXED32:
        after = at + 4
    else:
        raise MalformedMessage(at, f"unknown wire type {wire_type}")
    if after > end:
        raise MalformedMessage(end, "truncated")
    return after

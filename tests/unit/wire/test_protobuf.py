"""Edges of the wire format that the laws reach only by luck, with the words that people read."""

from __future__ import annotations

import pytest

from ratelimit_service.wire.protobuf import (
    MAX_DEPTH,
    MalformedMessage,
    WireType,
    read_fields,
    read_size,
    read_tag,
    read_varint,
    skip_field,
    write_varint,
)


@pytest.mark.parametrize(
    ("body", "offset", "reason"),
    [
        (b"", 0, "truncated"),
        (b"\x80", 1, "truncated"),
        (b"\x80" * 10, 0, "longer than 10 bytes"),
    ],
)
def test_a_bad_varint_is_refused(body: bytes, offset: int, reason: str) -> None:
    """Cut off, or longer than any 64-bit value."""
    with pytest.raises(MalformedMessage) as caught:
        read_varint(body, 0, len(body))

    assert caught.value.offset == offset
    assert reason in caught.value.reason


@pytest.mark.parametrize("value", [0, 127, 128, 16_383, 16_384, 2**32, 2**63, 2**64 - 1])
def test_a_varint_is_read_as_written(value: int) -> None:
    """At the edges of every length that matters."""
    data = write_varint(value)

    assert read_varint(data, 0, len(data)) == (value, len(data))


@pytest.mark.parametrize("body", [b"\x00", b"\x07", b"\x80\x00", b"\x80\x80\x80\x80\x10", b"\x88\x80\x80\x80\x80\x00"])
def test_a_bad_tag_is_refused(body: bytes) -> None:
    """Field number 0, above 2³²−1, or longer than five bytes."""
    with pytest.raises(MalformedMessage):
        read_tag(body, 0, len(body))


@pytest.mark.parametrize("body", [b"\x01", b"\x80\x01", b"\x80\x80\x80\x80\x08"])
def test_a_length_past_the_end_is_refused(body: bytes) -> None:
    """One byte short, and 2³¹."""
    with pytest.raises(MalformedMessage, match="length past the end"):
        read_size(body, 0, len(body))


def test_a_submessage_cannot_borrow_from_its_parent() -> None:
    """`end` holds even where the body goes on."""
    with pytest.raises(MalformedMessage, match="past the end"):
        read_size(b"\x02ab", 0, 2)
    with pytest.raises(MalformedMessage, match="truncated"):
        read_varint(b"\x80\x01", 0, 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x2e", "unknown wire type 6"),
        (b"\x2f", "unknown wire type 7"),
        (b"\x29\x00\x00", "truncated"),
        (b"\x2d\x00", "truncated"),
        (b"\x2c", "not open"),
        (b"\x2b\x34", "not open"),
        (b"\x2b", "truncated"),
        (b"\x2b" * (MAX_DEPTH + 1), "too deep"),
    ],
)
def test_a_bad_unknown_field_is_refused(body: bytes, reason: str) -> None:
    """Wire types that do not exist, fields cut off, groups that do not close."""
    with pytest.raises(MalformedMessage, match=reason):
        list(read_fields(body))


def test_groups_of_the_deepest_nesting_are_skipped() -> None:
    """One hundred, as upb has it."""
    body = b"\x2b" * MAX_DEPTH + b"\x2c" * MAX_DEPTH

    assert skip_field(body, 1, len(body), 0x2B, MAX_DEPTH) == len(body)
    assert list(read_fields(body)) == []


def test_fields_are_read_with_their_wire_types() -> None:
    """Varint, fixed64, length and fixed32, in the order sent."""
    body = b"\x08\x96\x01" + b"\x11" + bytes(8) + b"\x1a\x01a" + b"\x25" + bytes(4)
    fields = [(field.number, field.wire_type, field.value, field.data) for field in read_fields(body)]

    assert fields == [
        (1, WireType.VARINT, 150, b""),
        (2, WireType.FIXED64, 0, bytes(8)),
        (3, WireType.LENGTH, 0, b"a"),
        (4, WireType.FIXED32, 0, bytes(4)),
    ]

"""Strings and parts of messages, as proto3 reads and writes them."""

from __future__ import annotations

from ratelimit_service.wire.protobuf import Field, MalformedMessage, WireType, write_bytes, write_varint


def tag(number: int, wire_type: WireType = WireType.LENGTH) -> bytes:
    """The tag of a field."""
    return write_varint(number << 3 | wire_type)


def write_text(number: int, text: str) -> bytes:
    """A string field; nothing for the empty string, which is proto3's default.

    Lone surrogates, which no protobuf string holds, are sent as `?`.
    """
    return write_bytes(tag(number), text.encode(errors="replace")) if text else b""


def write_number(number: int, value: int) -> bytes:
    """A varint field, 0 to 2⁶⁴−1; nothing for 0."""
    return tag(number, WireType.VARINT) + write_varint(value) if value else b""


def read_text(field: Field) -> str:
    """The value of a string field.

    Raises:
        MalformedMessage: It was not sent as bytes, or is no UTF-8.
    """
    try:
        return read_data(field).decode()
    except UnicodeDecodeError as error:
        raise MalformedMessage(field.offset, f"field {field.number} is no UTF-8") from error


def read_data(field: Field) -> bytes:
    """The bytes of a string, bytes or message field.

    Raises:
        MalformedMessage: It was not sent as bytes.
    """
    if field.wire_type is not WireType.LENGTH:
        raise MalformedMessage(field.offset, f"field {field.number} with wire type {field.wire_type}")
    return field.data


def read_number(field: Field) -> int:
    """The value of an integer, enum or bool field.

    Raises:
        MalformedMessage: It was not sent as a varint.
    """
    if field.wire_type is not WireType.VARINT:
        raise MalformedMessage(field.offset, f"field {field.number} with wire type {field.wire_type}")
    return field.value

"""The client's half of the rate-limit protocol: write requests, read responses.

For the command line and for tests; nothing here is on the hot path.
Sources as in `decode` and `encode`.
"""

from __future__ import annotations

from ratelimit_service.wire.protobuf import (
    Field,
    MalformedMessage,
    WireType,
    read_fields,
    write_bytes,
    write_varint,
)
from ratelimit_service.wire.rls.messages import CurrentLimit, Descriptor, Request, Status, Unit, Verdict

_OVER_LIMIT = 2  # RateLimitResponse.Code
_UINT32_MASK = 0xFFFF_FFFF
_UINT64_MASK = 0xFFFF_FFFF_FFFF_FFFF
_UNITS = {int(unit): unit for unit in Unit}


def encode_request(request: Request) -> bytes:
    """Return `request` as a `RateLimitRequest`; hits are sent modulo 2³² (request) and 2⁶⁴ (descriptor)."""
    parts = [write_bytes(b"\x0a", request.domain)] if request.domain else []
    parts += [write_bytes(b"\x12", _descriptor(descriptor)) for descriptor in request.descriptors]
    if request.hits_addend:
        parts.append(b"\x18" + write_varint(request.hits_addend & _UINT32_MASK))
    return b"".join(parts)


def decode_response(body: bytes) -> Verdict:
    """Return the `RateLimitResponse` in `body`; what `Verdict` cannot hold, and `dynamic_metadata`, is left out.

    An unknown code counts as OK and an unknown unit as `Unit.UNKNOWN`.

    Raises:
        MalformedMessage: `body` is no such message.
    """
    over = False
    statuses: list[Status] = []
    headers: list[tuple[str, str]] = []
    for field in read_fields(body):
        if field.number == 1:
            over = _integer(field) == _OVER_LIMIT
        elif field.number == 2:
            statuses.append(_status(_data(field)))
        elif field.number == 3:
            headers.append(_header(_data(field)))
    return Verdict(over, tuple(statuses), tuple(headers))


def _descriptor(descriptor: Descriptor) -> bytes:
    parts = [
        write_bytes(b"\x0a", write_bytes(b"\x0a", key) + write_bytes(b"\x12", value))
        for key, value in descriptor.entries
    ]
    if descriptor.override is not None:
        requests = b"\x08" + write_varint(descriptor.override.requests & _UINT32_MASK)
        # A negative enum number is sent as the 64-bit two's complement, as protobuf sends every int32.
        parts.append(write_bytes(b"\x12", requests + b"\x10" + write_varint(descriptor.override.unit & _UINT64_MASK)))
    if descriptor.hits is not None:
        parts.append(write_bytes(b"\x1a", b"\x08" + write_varint(descriptor.hits & _UINT64_MASK)))
    if descriptor.is_negative:
        parts.append(b"\x20\x01")
    return b"".join(parts)


def _status(body: bytes) -> Status:
    over, remaining = False, 0
    limit: CurrentLimit | None = None
    reset_s: int | None = None
    for field in read_fields(body):
        if field.number == 1:
            over = _integer(field) == _OVER_LIMIT
        elif field.number == 2:
            limit = _current_limit(_data(field))
        elif field.number == 3:
            remaining = _integer(field) & _UINT32_MASK
        elif field.number == 4:
            reset_s = _seconds(_data(field))
    return Status(over, limit, remaining, reset_s)


def _current_limit(body: bytes) -> CurrentLimit:
    requests, unit, name = 0, Unit.UNKNOWN, ""
    for field in read_fields(body):
        if field.number == 1:
            requests = _integer(field) & _UINT32_MASK
        elif field.number == 2:
            unit = _UNITS.get(_integer(field), Unit.UNKNOWN)
        elif field.number == 3:
            name = _text(field)
    return CurrentLimit(requests, unit, name)


def _seconds(body: bytes) -> int:
    seconds = 0
    for field in read_fields(body):
        if field.number == 1:
            seconds = _integer(field)
    return seconds


def _header(body: bytes) -> tuple[str, str]:
    name = value = ""
    for field in read_fields(body):
        if field.number == 1:
            name = _text(field)
        elif field.number == 2:
            value = _text(field)
    return name, value


def _integer(field: Field) -> int:
    if field.wire_type is not WireType.VARINT:
        raise MalformedMessage(field.offset, f"field {field.number} with wire type {field.wire_type}")
    return field.value


def _data(field: Field) -> bytes:
    if field.wire_type is not WireType.LENGTH:
        raise MalformedMessage(field.offset, f"field {field.number} with wire type {field.wire_type}")
    return field.data


def _text(field: Field) -> str:
    return _data(field).decode("utf-8", "replace")

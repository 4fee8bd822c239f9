"""Strategies and oracles for the rate-limit messages."""

from __future__ import annotations

from envoy.service.ratelimit.v3 import rls_pb2
from hypothesis import strategies as st

from ratelimit_service.wire.protobuf import write_bytes, write_varint
from ratelimit_service.wire.rls.messages import (
    CurrentLimit,
    Descriptor,
    Override,
    Request,
    Status,
    Unit,
    Verdict,
)

EDGES = (0, 1, 127, 128, 2**14, 2**31 - 1, 2**31, 2**32 - 1)
uint32s = st.sampled_from(EDGES) | st.integers(0, 2**32 - 1)
uint64s = st.sampled_from((*EDGES, 2**63, 2**64 - 1)) | st.integers(0, 2**64 - 1)
int32s = st.sampled_from((-(2**31), -1, 0, 7, 2**31 - 1)) | st.integers(-9, 9)
byte_strings = st.binary(max_size=4) | st.sampled_from((b"\xff", b"x" * 127, b"x" * 128, b"x" * 300))
texts = st.text(max_size=4) | st.sampled_from(("é", "x" * 200))

descriptors = st.builds(
    Descriptor,
    entries=st.lists(st.tuples(byte_strings, byte_strings), max_size=3).map(tuple),
    override=st.none() | st.builds(Override, requests=uint32s, unit=int32s),
    hits=st.none() | uint64s,
    is_negative=st.booleans(),
)
requests = st.builds(
    Request,
    domain=byte_strings,
    descriptors=st.lists(descriptors, max_size=3).map(tuple),
    hits_addend=uint32s,
)
statuses = st.builds(
    Status,
    over=st.booleans(),
    limit=st.none() | st.builds(CurrentLimit, requests=uint32s, unit=st.sampled_from(Unit), name=texts),
    remaining=uint32s,
    reset_s=st.none() | st.sampled_from((0, 1, 127, 128, 2**38)),
)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
verdicts = st.builds(
    Verdict,
    over=st.booleans(),
    statuses=st.lists(statuses, max_size=3).map(tuple),
    headers=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    metadata=st.none() | st.dictionaries(texts, json_like, max_size=3),
)


def request_of_upb(message: rls_pb2.RateLimitRequest) -> Request:
    """What upb read, as our value; upb does not know field 4, which is read as unset."""
    return Request(
        message.domain.encode(),
        tuple(
            Descriptor(
                tuple((entry.key.encode(), entry.value.encode()) for entry in descriptor.entries),
                Override(descriptor.limit.requests_per_unit, descriptor.limit.unit)
                if descriptor.HasField("limit")
                else None,
                descriptor.hits_addend.value if descriptor.HasField("hits_addend") else None,
            )
            for descriptor in message.descriptors
        ),
        message.hits_addend,
    )


def _tag(number: int, wire_type: int) -> bytes:
    return write_varint(number << 3 | wire_type)


def _padded(data: bytes) -> bytes:
    """The same varint, one byte longer than need be."""
    return data[:-1] + bytes((data[-1] | 0x80, 0))


@st.composite
def unknown_fields(draw, lowest: int = 5, levels: int = 2) -> bytes:
    """A field that none of our messages has, groups within groups included."""
    number = draw(st.sampled_from((lowest, 15, 16, 2047, 2**29 - 1)))
    wire_type = draw(st.sampled_from((0, 1, 2, 5, 3)))
    if wire_type == 0:
        return _tag(number, 0) + write_varint(draw(uint64s))
    if wire_type == 2:
        return _tag(number, 2) + write_bytes(b"", draw(byte_strings))
    if wire_type == 3:
        inner = draw(st.lists(unknown_fields(1, levels - 1), max_size=2)) if levels else []
        return _tag(number, 3) + b"".join(inner) + _tag(number, 4)
    return _tag(number, wire_type) + b"\x07" * (8 if wire_type == 1 else 4)


def _message(fields) -> st.SearchStrategy[bytes]:
    """Any order and repetition of `fields`, unknown ones between them."""
    return st.lists(st.one_of(*fields, unknown_fields()), max_size=5).map(b"".join)


def _varint_field(number: int, values=uint64s) -> st.SearchStrategy[bytes]:
    plain = values.map(write_varint)
    return st.builds(
        lambda tag, value: tag + value, _tags(number, 0), plain | plain.filter(lambda v: len(v) < 9).map(_padded)
    )


def _length_field(number: int, inner) -> st.SearchStrategy[bytes]:
    return st.builds(write_bytes, _tags(number, 2), inner)


def _tags(number: int, wire_type: int) -> st.SearchStrategy[bytes]:
    return st.sampled_from((_tag(number, wire_type), _tag(number, wire_type), _padded(_tag(number, wire_type))))


_utf8 = st.sampled_from((b"", b"a", b"user", "é".encode(), b"x" * 128))
_wire_entries = _message([_length_field(1, _utf8), _length_field(2, _utf8)])
_wire_overrides = _message([_varint_field(1), _varint_field(2)])
_wire_hits = _message([_varint_field(1)])
_wire_descriptors = _message(
    [_length_field(1, _wire_entries), _length_field(2, _wire_overrides), _length_field(3, _wire_hits)]
)
wire_requests = _message([_length_field(1, _utf8), _length_field(2, _wire_descriptors), _varint_field(3)])
"""Valid but unusual encodings: split submessages, repeated singular fields, padded varints, unknown fields."""

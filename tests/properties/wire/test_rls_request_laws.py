"""Laws of the request codec, with upb (xds-protos) and betterproto (envoy-data-plane) as oracles."""

from __future__ import annotations

import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.wire.rls import decode as codec
from ratelimit_service.wire.rls.client import encode_request
from ratelimit_service.wire.rls.decode import MalformedRequest, decode_request
from ratelimit_service.wire.rls.messages import Descriptor, Override, Request
from support.envoy_schema import RateLimitDescriptor, RateLimitRequest
from support.rls_messages import request_of_upb, requests, wire_requests


def _ours(body: bytes) -> Request | MalformedRequest:
    try:
        return decode_request(body)
    except MalformedRequest as error:
        return error


def _upbs(body: bytes) -> rls_pb2.RateLimitRequest | None:
    try:
        return rls_pb2.RateLimitRequest.FromString(body)
    except DecodeError:
        return None


def _without_field_4(request: Request) -> Request:
    return Request(
        request.domain,
        tuple(Descriptor(d.entries, d.override, d.hits) for d in request.descriptors),
        request.hits_addend,
    )


@given(requests)
@example(Request(b"", (Descriptor(()),)))
@example(Request(b"d", (Descriptor(((b"", b""),), Override(0, 0), 0, True),), 2**32 - 1))
@example(Request(b"d", (Descriptor(((b"k" * 127, b"v" * 128), (b"k" * 128, b"v"))),)))
def test_what_is_encoded_is_decoded(request: Request) -> None:
    """decode(encode(x)) = x, bytes that are no UTF-8 included."""
    assert request == decode_request(encode_request(request))


@given(wire_requests)
@example(bytes.fromhex("12061a0208051a00"))  # hits 5, then an empty wrapper: merged, still 5
@example(bytes.fromhex("12081202080712021002"))  # an override in two parts is one
@example(bytes.fromhex("0a01610a0162"))  # the last domain counts
@example(bytes.fromhex("0a808080808000"))  # a length of six bytes
@example(bytes.fromhex("18ffffffffffffffffff7f"))  # surplus bits of a varint are dropped
@example(bytes.fromhex("120d120b10ffffffffffffffffff01"))  # a negative enum
@example(bytes.fromhex("988080800001"))  # a tag of five bytes
@example(bytes.fromhex("98808080800001"))  # and of six
@example(b"\x2b" * 100 + b"\x2c" * 100)  # the deepest groups
@example(b"\x2b" * 101 + b"\x2c" * 101)
@example(b"\x12\xc6\x01" + b"\x2b" * 99 + b"\x2c" * 99)
@example(b"\x12\xc8\x01" + b"\x2b" * 100 + b"\x2c" * 100)
@example(b"\x12\xc7\x01\x0a\xc4\x01" + b"\x2b" * 98 + b"\x2c" * 98)
@example(b"\x12\xc9\x01\x0a\xc6\x01" + b"\x2b" * 99 + b"\x2c" * 99)
def test_what_upb_accepts_is_read_alike(body: bytes) -> None:
    """Any valid encoding of a request means the same to upb and to us; what upb refuses we refuse."""
    theirs, ours = _upbs(body), _ours(body)

    assert (theirs is None) == isinstance(ours, MalformedRequest)
    assert theirs is None or request_of_upb(theirs) == ours


@given(requests, st.data())
def test_damaged_bytes_are_refused_by_our_error_alone(request: Request, data: st.DataObject) -> None:
    """Cut, flipped and doubled bytes agree with upb, but for UTF-8 and wire types of known fields."""
    body = encode_request(request)
    cut = data.draw(st.integers(0, len(body)))
    damage = data.draw(st.binary(max_size=3))
    damaged = body[:cut] + damage + body[cut + data.draw(st.integers(0, 3)) :]

    _assert_agreement(damaged)


@given(
    st.binary(max_size=40)
    | st.lists(st.sampled_from((0, 8, 10, 11, 12, 16, 18, 24, 26, 32, 2, 3, 127, 128, 255)), max_size=24).map(bytes)
)
@example(bytes.fromhex("23000024"))  # number 0 in a group that nobody reads
def test_random_bytes_are_refused_by_our_error_alone(body: bytes) -> None:
    """No input raises anything but MalformedRequest, whose offset lies within the input."""
    _assert_agreement(body)


def _assert_agreement(body: bytes) -> None:
    ours, theirs = _ours(body), _upbs(body)

    if isinstance(ours, MalformedRequest):
        assert 0 <= ours.offset <= len(body)
        assert theirs is None or "with wire type" in ours.reason
    else:
        assert theirs is not None or not body.isascii()
        assert theirs is None or request_of_upb(theirs) == _without_field_4(ours)


@given(requests)
def test_every_truncation_is_refused_or_a_shorter_message(request: Request) -> None:
    """A message cut anywhere means the same to upb and to us, or both refuse it."""
    body = encode_request(request)

    for cut in range(len(body)):
        _assert_agreement(body[:cut])


@given(st.booleans(), st.integers(0, 3))
def test_negative_hits_are_read_as_envoys_own_schema_writes_them(is_negative: bool, hits: int) -> None:
    """Field 4, which xds-protos lacks, agrees with envoy-data-plane."""
    sent = RateLimitRequest(
        domain="d", hits_addend=hits, descriptors=[RateLimitDescriptor(is_negative_hits=is_negative)]
    )

    assert decode_request(bytes(sent)) == Request(b"d", (Descriptor((), is_negative=is_negative),), hits)


def _signed_varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    value, after = _READ_VARINT(body, at, end)
    return value - 2**64 if value >= 2**63 else value, after


def _first_domain_wins(body: bytes) -> Request:
    return Request(body[2:3], (), 0)


def _replacing_override(body: bytes, at: int, end: int, before: Override | None) -> Override:
    return _READ_OVERRIDE(body, at, end, None)


def _forgotten_hits(body: bytes, at: int, end: int, before: int | None) -> int | None:
    return _READ_HITS(body, at, end, None) or None


_READ_VARINT, _READ_OVERRIDE, _READ_HITS = codec.read_varint, codec._read_override, codec._read_hits


@pytest.mark.parametrize(
    ("name", "mutant", "body"),
    [
        ("read_varint", _signed_varint, "120d1a0b08ffffffffffffffffff01"),
        ("_read_request", _first_domain_wins, "0a01610a0162"),
        ("_read_override", _replacing_override, "12081202080712021002"),
        ("_read_hits", _forgotten_hits, "12021a00"),
    ],
)
def test_planted_bugs_break_the_law(monkeypatch: pytest.MonkeyPatch, name: str, mutant: object, body: str) -> None:
    """A signed varint, a first-wins field, an override not merged and a lost explicit 0 are seen by the oracle."""
    monkeypatch.setattr(codec, name, mutant)
    data = bytes.fromhex(body)

    with pytest.raises(AssertionError):
        _assert_agreement(data)

"""Edges of the rate-limit codec: words of refusals, work that stays linear, text that is no Unicode."""

from __future__ import annotations

import pytest
from envoy.service.ratelimit.v3 import rls_pb2

from ratelimit_service.wire.protobuf import MalformedMessage
from ratelimit_service.wire.rls import decode as codec
from ratelimit_service.wire.rls.client import decode_response, encode_request
from ratelimit_service.wire.rls.decode import MalformedRequest, decode_request
from ratelimit_service.wire.rls.encode import encode_response
from ratelimit_service.wire.rls.messages import CurrentLimit, Descriptor, Request, Status, Unit, Verdict


@pytest.mark.parametrize(
    ("body", "offset", "reason"),
    [
        ("0a", 1, "truncated"),
        ("12", 1, "truncated"),
        ("120112", 3, "truncated"),
        ("1202 0a05", 3, "length past the end"),
        ("0801", 1, "field 1 with wire type 0"),
        ("0b0c", 1, "field 1 with wire type 3"),
        ("1202 2200", 3, "field 4 with wire type 2"),
    ],
)
def test_a_refusal_says_where_and_why(body: str, offset: int, reason: str) -> None:
    """Offsets count from the start of the whole message, also within submessages."""
    with pytest.raises(MalformedRequest) as caught:
        decode_request(bytes.fromhex(body))

    assert (offset, reason) == (caught.value.offset, caught.value.reason)


@pytest.mark.parametrize(
    "body",
    ["120412020a00", "12041a020a00", "12040a020801", "12020801", "12022200", "1a00"],
)
def test_a_known_field_of_another_wire_type_is_refused(body: str) -> None:
    """In every message of a request; upb would skip it, and a limit would silently not be read."""
    with pytest.raises(MalformedRequest, match="with wire type"):
        decode_request(bytes.fromhex(body))


def test_bytes_that_are_no_utf8_are_kept() -> None:
    """What Envoy forwards is limited as it is."""
    request = Request(b"\xfe", (Descriptor(((b"\xff", b"bo\xffb"),)),))

    assert request == decode_request(encode_request(request))


def test_work_is_linear_in_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 descriptors take 20,000 reads of a descriptor and no copy of the rest."""
    reads = []
    read = codec._read_descriptor

    def counted(body: bytes, at: int, end: int) -> Descriptor:
        reads.append(end - at)
        return read(body, at, end)

    monkeypatch.setattr(codec, "_read_descriptor", counted)
    request = Request(b"d", (Descriptor(((b"k", b"v"),)),) * 20_000)
    body = encode_request(request)

    assert decode_request(body) == request
    assert len(reads) == 20_000
    assert sum(reads) < len(body)


def test_text_that_is_no_unicode_is_sent_with_question_marks() -> None:
    """A lone surrogate would make Envoy refuse the whole response, and let the request pass."""
    verdict = Verdict(
        True, (Status(True, CurrentLimit(1, Unit.DAY, "a\ud800"), 0, 1),), (("h\ud800", ""),), {"\ud800": "\ud800"}
    )
    message = rls_pb2.RateLimitResponse.FromString(encode_response(verdict))

    assert message.statuses[0].current_limit.name == "a?"
    assert message.response_headers_to_add[0].key == "h?"
    assert message.dynamic_metadata["?"] == "?"


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_numbers_out_of_a_doubles_range_saturate(number: int) -> None:
    """Metadata of a policy may hold any integer."""
    message = rls_pb2.RateLimitResponse.FromString(encode_response(Verdict(False, (), (), {"n": number})))

    assert abs(message.dynamic_metadata["n"]) > 10**308


def test_metadata_that_is_not_json_like_is_refused() -> None:
    """A programming error, not a client's."""
    with pytest.raises(TypeError, match="set"):
        encode_response(Verdict(False, (), (), {"n": {1}}))


@pytest.mark.parametrize(
    "body", [b"\x0a\x00", b"\x10\x01", b"\x12\x02\x12\x01", b"\x12\x04\x12\x02\x18\x01", b"\x1a\x02\x08\x01"]
)
def test_a_response_of_other_wire_types_is_refused(body: bytes) -> None:
    """In every message of a response."""
    with pytest.raises(MalformedMessage):
        decode_response(body)


def test_fields_of_a_newer_server_are_skipped() -> None:
    """Within every message of a response."""
    plain = Verdict(True, (Status(True, CurrentLimit(1, Unit.DAY, "n"), 0, 5),), (("k", "v"),))
    body = bytes.fromhex(
        "0802 1215 0802 1209 0801 1004 1a016e 7801 2204 0805 1000 7801 1a08 0a016b 120176 7801".replace(" ", "")
    )

    assert plain == decode_response(body)


def test_an_unknown_unit_and_code_are_read_as_unknown_and_ok() -> None:
    """A newer server is still shown."""
    verdict = decode_response(b"\x08\x09\x12\x06\x08\x09\x12\x02\x10\x63")

    assert verdict == Verdict(False, (Status(False, CurrentLimit(0, Unit.UNKNOWN)),))
    assert decode_response(b"\x12\x04\x22\x02\x10\x05") == Verdict(False, (Status(False, reset_s=0),))

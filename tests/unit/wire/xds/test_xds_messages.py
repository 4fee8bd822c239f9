"""Edges of the xDS codecs, and bytes that must never change."""

from __future__ import annotations

import gzip

import pytest

from ratelimit_service.wire.protobuf import MAX_DEPTH, MalformedMessage, write_bytes
from ratelimit_service.wire.xds import snapshot_part
from ratelimit_service.wire.xds.discovery import (
    MAX_MESSAGE_CHARS,
    MAX_REFUSALS,
    DiscoveryRequest,
    Nack,
    decode_request,
    encode_request,
    nack_of,
)
from ratelimit_service.wire.xds.rate_limit_config import decode_config, encode_config
from ratelimit_service.wire.xds.resources import Refusal, WireResource, encode_any, encode_resource
from ratelimit_service.wire.xds.snapshot_part import SnapshotTooLarge, StoredSet, decode_parts, encode_parts
from ratelimit_service.wire.xds.text import tag


def test_the_bytes_of_a_resource_are_fixed() -> None:
    """Replicas and operators of two versions meet on these."""
    resource = WireResource("Policy", "shop/a", "0f", ("calendar",), b"{}")

    assert encode_resource(resource).hex() == "0a06506f6c696379120673686f702f611a0230662208" + b"calendar".hex() + (
        "2a027b7d"
    )


def test_the_bytes_of_upstreams_config_are_fixed() -> None:
    """As envoyproxy/ratelimit's own classes write it."""
    config = {
        "domain": "d",
        "descriptors": [{"key": "k", "value": "v", "rate_limit": {"unit": "WEEK", "requests_per_unit": 3}}],
    }

    assert encode_config("n", config).hex() == "0a016e1201641a0c0a016b1201761a0408071003"


@pytest.mark.parametrize(
    "body",
    [
        b"\x08\x01",  # version_info as a number
        b"\x0a\x01\xff",  # no UTF-8
        b"\x32\x02\x12\x05",  # a detail that is cut off
        b"\x32\x03\x0a\x01\x01",  # a code as a string
    ],
)
def test_a_field_of_another_type_is_refused(body: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(MalformedMessage):
        decode_request(body)


def test_fields_that_nobody_knows_are_passed_over() -> None:
    """In the node, in the status, and details of another type."""
    node = write_bytes(tag(2), b"\x12\x01c\x0a\x01n")
    status = write_bytes(tag(6), b"\x08\x03\x12\x01m\x22\x01x" + write_bytes(tag(3), encode_any("other", b"\x01")))

    assert decode_request(node + status + b"\x82\x01\x01x") == DiscoveryRequest("", node_id="n", nack=Nack("m"))


def test_upstreams_fields_that_nobody_knows_are_passed_over() -> None:
    """Its `metadata`, and what later versions add, at every level."""
    unknown = b"\xa2\x06\x01x"
    limit = write_bytes(tag(3), b"\x10\x05" + unknown)
    body = write_bytes(tag(2), b"d") + unknown + write_bytes(tag(3), write_bytes(tag(1), b"k") + limit + unknown)

    expected = {"domain": "d", "descriptors": [{"key": "k", "rate_limit": {"requests_per_unit": 5}}]}
    assert decode_config(body) == ("", expected)


def test_fields_of_a_part_that_nobody_knows_are_passed_over() -> None:
    """A later version may add some."""
    part = gzip.compress(b"\x0a\x01v\x20\x01\xa2\x06\x01x")

    assert decode_parts([part]) == (StoredSet("v", 0, "", ()), [])


def test_a_nack_is_cut_to_what_a_request_carries() -> None:
    """However many resources are wrong, and however much there is to say of each."""
    nack = nack_of([Refusal("Policy", f"a/{number}", message="x" * 10_000) for number in range(500)], "y" * 10_000)

    assert len(nack.refusals) == MAX_REFUSALS
    assert {len(refusal.message) for refusal in nack.refusals} == {MAX_MESSAGE_CHARS}
    assert decode_request(encode_request(DiscoveryRequest("t", nack=nack))).nack == nack


def test_more_refusals_than_that_are_refused() -> None:
    """A peer that sends them is none of ours."""
    nack = Nack("", (Refusal("Policy", "a/b"),) * (MAX_REFUSALS + 1))

    with pytest.raises(MalformedMessage, match="more than 200"):
        decode_request(encode_request(DiscoveryRequest("t", nack=nack)))


def test_a_unit_of_a_later_version_is_named() -> None:
    """So that the loader's refusal says what came."""
    limit = write_bytes(tag(3), b"\x08\x63\x30\x01")
    body = write_bytes(tag(3), write_bytes(tag(1), b"k") + limit)

    assert decode_config(body)[1] == {"domain": "", "descriptors": [{"key": "k", "rate_limit": {"unit": "99"}}]}


def test_upstreams_unlimited_has_no_unit() -> None:
    """Proto3 always has one, YAML refuses it."""
    limit = write_bytes(tag(3), b"\x08\x01\x18\x01" + write_bytes(tag(5), write_bytes(tag(1), b"r") + b"\x10\x01"))
    body = write_bytes(tag(3), limit)

    assert decode_config(body)[1]["descriptors"] == [{"rate_limit": {"unlimited": True, "replaces": [{"name": "r"}]}}]


def test_descriptors_nested_too_deep_are_refused() -> None:
    """Before the interpreter's own stack is at its end."""
    body = b""
    for _ in range(MAX_DEPTH + 1):
        body = write_bytes(tag(4), body)

    with pytest.raises(MalformedMessage, match="nested too deep"):
        decode_config(write_bytes(tag(3), body))


def test_a_set_that_fits_into_no_number_of_parts_is_told() -> None:
    """Never cut."""
    stored = StoredSet("v", 1, "t", (bytes(range(256)) * 4,))

    with pytest.raises(SnapshotTooLarge, match="1 resources do not fit into 4 parts of 100 bytes"):
        encode_parts(stored, most_bytes=100, most_parts=4)


def test_the_same_set_is_the_same_bytes() -> None:
    """So that an unchanged ConfigMap is not written again."""
    stored = StoredSet("v", 1, "t", (b"one", b"two"))

    assert encode_parts(stored, most_bytes=1_000, most_parts=2) == encode_parts(stored, most_bytes=1_000, most_parts=2)


def test_the_newest_whole_set_is_taken() -> None:
    """An older whole one and a newer incomplete one stand beside it."""
    sets = [StoredSet(f"v{number}", number, "t", tuple(map(bytes, range(40)))) for number in (1, 2, 3)]
    parts = [encode_parts(stored, most_bytes=90, most_parts=8) for stored in sets]
    assert len(parts[2]) > 1

    found, problems = decode_parts([*parts[1], *parts[0], *parts[2][:-1]])

    assert found is not None
    assert found.version == "v2"
    assert problems == ["snapshot v3 lacks parts"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut off"),
        (b"no gzip", "incorrect header"),
        (gzip.compress(b"\x08\x01"), "wire type"),
        (gzip.compress(b"\x0a\x01v"), "part 0 of 0"),
        (gzip.compress(b"\x0a\x01v\x18\x02\x20\x02"), "part 2 of 2"),
        (gzip.compress(b"\x0a\x01v\x20\x41"), "part 0 of 65"),
    ],
)
def test_a_part_that_is_none_is_told(content: bytes, message: str) -> None:
    """And the rest is read."""
    good = encode_parts(StoredSet("v", 1, "t", ()), most_bytes=1_000, most_parts=1)

    found, problems = decode_parts([content, *good])

    assert found == StoredSet("v", 1, "t", ())
    assert len(problems) == 1
    assert message in problems[0]


def test_a_part_without_its_end_is_cut_off() -> None:
    """A disk that ran full while it was written."""
    (part,) = encode_parts(StoredSet("v", 1, "t", (b"x" * 100,)), most_bytes=1_000, most_parts=1)

    assert decode_parts([part[:-3]]) == (
        None,
        [f"a part of a snapshot cannot be read: malformed message at byte {len(gzip.decompress(part))}: cut off"],
    )


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes that would be gigabytes."""
    monkeypatch.setattr(snapshot_part, "MAX_PART_BYTES", 1_000)

    found, problems = decode_parts([gzip.compress(bytes(100_000))])

    assert found is None
    assert "longer than 1000 bytes" in problems[0]

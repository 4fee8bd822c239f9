"""xDS codecs against protobuf's own, with the .proto files and xds-protos as oracles."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st

import ratelimit_service.wire.xds
from ratelimit_service.wire.protobuf import MalformedMessage
from ratelimit_service.wire.xds.discovery import (
    DiscoveryRequest,
    DiscoveryResponse,
    Nack,
    decode_request,
    decode_response,
    encode_request,
    encode_resources,
    encode_response,
)
from ratelimit_service.wire.xds.rate_limit_config import UNITS, decode_config, encode_config
from ratelimit_service.wire.xds.resources import (
    Packed,
    Refusal,
    WireResource,
    decode_any,
    decode_refusal,
    decode_resource,
    encode_any,
    encode_refusal,
    encode_resource,
)
from ratelimit_service.wire.xds.snapshot_part import StoredSet, decode_parts, encode_parts
from support.proto_files import messages_of

FOLDER = Path(ratelimit_service.wire.xds.__file__).parent
OURS = messages_of(FOLDER / "config.proto")
UPSTREAM = messages_of(FOLDER / "rls_conf.proto")
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
RESOURCES = st.builds(
    WireResource, TEXTS, TEXTS, TEXTS, st.lists(TEXTS, max_size=3).map(tuple), st.binary(max_size=200)
)
REFUSALS = st.builds(Refusal, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
NACKS = st.builds(Nack, TEXTS, st.lists(REFUSALS, max_size=3).map(tuple))
REQUESTS = st.builds(
    DiscoveryRequest, TEXTS, TEXTS, TEXTS, st.lists(TEXTS, max_size=3).map(tuple), TEXTS, st.none() | NACKS
)
RESPONSES = st.builds(DiscoveryResponse, TEXTS, TEXTS, TEXTS, st.lists(st.binary(max_size=50), max_size=4).map(tuple))


@given(RESOURCES)
def test_a_resource_is_what_its_proto_says(resource: WireResource) -> None:
    """Written bytes parse to the same values by protobuf, and its bytes by us."""
    parsed = OURS["Resource"].FromString(encode_resource(resource))

    assert msgspec.structs.asdict(resource) == {
        "kind": parsed.kind,
        "name": parsed.name,
        "version": parsed.version,
        "required_features": tuple(parsed.required_features),
        "body": parsed.body,
    }
    assert decode_resource(parsed.SerializeToString()) == resource


@given(REFUSALS)
def test_a_refusal_is_what_its_proto_says(refusal: Refusal) -> None:
    """As a resource."""
    parsed = OURS["Refusal"].FromString(encode_refusal(refusal))

    assert Refusal(parsed.kind, parsed.name, parsed.version, parsed.path, parsed.message) == refusal
    assert decode_refusal(parsed.SerializeToString()) == refusal


@given(TEXTS, st.binary(max_size=20))
def test_an_any_is_protobufs(type_url: str, value: bytes) -> None:
    """Both ways."""
    parsed = any_pb2.Any.FromString(encode_any(type_url, value))

    assert (parsed.type_url, parsed.value) == (type_url, value)
    assert decode_any(parsed.SerializeToString()) == Packed(type_url, value)


@given(REQUESTS)
def test_a_request_is_envoys(request: DiscoveryRequest) -> None:
    """Envoy's classes read what we write, and we read what they write."""
    parsed = discovery_pb2.DiscoveryRequest.FromString(encode_request(request))

    assert parsed.version_info == request.version_info
    assert parsed.node.id == request.node_id
    assert tuple(parsed.resource_names) == request.resource_names
    assert parsed.type_url == request.type_url
    assert parsed.response_nonce == request.response_nonce
    assert parsed.HasField("error_detail") == (request.nack is not None)
    if request.nack is not None:
        assert parsed.error_detail.message == request.nack.message
        assert len(parsed.error_detail.details) == len(request.nack.refusals)
    assert decode_request(parsed.SerializeToString()) == request


@given(RESPONSES)
def test_a_response_is_envoys(response: DiscoveryResponse) -> None:
    """The same for responses; resources are messages of their own, passed on as they are."""
    packed = [encode_any("t", value) for value in response.resources]
    encoded = encode_response(response.type_url, response.version_info, response.nonce, encode_resources(packed))
    parsed = discovery_pb2.DiscoveryResponse.FromString(encoded)

    assert [each.value for each in parsed.resources] == list(response.resources)
    assert (parsed.type_url, parsed.version_info, parsed.nonce) == (
        response.type_url,
        response.version_info,
        response.nonce,
    )
    assert decode_response(parsed.SerializeToString()) == msgspec.structs.replace(response, resources=tuple(packed))


LIMITS = st.fixed_dictionaries(
    {"unit": st.sampled_from(UNITS[1:]), "requests_per_unit": st.integers(1, 2**32 - 1)},
    optional={"name": TEXTS.filter(bool), "replaces": st.lists(TEXTS.map(lambda name: {"name": name}), min_size=1)},
) | st.just({"unlimited": True})
DESCRIPTORS = st.recursive(
    st.fixed_dictionaries(
        {"key": TEXTS.filter(bool)},
        optional={
            "value": TEXTS.filter(bool),
            "rate_limit": LIMITS,
            "shadow_mode": st.just(value=True),
            "quota_mode": st.just(value=True),
            "detailed_metric": st.just(value=True),
        },
    ),
    lambda below: st.fixed_dictionaries({"key": TEXTS.filter(bool), "descriptors": st.lists(below, min_size=1)}),
    max_leaves=6,
)


@given(TEXTS, TEXTS, st.lists(DESCRIPTORS, max_size=3))
def test_upstreams_resource_is_its_yaml(name: str, domain: str, descriptors: list[dict[str, object]]) -> None:
    """What YAML says survives the message, and protobuf's own bytes are read as the same."""
    config = {"domain": domain, "descriptors": descriptors}
    parsed = UPSTREAM["RateLimitConfig"].FromString(encode_config(name, config))

    assert (parsed.name, parsed.domain) == (name, domain)
    assert decode_config(parsed.SerializeToString()) == (name, config)


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(0, 2**63), st.integers(1, 8), st.randoms())
def test_a_set_survives_its_parts(resources: list[bytes], compiled_at_us: int, most_parts: int, random) -> None:
    """In any order of parts; with one part missing there is no set."""
    stored = StoredSet("0123456789abcdef", compiled_at_us, "some.type", tuple(resources))
    parts = encode_parts(stored, most_bytes=4_000 if most_parts > 2 else 10_000, most_parts=most_parts)
    random.shuffle(parts)

    found, problems = decode_parts(parts)
    assert found is not None
    assert (found.version, found.compiled_at_us, found.type_url) == ("0123456789abcdef", compiled_at_us, "some.type")
    assert sorted(found.resources) == sorted(resources)
    assert problems == []
    assert decode_parts(parts[1:])[0] is None


DECODERS = (decode_resource, decode_refusal, decode_any, decode_request, decode_response, decode_config)


@pytest.mark.parametrize("decode", DECODERS, ids=lambda decode: decode.__name__)
@given(st.binary(max_size=60))
def test_noise_is_refused_in_one_way(decode, noise: bytes) -> None:
    """Whatever comes is a message or MalformedMessage, never another error."""
    with contextlib.suppress(MalformedMessage):
        decode(noise)

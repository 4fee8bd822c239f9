"""Envoy's discovery requests and responses as bytes, with the fields that ADS of the world's state needs.

Source: envoy/service/discovery/v3/discovery.proto, google/rpc/status.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ratelimit_service.wire.protobuf import MalformedMessage, read_fields, write_bytes
from ratelimit_service.wire.xds.resources import (
    REFUSAL_TYPE,
    Refusal,
    decode_any,
    decode_refusal,
    encode_any,
    encode_refusal,
)
from ratelimit_service.wire.xds.text import read_data, read_number, read_text, tag, write_number, write_text

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
"""Full name of the one call."""

MAX_REFUSALS: Final = 200
"""Refusals that one request carries; the rest is told when those are mended."""

MAX_MESSAGE_CHARS: Final = 4_096
"""Longest text of a NACK or of one refusal that is sent on or kept."""

_INVALID_ARGUMENT: Final = 3
_RESOURCE_TAG: Final = tag(2)


class Nack(msgspec.Struct, frozen=True):
    """A refusal of a whole response.

    Attributes:
        message: For people.
        refusals: What is wrong with which resource; empty: the client does not say, as foreign clients.
    """

    message: str
    refusals: tuple[Refusal, ...] = ()


class DiscoveryRequest(msgspec.Struct, frozen=True):
    """What a client says: a subscription, an acknowledgement or a refusal.

    Attributes:
        type_url: What it is about.
        version_info: Version that the client runs, empty: none.
        node_id: Name of the client; clients may send it with the first request of a stream only.
        resource_names: What it asks for; empty: everything.
        response_nonce: The response that this answers, empty: none.
        nack: Why that response is refused, None: it is not.
    """

    type_url: str
    version_info: str = ""
    node_id: str = ""
    resource_names: tuple[str, ...] = ()
    response_nonce: str = ""
    nack: Nack | None = None


class DiscoveryResponse(msgspec.Struct, frozen=True):
    """What a server says: everything there is of one type.

    Attributes:
        type_url: What it is.
        version_info: Version of the whole.
        nonce: Name of this response on its stream.
        resources: Each a `google.protobuf.Any`, undecoded.
    """

    type_url: str
    version_info: str
    nonce: str
    resources: tuple[bytes, ...] = ()


def encode_request(request: DiscoveryRequest) -> bytes:
    """A `DiscoveryRequest`."""
    node = write_bytes(tag(2), write_text(1, request.node_id)) if request.node_id else b""
    names = b"".join(write_bytes(tag(3), name.encode()) for name in request.resource_names)
    detail = b"" if request.nack is None else write_bytes(tag(6), _encode_nack(request.nack))
    head = write_text(1, request.version_info) + node + names
    return head + write_text(4, request.type_url) + write_text(5, request.response_nonce) + detail


def decode_request(body: bytes) -> DiscoveryRequest:
    """A `DiscoveryRequest`; raises MalformedMessage if it is none."""
    texts = {1: "", 4: "", 5: ""}
    node_id, nack = "", None
    names: list[str] = []
    for field in read_fields(body):
        if field.number in texts:
            texts[field.number] = read_text(field)
        elif field.number == 2:
            node_id = _first_text(read_data(field)) or node_id
        elif field.number == 3:
            names.append(read_text(field))
        elif field.number == 6:
            nack = _decode_nack(read_data(field))
    return DiscoveryRequest(texts[4], texts[1], node_id, tuple(names), texts[5], nack)


def encode_resources(resources: Iterable[bytes]) -> bytes:
    """The resources of a response, each a `google.protobuf.Any`; made once and shared by all streams."""
    return b"".join(write_bytes(_RESOURCE_TAG, resource) for resource in resources)


def encode_response(type_url: str, version_info: str, nonce: str, resources: bytes) -> bytes:
    """A `DiscoveryResponse`; `resources` comes from `encode_resources`."""
    return b"".join(
        (write_text(1, version_info), resources, write_text(4, type_url), write_text(5, nonce)),
    )


def decode_response(body: bytes) -> DiscoveryResponse:
    """A `DiscoveryResponse`; raises MalformedMessage if it is none."""
    texts = {1: "", 4: "", 5: ""}
    resources: list[bytes] = []
    for field in read_fields(body):
        if field.number == 2:
            resources.append(read_data(field))
        elif field.number in texts:
            texts[field.number] = read_text(field)
    return DiscoveryResponse(texts[4], texts[1], texts[5], tuple(resources))


def nack_of(refusals: Sequence[Refusal], summary: str) -> Nack:
    """A refusal that fits into a request however much is wrong."""
    kept = tuple(
        msgspec.structs.replace(refusal, message=refusal.message[:MAX_MESSAGE_CHARS])
        for refusal in refusals[:MAX_REFUSALS]
    )
    return Nack(summary[:MAX_MESSAGE_CHARS], kept)


def _encode_nack(nack: Nack) -> bytes:
    details = (encode_any(REFUSAL_TYPE, encode_refusal(refusal)) for refusal in nack.refusals)
    texts = write_number(1, _INVALID_ARGUMENT) + write_text(2, nack.message)
    return texts + b"".join(write_bytes(tag(3), detail) for detail in details)


def _decode_nack(body: bytes) -> Nack:
    message = ""
    refusals: list[Refusal] = []
    for field in read_fields(body):
        if field.number == 1:
            read_number(field)
        elif field.number == 2:
            message = read_text(field)
        elif field.number == 3:
            detail = decode_any(read_data(field))
            if detail.type_url == REFUSAL_TYPE:
                refusals.append(decode_refusal(detail.value))
    if len(refusals) > MAX_REFUSALS:
        raise MalformedMessage(0, f"more than {MAX_REFUSALS} refusals")
    return Nack(message[:MAX_MESSAGE_CHARS], tuple(refusals))


def _first_text(body: bytes) -> str:
    text = ""
    for field in read_fields(body):
        if field.number == 1:
            text = read_text(field)
    return text

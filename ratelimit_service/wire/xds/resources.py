"""Our resources and refusals as bytes (`config.proto`)."""

from __future__ import annotations

from typing import Final

import msgspec

from ratelimit_service.wire.protobuf import read_fields, write_bytes
from ratelimit_service.wire.xds.text import read_data, read_text, tag, write_text

RESOURCE_TYPE: Final = "type.googleapis.com/tidegate.config.v1alpha1.Resource"
"""Type URL of our resources."""

REFUSAL_TYPE: Final = "type.googleapis.com/tidegate.config.v1alpha1.Refusal"
"""Type URL of the details of a refusal."""


class WireResource(msgspec.Struct, frozen=True):
    """One resource; fields as in `config.proto`."""

    kind: str
    name: str
    version: str = ""
    required_features: tuple[str, ...] = ()
    body: bytes = b""


class Refusal(msgspec.Struct, frozen=True):
    """One problem of one resource that a client refuses; fields as in `config.proto`."""

    kind: str
    name: str
    version: str = ""
    path: str = ""
    message: str = ""


class Packed(msgspec.Struct, frozen=True):
    """A `google.protobuf.Any`: a message and what it is."""

    type_url: str
    value: bytes


def encode_any(type_url: str, value: bytes) -> bytes:
    """A `google.protobuf.Any`."""
    return write_text(1, type_url) + (write_bytes(tag(2), value) if value else b"")


def decode_any(body: bytes) -> Packed:
    """A `google.protobuf.Any`; raises MalformedMessage if it is none."""
    type_url, value = "", b""
    for field in read_fields(body):
        if field.number == 1:
            type_url = read_text(field)
        elif field.number == 2:
            value = read_data(field)
    return Packed(type_url, value)


def encode_resource(resource: WireResource) -> bytes:
    """A `Resource`."""
    features = b"".join(write_bytes(tag(4), feature.encode()) for feature in resource.required_features)
    body = write_bytes(tag(5), resource.body) if resource.body else b""
    head = write_text(1, resource.kind) + write_text(2, resource.name) + write_text(3, resource.version)
    return head + features + body


def decode_resource(body: bytes) -> WireResource:
    """A `Resource`; raises MalformedMessage if it is none."""
    texts = {1: "", 2: "", 3: ""}
    features: list[str] = []
    content = b""
    for field in read_fields(body):
        if field.number in texts:
            texts[field.number] = read_text(field)
        elif field.number == 4:
            features.append(read_text(field))
        elif field.number == 5:
            content = read_data(field)
    return WireResource(texts[1], texts[2], texts[3], tuple(features), content)


def encode_refusal(refusal: Refusal) -> bytes:
    """A `Refusal`."""
    return b"".join(write_text(number, text) for number, text in enumerate(msgspec.structs.astuple(refusal), 1))


def decode_refusal(body: bytes) -> Refusal:
    """A `Refusal`; raises MalformedMessage if it is none."""
    texts = dict.fromkeys(range(1, 6), "")
    for field in read_fields(body):
        if field.number in texts:
            texts[field.number] = read_text(field)
    return Refusal(*texts.values())

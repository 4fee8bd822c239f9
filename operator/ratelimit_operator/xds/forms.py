"""Resources as they travel: a version and the bytes of a `google.protobuf.Any`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from ratelimit_operator.plan.distribution import Resource
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE, WireResource, encode_any, encode_resource


class Form(msgspec.Struct, frozen=True):
    """One version of one resource.

    Attributes:
        version: Hash of its content.
        packed: The bytes of its `google.protobuf.Any`.
    """

    version: str
    packed: bytes


def form_of(resource: Resource) -> Form:
    """A resource of a distribution on its way to our own service."""
    wire = WireResource(resource.id.kind, resource.id.name, resource.version, resource.required_features, resource.body)
    return Form(resource.version, encode_any(RESOURCE_TYPE, encode_resource(wire)))


def version_of(forms: Mapping[str, Form]) -> str:
    """Hash of a set of forms, 16 hex digits, the same whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(forms):
        digest.update(f"{name}\0{forms[name].version}\n".encode())
    return digest.hexdigest()[:16]

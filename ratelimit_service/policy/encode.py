"""A manifest as plain values again: what `decode` read, without what has its default."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from ratelimit_service.policy.model import API_VERSION, RateLimitPolicy
from ratelimit_service.policy.profile_model import CacheProfile
from ratelimit_service.policy.quantities import duration_text, quantity_text
from ratelimit_service.policy.schema import default_of, fields_of, shape_of


def encode(manifest: RateLimitPolicy | CacheProfile) -> dict[str, object]:
    """JSON-like values that decode to the same manifest."""
    return {
        "apiVersion": API_VERSION,
        "kind": type(manifest).__name__,
        "metadata": encode_part(manifest.metadata),
        "spec": encode_part(manifest.spec),
    }


def encode_part(part: msgspec.Struct) -> dict[str, object]:
    """One part of a model; fields that are not written or have the schema's default are left out."""
    entries: dict[str, object] = {}
    for name, info in fields_of(type(part)).items():
        value = getattr(part, info.name)
        if value is not None and value != () and value != default_of(info):
            entries[name] = encode_value(value, shape_of(info.type).text)
    return entries


def encode_value(value: object, text: str = "") -> object:
    """One value; `text`: how an integer is written, `duration`, `quantity` or as it is."""
    if isinstance(value, msgspec.Struct):
        return encode_part(value)
    if isinstance(value, tuple):
        return [encode_value(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode_value(item) for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, int) and text:
        return duration_text(value) if text == "duration" else quantity_text(value)
    return value

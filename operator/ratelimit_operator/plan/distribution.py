"""What every replica of the service is to run: one resource per policy and profile, each with its own version.

A resource's bytes are made once, here, and shared by all streams (DECISIONS 44). They are the canonical JSON of the
accepted manifest (`policy.encode`), so the service decodes and compiles them as it would a file; of the metadata only
what decides precedence is in them, so that a changed label makes no new version.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from ratelimit_service.policy.encode import encode
from ratelimit_service.policy.features import features_of
from ratelimit_service.policy.model import API_VERSION, RateLimitPolicy
from ratelimit_service.policy.profile_model import CacheProfile

SETTINGS_NAME: Final = "tidegate/settings"
"""Name of the one resource of kind SETTINGS."""


class ResourceKind(enum.Enum):
    """What a resource's bytes are."""

    POLICY = "Policy"
    PROFILE = "Profile"
    SETTINGS = "Settings"


class Enforcement(enum.Enum):
    """The kill switch of a release (DECISIONS 50): SHADOW counts and reports everywhere, and rejects nothing."""

    ENFORCE = "Enforce"
    SHADOW = "Shadow"


class ResourceId(msgspec.Struct, frozen=True, order=True):
    """A resource's identity: a policy and a profile may have the same name.

    Attributes:
        kind: Value of a `ResourceKind`.
        name: `<namespace>/<name>`.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Resource(msgspec.Struct, frozen=True):
    """One resource as it goes over every stream.

    Attributes:
        id: Its identity.
        version: Content hash, 16 hex digits: the same manifest has the same version on every machine.
        body: Canonical JSON of the manifest (kinds POLICY, PROFILE) or `{"enforcement": …}` (SETTINGS).
        required_features: What a service must know to run it, sorted (`policy.features`).
    """

    id: ResourceId
    version: str
    body: bytes
    required_features: tuple[str, ...]


class Distribution(msgspec.Struct, frozen=True):
    """All resources that are live at one moment.

    Attributes:
        version: Content hash over all of them, 16 hex digits; equal distributions have equal versions.
        resources: In the order of their identities.
    """

    version: str
    resources: Mapping[ResourceId, Resource]

    @property
    def policy_count(self) -> int:
        """How many of the resources are policies."""
        return sum(identity.kind == ResourceKind.POLICY.value for identity in self.resources)


def resource_of(manifest: RateLimitPolicy | CacheProfile) -> Resource:
    """The resource of an accepted manifest."""
    metadata = msgspec.structs.replace(manifest.metadata, labels={})
    body = msgspec.json.encode(encode(msgspec.structs.replace(manifest, metadata=metadata)), order="deterministic")
    kind = ResourceKind.POLICY if isinstance(manifest, RateLimitPolicy) else ResourceKind.PROFILE
    identity = ResourceId(kind.value, f"{metadata.namespace}/{metadata.name}")
    return Resource(identity, _digest(kind.value.encode(), body), body, features_of(manifest))


def settings_resource(enforcement: Enforcement) -> Resource:
    """The settings of the release."""
    body = msgspec.json.encode(
        {"apiVersion": API_VERSION, "kind": ResourceKind.SETTINGS.value, "enforcement": enforcement.value},
        order="deterministic",
    )
    identity = ResourceId(ResourceKind.SETTINGS.value, SETTINGS_NAME)
    return Resource(identity, _digest(identity.kind.encode(), body), body, ("settings/enforcement",))


def distribution_of(resources: Iterable[Resource]) -> Distribution:
    """The distribution of these resources, whose identities differ."""
    by_id = {each.id: each for each in sorted(resources, key=lambda each: each.id)}
    parts = (f"{each.id.kind}\0{each.id.name}\0{each.version}\n".encode() for each in by_id.values())
    return Distribution(_digest(*parts), by_id)


def settled(distribution: Distribution, rejected: Mapping[ResourceId, str], saved: Distribution | None) -> Distribution:
    """A distribution with the last accepted form of each refused resource, and without one that never was accepted."""
    if not rejected:
        return distribution
    kept: list[Resource] = []
    for identity, resource in distribution.resources.items():
        earlier = resource if identity not in rejected else (saved.resources.get(identity) if saved else None)
        if earlier is not None:
            kept.append(earlier)
    return distribution_of(kept)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:16]

"""Profiles as ConfigMaps, for programs that use the library: which there have to be, and what is in them.

A program mounts the ConfigMap and gives the file to `CacheService.from_profile`, which follows it. Only names of
secrets are in it, never their content. The last accepted form of a profile stays, as it does for the service; a secret
that the service has not mounted does not matter here, because a program mounts its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
import yaml

from ratelimit_operator.plan.profiles import ProfilePlan
from ratelimit_operator.plan.world import ObservedProfile
from ratelimit_service.policy.encode import encode
from ratelimit_service.policy.model import API_VERSION
from ratelimit_service.policy.profile_model import CacheProfile

COPY_KEY: Final = "profile.yaml"
"""Key of the profile in its ConfigMap, which becomes its file's name."""

COPY_LABEL: Final = "tidegate.dev/profile-of"
"""Label of the ConfigMaps; its value is the release's controller name."""

_PREFIX: Final = "tidegate-profile-"
_MAX_NAME: Final = 253


class ProfileCopy(msgspec.Struct, frozen=True):
    """A profile's ConfigMap.

    Attributes:
        profile: `<namespace>/<name>` of the profile.
        name: Of the ConfigMap, in the same namespace.
        version: Hash of its content, 16 hex digits.
        manifest: The ConfigMap.
    """

    profile: str
    name: str
    version: str
    manifest: Mapping[str, object]

    @property
    def key(self) -> str:
        """`<namespace>/<name>` of the ConfigMap."""
        return f"{self.profile.partition('/')[0]}/{self.name}"


class CopyState(msgspec.Struct, frozen=True):
    """What became of a profile's ConfigMap.

    Attributes:
        name: Its name.
        version: Version of what was written last, empty: nothing yet.
        error: Why the newest version is not written, empty: it is.
    """

    name: str
    version: str = ""
    error: str = ""


def profile_copies(
    profiles: Mapping[str, ObservedProfile],
    plans: Mapping[str, ProfilePlan],
    namespaces: frozenset[str],
    controller: str,
) -> dict[str, ProfileCopy]:
    """The ConfigMaps that have to be there, by profile; only in those namespaces (DECISIONS 49)."""
    return {each.profile: each for each in _copies(profiles, plans, namespaces, controller)}


def _copies(
    profiles: Mapping[str, ObservedProfile],
    plans: Mapping[str, ProfilePlan],
    namespaces: frozenset[str],
    controller: str,
) -> Iterator[ProfileCopy]:
    for key, profile in profiles.items():
        planned = plans.get(key)
        manifest = None if planned is None else _form(profile, planned)
        if profile.namespace in namespaces and manifest is not None:
            yield _copy(profile, manifest, controller)


def _form(profile: ObservedProfile, planned: ProfilePlan) -> CacheProfile | None:
    if planned.accepted.holds:
        return profile.manifest
    kept = None if planned.live is None else planned.live.manifest
    return kept if isinstance(kept, CacheProfile) else None


def _copy(profile: ObservedProfile, form: CacheProfile, controller: str) -> ProfileCopy:
    metadata = msgspec.structs.replace(form.metadata, labels={}, creation_timestamp=None)
    text = yaml.safe_dump(
        encode(msgspec.structs.replace(form, metadata=metadata)), sort_keys=False, width=120, allow_unicode=True
    )
    name = copy_name(profile.name)
    owner = {"apiVersion": API_VERSION, "kind": "CacheProfile", "name": profile.name, "uid": profile.uid}
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": profile.namespace,
            "labels": {COPY_LABEL: controller},
            # The cluster removes it with the profile, also where no operator runs any more.
            "ownerReferences": [owner],
        },
        "data": {COPY_KEY: text},
    }
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    return ProfileCopy(profile.key, name, version, manifest)


def copy_name(profile: str) -> str:
    """Name of a profile's ConfigMap; a name that would be too long ends with a hash instead."""
    name = f"{_PREFIX}{profile}"
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME - 17].rstrip('.-')}-{hashlib.sha256(profile.encode()).hexdigest()[:16]}"

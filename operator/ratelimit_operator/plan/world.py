"""What the API server holds, as the plan takes it: plain immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

from ratelimit_operator.api.status import CacheProfileStatus, RateLimitPolicyStatus
from ratelimit_operator.plan.distribution import Enforcement
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.profile_model import CacheProfile

ManifestT = TypeVar("ManifestT", RateLimitPolicy, CacheProfile)
StatusT = TypeVar("StatusT", RateLimitPolicyStatus, CacheProfileStatus)

PLATFORM_LABEL = "tidegate.dev/platform"
"""Label of a namespace, value `true`: it may use foreign domains, overrides, store profiles and the default."""


class Observed(msgspec.Struct, Generic[ManifestT, StatusT], frozen=True):
    """One object as it was seen last.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        uid: Another object of the same name has another one.
        created: Creation time as the API server writes it.
        generation: Counts changes of the spec.
        resource_version: Counts changes of anything.
        manifest: What it decodes to, None: it is invalid.
        problems: Why it is, one line for each field.
        status: What its status says.
        writers: When other releases of ours wrote to it last: (field manager, RFC 3339 time).
    """

    namespace: str
    name: str
    uid: str
    created: str
    generation: int
    resource_version: str
    manifest: ManifestT | None
    problems: tuple[str, ...]
    status: StatusT
    writers: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """`<namespace>/<name>`."""
        return f"{self.namespace}/{self.name}"


ObservedPolicy = Observed[RateLimitPolicy, RateLimitPolicyStatus]
"""A RateLimitPolicy as it was seen last."""

ObservedProfile = Observed[CacheProfile, CacheProfileStatus]
"""A CacheProfile as it was seen last."""


class Scope(msgspec.Struct, frozen=True):
    """What a release may look at and write.

    Attributes:
        release_namespace: Its own namespace; profiles there may have stores and be the default.
        namespaces: Namespaces of its policies, empty: all.
        secret_mounts: `<namespace>/<name>` of the secrets that the service has mounted.
        reads_labels: Whether namespaces' labels can be read; where not, everything by label is denied.
    """

    release_namespace: str
    namespaces: frozenset[str] = frozenset()
    secret_mounts: frozenset[str] = frozenset()
    reads_labels: bool = True

    def covers(self, namespace: str) -> bool:
        """Whether objects of a namespace are this release's."""
        return not self.namespaces or namespace in self.namespaces


class World(msgspec.Struct, frozen=True):
    """Everything that a plan is made from.

    Attributes:
        policies: By `<namespace>/<name>`.
        profiles: By `<namespace>/<name>`.
        namespaces: Labels by namespace.
        scope: Of the release.
        enforcement: Position of the kill switch.
    """

    policies: Mapping[str, ObservedPolicy]
    profiles: Mapping[str, ObservedProfile]
    namespaces: Mapping[str, Mapping[str, str]]
    scope: Scope
    enforcement: Enforcement = Enforcement.ENFORCE

    def is_platform(self, namespace: str) -> bool:
        """Whether a namespace may do what tenants may not."""
        return self.labels(namespace).get(PLATFORM_LABEL) == "true"

    def labels(self, namespace: str) -> Mapping[str, str]:
        """Labels of a namespace, none where they cannot be read."""
        return self.namespaces.get(namespace, {}) if self.scope.reads_labels else {}

"""What a manifest asks for that this version, or a service that reads files, does not do: told as warnings.

A part that learns to act deletes its entry here, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ratelimit_service.policy.model import RateLimitPolicy, RateLimitPolicySpec, ServiceErrorAction
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.profile_model import (
    CacheProfile,
    CacheProfileSpec,
    Leases,
    NamespacesFrom,
    StoreType,
)
from ratelimit_service.policy.schema import Finding

IN_CLUSTER_ONLY: Final = "takes effect in a cluster only; read from a file it is checked and not used"
"""Of what the operator does."""

NOBODY_ASKS: Final = (
    "the rules are in force in domain tidegate.dev, under tidegate_policy=<namespace>/<name>; read from a file, "
    "nothing makes Envoy ask for them: `tidegate render` prints what does"
)
"""Of targets: in a cluster the operator writes the Envoy configuration that asks for these rules."""

NO_CACHE: Final = "the value cache is not in this version; checked and not used"
"""Of the fields of the value cache."""

_CACHE_FIELDS: Final = {
    "l1": "l1",
    "l2": "l2",
    "l3": "l3",
    "compression": "compression",
    "coherence": "coherence",
    "warming": "warming",
    "ttl_us": "ttl",
    "stale_on_error_us": "staleOnError",
    "negative_ttl_us": "negativeTTL",
    "early_refresh": "earlyRefresh",
}


def warnings_of(manifest: RateLimitPolicy | CacheProfile) -> list[Problem]:
    """One warning for each thing that a manifest from a file asks for in vain, with its path and line."""
    findings = _policy(manifest.spec) if isinstance(manifest, RateLimitPolicy) else _profile(manifest.spec)
    origin = manifest.origin
    return [Problem(origin.file, path, message, origin.line_of(path), Severity.WARNING) for path, message in findings]


def _policy(spec: RateLimitPolicySpec) -> Iterator[Finding]:
    if spec.target_refs:
        yield "spec.targetRefs", NOBODY_ASKS
    if spec.workload_selector is not None:
        yield "spec.workloadSelector", NOBODY_ASKS
    if spec.failure.on_service_error is ServiceErrorAction.DENY:
        message = "is Envoy's `failure_mode_deny`: set it there, or take what `tidegate render` prints"
        yield "spec.failure.onServiceError", message


def _profile(spec: CacheProfileSpec) -> Iterator[Finding]:
    if spec.store.type is StoreType.MEMORY and spec.leases != Leases():
        yield "spec.leases", "leases go with a Redis store; Memory counts in one process"
    if spec.allowed_namespaces.source is not NamespacesFrom.SAME:
        yield "spec.allowedNamespaces", IN_CLUSTER_ONLY
    for attribute, name in _CACHE_FIELDS.items():
        if getattr(spec, attribute) is not None:
            yield f"spec.{name}", NO_CACHE

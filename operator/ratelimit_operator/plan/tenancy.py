"""What a namespace may do. Each check gives a sentence that says what is not allowed and what would be, or None."""

from __future__ import annotations

from collections.abc import Mapping

from ratelimit_operator.plan.world import PLATFORM_LABEL, World
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.profile_model import CacheProfile, NamespacesFrom, StoreType


def policy_refusal(policy: RateLimitPolicy, world: World) -> str | None:
    """Why a policy's namespace may not use its domain or its overrides."""
    namespace, spec = policy.metadata.namespace, policy.spec
    if spec.domain is not None and not _owns(namespace, spec.domain) and not world.is_platform(namespace):
        return (
            f"spec.domain: namespace {namespace} uses domains that begin with `{namespace}.`; "
            f"for others {_needs_label(namespace, world)}"
        )
    if spec.overrides is not None and not world.is_platform(namespace):
        return f"spec.overrides: for overrides {_needs_label(namespace, world)}"
    if spec.domain is None and spec.cache_profile_ref is not None:
        return "spec.cacheProfileRef: targeted policies use the default profile; remove this field"
    return None


def profile_refusal(profile: CacheProfile, world: World) -> str | None:
    """Why a profile's namespace may not have its store or be the default."""
    namespace, spec = profile.metadata.namespace, profile.spec
    if namespace == world.scope.release_namespace or world.is_platform(namespace):
        return None
    if spec.store.type is not StoreType.MEMORY:
        return f"spec.store: for a profile with a store {_needs_label(namespace, world)}"
    if spec.default:
        return f"spec.default: for the cluster's default profile {_needs_label(namespace, world)}"
    return None


def use_refusal(profile: CacheProfile, namespace: str, world: World) -> str | None:
    """Why a profile may not be used by policies of a namespace."""
    allowed = profile.spec.allowed_namespaces
    owner = profile.metadata.namespace
    name = f"CacheProfile {owner}/{profile.metadata.name}"
    if namespace == owner or allowed.source is NamespacesFrom.ALL:
        return None
    if allowed.selector is None:
        return f"{name} is for policies of namespace {owner} only (its allowedNamespaces)"
    if not world.scope.reads_labels:
        return f"{name} is shared by label, and this operator may not read the labels of namespaces"
    if _carries(world.labels(namespace), allowed.selector.match_labels):
        return None
    wanted = ", ".join(f"{key}={value}" for key, value in sorted(allowed.selector.match_labels.items()))
    return f"{name} is for namespaces labelled {wanted}; namespace {namespace} is not"


def _owns(namespace: str, domain: str) -> bool:
    return domain.startswith(f"{namespace}.")


def _carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())


def _needs_label(namespace: str, world: World) -> str:
    if not world.scope.reads_labels:
        return "a label is needed, and this operator may not read the labels of namespaces"
    return f"namespace {namespace} needs the label {PLATFORM_LABEL}=true"

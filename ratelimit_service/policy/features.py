"""What a resource asks of the service that loads it, by name.

The operator writes `features_of` into every resource; a service whose `KNOWN_FEATURES` lacks one refuses that resource
instead of reading it as something weaker. A field that an older service would pass over gets a name here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ratelimit_service.policy.model import LimitSpec, RateLimitPolicy, RuleSpec
from ratelimit_service.policy.profile_model import CacheProfile

KNOWN_FEATURES: Final[frozenset[str]] = frozenset(
    {
        "algorithm/FixedWindow",
        "algorithm/SlidingWindow",
        "algorithm/TokenBucket",
        "calendar",
        "countDenied",
        "refunds",
        "replaces",
        "rollout",
        "settings/enforcement",
        "store/Memory",
        "store/Redis",
        "store/RedisCluster",
        "store/RedisSentinel",
        "targets",
    }
)
"""Every feature of this version."""


def features_of(manifest: RateLimitPolicy | CacheProfile) -> tuple[str, ...]:
    """Names of what a manifest needs, sorted, each once; all of them are in `KNOWN_FEATURES`."""
    found = _profile(manifest) if isinstance(manifest, CacheProfile) else _policy(manifest)
    return tuple(sorted(set(found)))


def _profile(profile: CacheProfile) -> Iterator[str]:
    yield f"store/{profile.spec.store.type.value}"


def _policy(policy: RateLimitPolicy) -> Iterator[str]:
    spec = policy.spec
    if spec.domain is None:
        yield "targets"
    for rules in (spec.rules, *(layer.rules for layer in (spec.defaults, spec.overrides) if layer is not None)):
        for rule in rules:
            yield from _rule(rule)


def _rule(rule: RuleSpec) -> Iterator[str]:
    named = (
        ("countDenied", rule.count_denied),
        ("refunds", rule.refunds),
        ("replaces", bool(rule.replaces)),
        ("rollout", rule.rollout is not None),
    )
    yield from (name for name, used in named if used)
    for limit in (*rule.limits, *(rule.rollout.limits if rule.rollout is not None else ())):
        yield from _limit(limit)


def _limit(limit: LimitSpec) -> Iterator[str]:
    yield f"algorithm/{limit.law.value}"
    if limit.calendar is not None:
        yield "calendar"

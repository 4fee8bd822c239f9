"""What goes over every stream."""

from __future__ import annotations

import msgspec

from ratelimit_operator.plan.distribution import (
    Enforcement,
    ResourceKind,
    distribution_of,
    resource_of,
    settings_resource,
)
from ratelimit_service.policy.decode import decode_manifest
from ratelimit_service.policy.features import KNOWN_FEATURES
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.profile_model import CacheProfile


def _policy(**metadata: object) -> RateLimitPolicy:
    found, problems = decode_manifest(
        {
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": "RateLimitPolicy",
            "metadata": {"name": "checkout", "namespace": "shop", **metadata},
            "spec": {
                "domain": "shop.checkout",
                "rules": [
                    {
                        "name": "per-user",
                        "match": [{"key": "user", "type": "Any"}],
                        "refunds": True,
                        "limits": [
                            {"requests": 5, "window": "10s"},
                            {"requests": 50, "calendar": {"unit": "Month"}},
                        ],
                        "rollout": {
                            "percent": 5,
                            "limits": [{"requests": 9, "window": "1m", "algorithm": "TokenBucket"}],
                        },
                    }
                ],
            },
        }
    )
    assert problems == []
    assert isinstance(found, RateLimitPolicy)
    return found


def _profile() -> CacheProfile:
    found, _ = decode_manifest(
        {
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": "CacheProfile",
            "metadata": {"name": "checkout", "namespace": "shop"},
            "spec": {},
        }
    )
    assert isinstance(found, CacheProfile)
    return found


def test_the_bytes_decode_to_the_manifest() -> None:
    """The service reads from them what the operator accepted."""
    policy = _policy(creationTimestamp="2026-01-01T00:00:00Z")

    again, problems = decode_manifest(msgspec.json.decode(resource_of(policy).body))

    assert problems == []
    assert again == policy


def test_a_label_makes_no_new_version() -> None:
    """Labels decide nothing in the service."""
    assert resource_of(_policy(labels={"team": "a"})) == resource_of(_policy())


def test_age_makes_a_new_version() -> None:
    """It decides conflicts, so the service must learn of it."""
    old = resource_of(_policy(creationTimestamp="2026-01-01T00:00:00Z"))
    new = resource_of(_policy(creationTimestamp="2026-01-02T00:00:00Z"))

    assert old.version != new.version


def test_a_resource_names_what_it_needs() -> None:
    """Each feature once, all of them known to this version."""
    features = resource_of(_policy()).required_features

    assert features == (
        "algorithm/FixedWindow",
        "algorithm/SlidingWindow",
        "algorithm/TokenBucket",
        "calendar",
        "refunds",
        "rollout",
    )
    assert KNOWN_FEATURES.issuperset(features)
    assert resource_of(_profile()).required_features == ("store/Memory",)


def test_a_policy_and_a_profile_may_have_one_name() -> None:
    """Both are in the distribution."""
    both = distribution_of([resource_of(_policy()), resource_of(_profile())])

    assert [each.kind for each in both.resources] == [ResourceKind.POLICY.value, ResourceKind.PROFILE.value]
    assert [str(each) for each in both.resources] == ["Policy shop/checkout", "Profile shop/checkout"]


def test_the_order_of_resources_is_not_in_the_version() -> None:
    """Two operators that saw the same objects publish the same version."""
    parts = [resource_of(_policy()), resource_of(_profile()), settings_resource(Enforcement.SHADOW)]

    assert distribution_of(parts) == distribution_of(reversed(parts))
    assert distribution_of(parts).version != distribution_of(parts[1:]).version


def test_the_kill_switch_is_a_resource() -> None:
    """Its two positions have two versions."""
    assert msgspec.json.decode(settings_resource(Enforcement.SHADOW).body)["enforcement"] == "Shadow"
    assert settings_resource(Enforcement.SHADOW).version != settings_resource(Enforcement.ENFORCE).version

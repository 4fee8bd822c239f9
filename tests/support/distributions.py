"""Distributions for tests: policies of one rule each."""

from __future__ import annotations

from typing import Any

from ratelimit_operator.plan.distribution import (
    Distribution,
    Enforcement,
    Resource,
    distribution_of,
    resource_of,
    settings_resource,
)
from ratelimit_service.policy.decode import decode_manifest


def policy_resource(name: str, *, requests: int = 5, namespace: str = "shop", **spec: Any) -> Resource:
    """A policy `<namespace>/<name>` of the domain `<namespace>.<name>`: so many requests a minute for each user."""
    written = {
        "domain": f"{namespace}.{name}",
        "rules": [
            {
                "name": "per-user",
                "match": [{"key": "user", "type": "Any"}],
                "limits": [{"requests": requests, "window": "1m", "algorithm": "FixedWindow"}],
            }
        ],
        **spec,
    }
    return manifest_resource("RateLimitPolicy", name, written, namespace)


def manifest_resource(kind: str, name: str, spec: dict[str, Any], namespace: str = "shop") -> Resource:
    manifest, problems = decode_manifest(
        {
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
    )
    assert manifest is not None, problems
    return resource_of(manifest)


def distribution(*resources: Resource, enforcement: Enforcement = Enforcement.ENFORCE) -> Distribution:
    """These resources and the settings."""
    return distribution_of([*resources, settings_resource(enforcement)])


def policies(count: int, **changed: int) -> Distribution:
    """`count` policies `p0`, `p1`, …; `changed`: requests of some of them."""
    names = [f"p{number}" for number in range(count)]
    return distribution(*(policy_resource(name, requests=changed.get(name, 5)) for name in names))

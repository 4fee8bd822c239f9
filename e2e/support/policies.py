"""Manifests of the e2e suite, as plain dicts."""

from __future__ import annotations

from e2e.support.service import Manifest

Match = dict[str, object]


def exactly(key: str, value: str) -> Match:
    """An entry with that value."""
    return {"key": key, "value": value}


def any_of(*keys: str) -> list[Match]:
    """A chain that takes any value of each key."""
    return [{"key": key, "type": "Any"} for key in keys]


def rule(name: str, match: list[Match], requests: int, **fields: object) -> dict[str, object]:
    """A rule of so many requests in any hour: no window ends while a test runs."""
    return {"name": name, "match": match, "limits": [{"requests": requests, "window": "1h"}], **fields}


def exempt(name: str, match: list[Match], action: str) -> dict[str, object]:
    """A rule without limits: `Allow` or `Deny`."""
    return {"name": name, "match": match, "action": action}


def policy(domain: str, *rules: dict[str, object], **spec: object) -> Manifest:
    """A policy of the domain; its name is the domain with dashes."""
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": domain.replace(".", "-"), "namespace": "e2e"},
        "spec": {"domain": domain, "rules": list(rules), **spec},
    }

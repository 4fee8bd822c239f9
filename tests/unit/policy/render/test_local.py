"""Limits that Envoy keeps by itself."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit_service.policy.decode import decode_manifest
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.render.istio import render_workload
from ratelimit_service.policy.render.local import settings_of
from ratelimit_service.policy.render.parts import ServiceAddress
from ratelimit_service.policy.targets.precedence import live_rules


def policy(window: str = "1s", mode: str = "Enforce", **spec: Any) -> RateLimitPolicy:
    match = [
        {"key": "plan", "value": "gold", "from": {"type": "Header", "name": "x-plan"}},
        {"key": "client", "type": "Any", "from": {"type": "RemoteAddress", "ipv4Prefix": 24}},
    ]
    rule = {"name": "r", "match": match, "limits": [{"requests": 9, "window": "1h"}], "mode": mode}
    manifest, problems = decode_manifest(
        {
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": "RateLimitPolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"rules": [{**rule, "local": {"requests": 5, "window": window}}], **spec},
        }
    )
    assert isinstance(manifest, RateLimitPolicy), problems
    return manifest


SELECTING: dict[str, Any] = {"workloadSelector": {"matchLabels": {"app": "web"}}}


def settings(given: RateLimitPolicy) -> Any:
    return settings_of([(given, live_rules(given))])


def test_any_is_a_wildcard_and_exact_a_value() -> None:
    """Under the keys that Envoy sends, behind the policy's own entry where it has a target."""
    (descriptor,) = settings(policy(**SELECTING))["descriptors"]

    assert descriptor["entries"] == [
        {"key": "tidegate_policy", "value": "shop/p"},
        {"key": "plan", "value": "gold"},
        {"key": "masked_remote_address"},
    ]
    assert settings(policy(domain="d"))["descriptors"][0]["entries"][0] == {"key": "plan", "value": "gold"}


@pytest.mark.parametrize(
    ("window", "interval"), [("1s", "1s"), ("100ms", "0.1s"), ("1m30s", "90s"), ("8784h", "31622400s")]
)
def test_a_bucket_is_refilled_in_its_window(window: str, interval: str) -> None:
    """As protobuf writes durations."""
    (descriptor,) = settings(policy(window, domain="d"))["descriptors"]

    assert descriptor["token_bucket"] == {"max_tokens": 5, "tokens_per_fill": 5, "fill_interval": interval}


@pytest.mark.parametrize("mode", ["Shadow", "Disabled"])
def test_a_rule_that_rejects_nothing_has_no_limit_in_envoy(mode: str) -> None:
    """It could not be watched there."""
    assert settings(policy(mode=mode, domain="d")) is None


def test_a_workload_has_its_local_limits_before_it_asks() -> None:
    """In a filter of the policy's own, on gateways and for what comes in to sidecars."""
    manifest: Any = render_workload(policy(**SELECTING), ServiceAddress("a", 1)).manifest
    inserted = [each for each in manifest["spec"]["configPatches"] if each["applyTo"] == "HTTP_FILTER"]

    assert [(each["match"]["context"], each["patch"]["value"]["name"]) for each in inserted] == [
        ("GATEWAY", "tidegate-local/shop/p"),
        ("SIDECAR_INBOUND", "tidegate-local/shop/p"),
        ("GATEWAY", "tidegate/shop/p"),
        ("SIDECAR_INBOUND", "tidegate/shop/p"),
    ]

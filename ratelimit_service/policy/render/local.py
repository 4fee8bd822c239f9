"""`rules[].local`: limits that each Envoy keeps by itself, in its own filter, before it asks the service.

One bucket per key of a rule and Envoy process. An entry of type Any is a wildcard to Envoy, which then makes a bucket
per value it meets, at most `MOST_KEYS`, the least recently used of which it forgets.
Source: envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ratelimit_service.policy.emitted import emitted_key, emitted_value
from ratelimit_service.policy.manifest_compile import TARGET_KEY, policy_name
from ratelimit_service.policy.model import LocalLimit, MatchType, Mode, RateLimitPolicy, RuleSpec
from ratelimit_service.policy.render.actions import Config, entries_of
from ratelimit_service.policy.targets.precedence import Standing

LOCAL_FILTER: Final = "envoy.filters.http.local_ratelimit"
LOCAL_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"

MOST_KEYS: Final = 10_000
"""Buckets of wildcards that one Envoy keeps per route."""

_ALWAYS: Final[Config] = {"default_value": {"numerator": 100}}
_UNLIMITED: Final[Config] = {"max_tokens": 4_294_967_295, "tokens_per_fill": 4_294_967_295, "fill_interval": "1s"}
"""Envoy wants a bucket for what meets no descriptor."""


def standing_rules(standing: Sequence[Standing]) -> list[tuple[RateLimitPolicy, Sequence[RuleSpec]]]:
    """What is in force, policy by policy."""
    return [(each.policy, each.rules) for each in standing]


def idle_filter(name: str = LOCAL_FILTER) -> Config:
    """The filter for the list of HTTP filters, before the one that asks; it limits nothing but where it is told to."""
    return {"name": name, "typed_config": {"@type": LOCAL_TYPE, "stat_prefix": "tidegate"}}


def idle_settings() -> Config:
    """Settings of a route that has no local limit, under a virtual host that has: without them it would have those."""
    return {"@type": LOCAL_TYPE, "stat_prefix": "tidegate", "token_bucket": dict(_UNLIMITED)}


def settings_of(policies: Sequence[tuple[RateLimitPolicy, Sequence[RuleSpec]]]) -> Config | None:
    """The filter's settings for one route or virtual host, None: no rule there has a local limit."""
    limits: list[Config] = []
    descriptors: list[Config] = []
    for policy, rules in policies:
        local = [rule for rule in rules if _enforced(policy, rule)]
        limits += [entry for entry in entries_of(policy, local) if entry not in limits]
        descriptors += [_descriptor(policy, rule, rule.local) for rule in local if rule.local is not None]
    if not descriptors:
        return None
    return {
        "@type": LOCAL_TYPE,
        "stat_prefix": "tidegate",
        "filter_enabled": dict(_ALWAYS),
        "filter_enforced": dict(_ALWAYS),
        "rate_limited_as_resource_exhausted": True,
        "always_consume_default_token_bucket": False,
        "token_bucket": dict(_UNLIMITED),
        "max_dynamic_descriptors": MOST_KEYS,
        "rate_limits": limits,
        "descriptors": descriptors,
    }


def _enforced(policy: RateLimitPolicy, rule: RuleSpec) -> bool:
    """A rule that only watches must not be rejected for in Envoy either."""
    return rule.local is not None and (rule.mode or policy.spec.mode) is Mode.ENFORCE


def _descriptor(policy: RateLimitPolicy, rule: RuleSpec, local: LocalLimit) -> Config:
    entries: list[Config] = []
    if policy.spec.domain is None:
        entries.append({"key": TARGET_KEY.decode(), "value": policy_name(policy)})
    for match in rule.match:
        entry: Config = {"key": emitted_key(match)}
        if match.type is MatchType.EXACT:
            entry["value"] = emitted_value(match)
        entries.append(entry)
    bucket = {
        "max_tokens": local.requests,
        "tokens_per_fill": local.requests,
        "fill_interval": _seconds(local.window_us),
    }
    return {"entries": entries, "token_bucket": bucket}


def _seconds(window_us: int) -> str:
    """A duration as protobuf's JSON writes it: `0.1s`."""
    return f"{window_us / 1_000_000:.6f}".rstrip("0").rstrip(".") + "s"

"""A distribution as envoyproxy/ratelimit's own resources, one per domain, for whoever understands nothing else.

That type has fixed windows and exact or wildcard values only. A rule that needs more (another algorithm, several
limits, a shared bucket, a rollout, refunds) is left out and named: it would mean something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from ratelimit_operator.plan.distribution import Distribution, Resource, ResourceKind
from ratelimit_operator.xds.forms import Form
from ratelimit_service.algorithms.limit import Algorithm
from ratelimit_service.policy.decode import decode_manifest
from ratelimit_service.policy.model import Bucket, LimitSpec, Match, MatchType, Mode, RateLimitPolicy, RuleSpec
from ratelimit_service.policy.snapshot import Action
from ratelimit_service.policy.upstream_model import UpstreamUnit
from ratelimit_service.wire.xds.rate_limit_config import RATE_LIMIT_CONFIG_TYPE, encode_config
from ratelimit_service.wire.xds.resources import encode_any

_UNITS: Final = {unit.window_us: unit.name.lower() for unit in UpstreamUnit}
_Descriptor = dict[str, Any]


class UpstreamForms:
    """Renders distributions; a policy that stays the same is decoded once.

    Attributes:
        version: Version of the distribution that was rendered last.
        left_out: Rules of it that upstream's type cannot say, as `<namespace>/<policy>/<rule>`, sorted.
    """

    def __init__(self) -> None:
        self.version = ""
        self.left_out: tuple[str, ...] = ()
        self._decoded: dict[str, RateLimitPolicy] = {}

    def render(self, distribution: Distribution) -> Mapping[str, Form]:
        """Forms by domain."""
        policies = [each for each in distribution.resources.values() if each.id.kind == ResourceKind.POLICY.value]
        self._decoded = {each.version: self._decoded.get(each.version) or _decode(each) for each in policies}
        domains: dict[str, list[RateLimitPolicy]] = {}
        for policy in self._decoded.values():
            if policy.spec.domain is not None:
                domains.setdefault(policy.spec.domain, []).append(policy)
        left_out: list[str] = []
        forms = {domain: _form(domain, policies, left_out) for domain, policies in sorted(domains.items())}
        self.version, self.left_out = distribution.version, tuple(sorted(left_out))
        return forms


def _decode(resource: Resource) -> RateLimitPolicy:
    found, _ = decode_manifest(msgspec.json.decode(resource.body))
    # The operator made these bytes of an accepted policy a moment ago.
    assert isinstance(found, RateLimitPolicy)
    return found


def _form(domain: str, policies: list[RateLimitPolicy], left_out: list[str]) -> Form:
    root: _Descriptor = {"domain": domain}
    for policy in policies:
        owner = f"{policy.metadata.namespace}/{policy.metadata.name}"
        for rule in policy.spec.rules:
            mode = rule.mode or policy.spec.mode
            limit = _limit(rule, owner)
            if mode is Mode.DISABLED:
                continue
            if limit is None or any(map(_is_beyond, rule.match)):
                left_out.append(f"{owner}/{rule.name}")
                continue
            leaf = _leaf(root, rule)
            leaf["rate_limit"] = limit
            leaf["shadow_mode"] = mode is Mode.SHADOW
    encoded = encode_config(domain, root)
    return Form(hashlib.sha256(encoded).hexdigest()[:16], encode_any(RATE_LIMIT_CONFIG_TYPE, encoded))


def _leaf(root: _Descriptor, rule: RuleSpec) -> _Descriptor:
    """The descriptor at the end of a rule's chain, made where it is missing."""
    node = root
    for key, value in map(_entry, rule.match):
        below: list[_Descriptor] = node.setdefault("descriptors", [])
        for child in below:
            if (child["key"], child["value"]) == (key, value):
                node = child
                break
        else:
            node = {"key": key, "value": value}
            below.append(node)
    return node


def _entry(match: Match) -> tuple[str, str]:
    value = match.value or ""
    return match.key, f"{value}*" if match.type is MatchType.PREFIX else value


def _is_beyond(match: Match) -> bool:
    """Whether an entry means something that upstream's value cannot: a star is a wildcard there, empty is any value."""
    is_literal = match.type is not MatchType.ANY
    return match.bucket is Bucket.SHARED or (is_literal and ("*" in (match.value or "") or not match.value))


def _limit(rule: RuleSpec, owner: str) -> _Descriptor | None:
    """A rule's `rate_limit`, None: upstream has none like it."""
    replaces = [{"name": f"{owner}/{name}"} for name in rule.replaces]
    named: _Descriptor = {"name": f"{owner}/{rule.name}", "replaces": replaces}
    if rule.rollout is not None or rule.refunds or rule.count_denied:
        return None
    if rule.action is Action.ALLOW:
        return {**named, "unlimited": True}
    if rule.action is Action.DENY:
        return {**named, "unit": "second", "requests_per_unit": 0}
    windows = list(_windows(rule.limits))
    if len(rule.limits) != 1 or not windows:
        return None
    return {**named, "unit": windows[0], "requests_per_unit": rule.limits[0].requests}


def _windows(limits: tuple[LimitSpec, ...]) -> Iterator[str]:
    for limit in limits:
        if limit.law is Algorithm.FIXED_WINDOW and limit.calendar is None and limit.window_us in _UNITS:
            yield _UNITS[limit.window_us]

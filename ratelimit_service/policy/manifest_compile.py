"""Rules of a `RateLimitPolicy` as leaves of a tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ratelimit_service.algorithms.limit import Algorithm, Calendar, Limit
from ratelimit_service.policy.emitted import emitted_key, emitted_value
from ratelimit_service.policy.identity import limit_id
from ratelimit_service.policy.model import (
    RESERVED_DOMAIN,
    Bucket,
    LimitSpec,
    Match,
    MatchType,
    Mode,
    RateLimitPolicy,
    RuleSpec,
)
from ratelimit_service.policy.placed import Place, Placed
from ratelimit_service.policy.snapshot import LabelMode, Rollout, Rule, RuleLimit
from ratelimit_service.policy.tree import Leaf, Step, StepKind

TARGET_KEY = b"tidegate_policy"
"""Key of the first entry of every descriptor of a targeted policy."""


def policy_name(policy: RateLimitPolicy) -> str:
    """`<namespace>/<name>`."""
    return f"{policy.metadata.namespace}/{policy.metadata.name}"


def domain_of(policy: RateLimitPolicy) -> str:
    """Domain that Envoy sends for this policy; targeted policies share the reserved one."""
    return policy.spec.domain or RESERVED_DOMAIN


def place_of(policy: RateLimitPolicy, path: str = "") -> Place:
    """Place of a field of a policy."""
    return Place.of(policy.origin, f"RateLimitPolicy {policy_name(policy)}", path)


class PolicyRule(msgspec.Struct, frozen=True):
    """A rule of a policy on its way into a tree.

    Attributes:
        name: Unique in its domain: the rule's name; in the reserved domain `<namespace>/<policy>/<rule>`.
        placed: Its leaf.
        policy: `<namespace>/<name>`.
    """

    name: str
    placed: Placed
    policy: str


def policy_rules(policy: RateLimitPolicy) -> Iterator[PolicyRule]:
    """The rules of a policy in order; one that is Disabled is absent, so it wins no conflict either."""
    where, specs = written_rules(policy)
    for index, spec in enumerate(specs):
        path = f"{where}[{index}]"
        mode = spec.mode or policy.spec.mode
        if mode is Mode.DISABLED:
            continue
        name = _rule_name(policy, spec.name)
        rule = _rule(policy, spec, name, path, mode)
        leaf = Leaf((*_first_step(policy), *map(_step, spec.match)), rule)
        yield PolicyRule(name, Placed(leaf, place_of(policy, path)), policy_name(policy))


def written_rules(policy: RateLimitPolicy) -> tuple[str, Sequence[RuleSpec]]:
    """(path, rules) of the one field that holds them."""
    spec = policy.spec
    if spec.defaults is not None:
        return "spec.defaults.rules", spec.defaults.rules
    if spec.overrides is not None:
        return "spec.overrides.rules", spec.overrides.rules
    return "spec.rules", spec.rules


def _rule_name(policy: RateLimitPolicy, rule: str) -> str:
    return rule if policy.spec.domain is not None else f"{policy_name(policy)}/{rule}"


def _first_step(policy: RateLimitPolicy) -> tuple[Step, ...]:
    if policy.spec.domain is not None:
        return ()
    return (Step(TARGET_KEY, StepKind.EXACT, policy_name(policy).encode()),)


def _step(match: Match) -> Step:
    key, value = emitted_key(match).encode(), emitted_value(match).encode()
    if match.type is MatchType.ANY:
        return Step(key, StepKind.BARE)
    if match.type is MatchType.PREFIX:
        # A `*` inside the prefix is itself: the parts say so, the text is for people.
        return Step(key, StepKind.PATTERN, value + b"*", (value, b""))
    return Step(key, StepKind.EXACT, value)


def _rule(policy: RateLimitPolicy, spec: RuleSpec, name: str, path: str, mode: Mode) -> Rule:
    domain, owner = domain_of(policy), policy_name(policy)
    labels = policy.spec.observability.metrics
    steps = (*_first_step(policy), *map(_step, spec.match))
    shared = (*(None for _ in _first_step(policy)), *map(_shared, spec.match))
    rollout = None
    if spec.rollout is not None:
        rollout = Rollout(spec.rollout.percent, _limits(domain, name, spec.rollout.limits))
    return Rule(
        domain=domain,
        name=name,
        limit_name=name,
        action=spec.action,
        limits=_limits(domain, name, spec.limits),
        shadow=mode is Mode.SHADOW,
        count_denied=spec.count_denied,
        refunds=spec.refunds,
        replaces=frozenset(f"{owner}/{replaced}" for replaced in spec.replaces),
        replaced_by=f"{owner}/{spec.name}",
        rollout=rollout,
        failure=policy.spec.failure.on_store_error,
        headers=policy.spec.response_headers,
        shared=shared,
        labels=labels,
        max_series=policy.spec.observability.max_series,
        value_labels=(labels is LabelMode.KEY_VALUE,) * len(steps),
        origin=str(place_of(policy, path)),
        policy=owner,
    )


def _shared(match: Match) -> bytes | None:
    return _step(match).value if match.bucket is Bucket.SHARED else None


def _limits(domain: str, rule: str, specs: Sequence[LimitSpec]) -> tuple[RuleLimit, ...]:
    limits = map(_limit, specs)
    return tuple(RuleLimit(limit_id(domain, rule, limit), limit) for limit in limits)


def _limit(spec: LimitSpec) -> Limit:
    burst = spec.requests
    if spec.law is Algorithm.TOKEN_BUCKET and spec.burst is not None:
        burst = spec.burst
    calendar = None
    if spec.calendar is not None:
        calendar = Calendar(spec.calendar.unit, spec.calendar.time_zone)
    return Limit(spec.law, spec.requests, spec.window_us or 0, burst, calendar)

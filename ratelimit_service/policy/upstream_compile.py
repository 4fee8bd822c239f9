"""envoyproxy/ratelimit's YAML as leaves of a tree (reference: `src/config/config_impl.go`, loadDescriptors).

Its limits are FixedWindow over Unix time; a month has 30 days and a year 365 (DECISIONS 9).
"""

from __future__ import annotations

from collections.abc import Iterator

from ratelimit_service.algorithms.limit import Algorithm, Limit
from ratelimit_service.policy.identity import limit_id
from ratelimit_service.policy.placed import Place, Placed
from ratelimit_service.policy.snapshot import Action, LabelMode, Rule, RuleLimit
from ratelimit_service.policy.tree import Chain, Leaf, Step, StepKind
from ratelimit_service.policy.upstream_model import UpstreamConfig, UpstreamDescriptor

_PATTERN_MARK = "*"


def upstream_leaves(config: UpstreamConfig) -> Iterator[tuple[str, Placed]]:
    """Every descriptor of a document in config order, as (identity path, leaf).

    The identity path is the composite keys joined by dots, with dots inside them escaped: unlike the name in metrics
    it is unique in its domain once composite keys are unique among siblings.
    Branches without a limit of their own are leaves too: they are places where matching ends in a pass.
    """
    pending: list[tuple[UpstreamDescriptor, tuple[UpstreamDescriptor, ...]]]
    pending = [(descriptor, ()) for descriptor in reversed(config.descriptors)]
    while pending:
        descriptor, parents = pending.pop()
        line = (*parents, descriptor)
        pending.extend((child, line) for child in reversed(descriptor.descriptors))
        path = ".".join(_composite(part).replace("\\", "\\\\").replace(".", "\\.") for part in line)
        place = Place.of(config.origin, "", descriptor.path)
        chain = tuple(_step(part) for part in line)
        yield path, Placed(Leaf(chain, _rule(config.domain, path, line, chain, place)), place)


def _composite(descriptor: UpstreamDescriptor) -> str:
    """Upstream's map key: `key`, or `key_value`."""
    return f"{descriptor.key}_{descriptor.value}" if descriptor.value else descriptor.key


def _step(descriptor: UpstreamDescriptor) -> Step:
    key, value = descriptor.key.encode(), descriptor.value.encode()
    if not value:
        return Step(key, StepKind.BARE)
    if _PATTERN_MARK in descriptor.value:
        return Step(key, StepKind.PATTERN, value, tuple(value.split(b"*")))
    return Step(key, StepKind.EXACT, value)


def _rule(domain: str, path: str, line: tuple[UpstreamDescriptor, ...], chain: Chain, place: Place) -> Rule | None:
    leaf = line[-1]
    rate_limit = leaf.rate_limit
    if rate_limit is None:
        return None
    limits: tuple[RuleLimit, ...] = ()
    if not rate_limit.unlimited:
        assert rate_limit.unit is not None
        requests = rate_limit.requests_per_unit
        limit = Limit(Algorithm.FIXED_WINDOW, requests, rate_limit.unit.window_us, requests)
        limits = (RuleLimit(limit_id(domain, path, limit), limit),)
    return Rule(
        domain=domain,
        name=".".join(map(_composite, line)),
        limit_name=rate_limit.name,
        action=Action.ALLOW if rate_limit.unlimited else Action.LIMIT,
        limits=limits,
        shadow=leaf.shadow_mode,
        quota=leaf.quota_mode,
        replaces=frozenset(rate_limit.replaces),
        replaced_by=rate_limit.name,
        shared=tuple(step.value if part.share_threshold else None for part, step in zip(line, chain, strict=True)),
        labels=LabelMode.KEY_VALUE if leaf.detailed_metric else LabelMode.RULE,
        value_labels=tuple(part.value_to_metric for part in line),
        metadata=leaf.metadata,
        origin=str(place),
    )

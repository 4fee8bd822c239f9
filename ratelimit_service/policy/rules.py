"""Rules between the fields of a RateLimitPolicy.

`CEL_RULES` are those that the API server checks too: the CRD is generated from `cel`, and files are checked by `holds`,
so both name the same path in the same words. The checks below them are beyond CEL (or beyond its cost limits): here for
files, in the condition `Accepted` in a cluster.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from ratelimit_service.algorithms.limit import Algorithm
from ratelimit_service.policy import source_rules
from ratelimit_service.policy.model import (
    RESERVED_DOMAIN,
    WINDOW_MAX_US,
    CalendarWindow,
    LayeredRules,
    LimitSpec,
    Match,
    MatchType,
    RateLimitPolicySpec,
    RolloutSpec,
    RuleSpec,
    SourceType,
    TargetKind,
    TargetRef,
    ValueSource,
)
from ratelimit_service.policy.quantities import duration_text
from ratelimit_service.policy.schema import Check, Finding, placed, whole
from ratelimit_service.policy.snapshot import Action
from ratelimit_service.policy.source_rules import chains_differ
from ratelimit_service.policy.wording import hint, shown

MAX_REQUESTS_PER_MS: Final = 1_000_000
"""Greatest rate: above it a token bucket's clock could not tell two requests apart (DECISIONS 11)."""

_NAMED: Final = (SourceType.HEADER, SourceType.QUERY_PARAMETER)


class CelRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that the API server and files check alike.

    Attributes:
        part: The class that it is about.
        message: What is said when it does not hold.
        field: Path below the part that is named (`.burst`), empty: the part itself.
        cel: The rule as the API server evaluates it.
        holds: The rule in Python; None: it compares with the object's former state, which files do not have.
        reads: Attributes whose insides are read.
    """

    part: type
    message: str
    cel: str
    holds: Callable[[Any], bool] | None
    field: str = ""
    reads: tuple[str, ...] = ()

    def check(self) -> Check:
        """The rule for files."""
        holds = self.holds
        assert holds is not None
        finding: Sequence[Finding] = ((self.field, self.message),)
        return Check(run=lambda part: () if holds(part) else finding, reads=self.reads)


def _given(*values: object) -> int:
    """How many of them are written."""
    return sum(value is not None and value != () for value in values)


def _targets_unique(spec: RateLimitPolicySpec) -> bool:
    targets = list(whole(spec.target_refs))
    return len({(each.group, each.kind, each.name, each.section_name or "") for each in targets}) == len(targets)


def _attaches_to_gateways(spec: RateLimitPolicySpec) -> bool:
    targets: Iterable[TargetRef] = whole(spec.target_refs)
    return spec.overrides is None or (
        bool(spec.target_refs) and all(each.kind is TargetKind.GATEWAY for each in targets)
    )


def _from_rule(attribute: str, rules: str) -> CelRule:
    """The rule that without a domain every entry says where Envoy takes it; `rules`: their path in CEL."""

    def holds(spec: RateLimitPolicySpec) -> bool:
        layer: RateLimitPolicySpec | LayeredRules | None = spec if attribute == "rules" else getattr(spec, attribute)
        if spec.domain is not None or layer is None:
            return True
        return all(match.source is not None for rule in whole(layer.rules) for match in whole(rule.match))

    return CelRule(
        part=RateLimitPolicySpec,
        message="match[].from is required when Envoy is configured from this policy",
        field=f".{attribute}",
        cel=f"!has(self.{attribute}) || has(self.domain) || self.{rules}.all(r, r.match.all(m, has(m.from)))",
        holds=holds,
        reads=(attribute,),
    )


def _local_fits(rule: RuleSpec) -> bool:
    """Envoy compares a value, or takes any; an empty one means any to it."""
    return rule.local is None or (
        rule.action is Action.LIMIT
        and all(
            match.type is MatchType.ANY or (match.type is MatchType.EXACT and bool(match.value))
            for match in whole(rule.match)
        )
    )


CEL_RULES: Final[tuple[CelRule, ...]] = (
    CelRule(
        part=RateLimitPolicySpec,
        message="give exactly one of rules, defaults, overrides",
        cel="[has(self.rules),has(self.defaults),has(self.overrides)].exists_one(x, x)",
        holds=lambda spec: _given(spec.rules, spec.defaults, spec.overrides) == 1,
    ),
    CelRule(
        part=RateLimitPolicySpec,
        message="domain goes with rules",
        field=".domain",
        cel="!has(self.domain) || has(self.rules)",
        holds=lambda spec: spec.domain is None or bool(spec.rules),
    ),
    CelRule(
        part=RateLimitPolicySpec,
        message="targetRefs are unique",
        field=".targetRefs",
        cel=(
            "!has(self.targetRefs) || self.targetRefs.all(a, self.targetRefs.exists_one(b, "
            "a.kind == b.kind && a.group == b.group && a.name == b.name && "
            "(has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')))"
        ),
        holds=_targets_unique,
        reads=("target_refs",),
    ),
    CelRule(
        part=RateLimitPolicySpec,
        message="give exactly one of domain, targetRefs, workloadSelector",
        cel="[has(self.domain),has(self.targetRefs),has(self.workloadSelector)].exists_one(x, x)",
        holds=lambda spec: _given(spec.domain, spec.target_refs, spec.workload_selector) == 1,
    ),
    CelRule(
        part=RateLimitPolicySpec,
        message="overrides attach to Gateways only",
        field=".overrides",
        cel="!has(self.overrides) || (has(self.targetRefs) && self.targetRefs.all(t, t.kind == 'Gateway'))",
        holds=_attaches_to_gateways,
        reads=("target_refs",),
    ),
    CelRule(
        part=RateLimitPolicySpec,
        message="domain is immutable: a change would reset its counters",
        field=".domain",
        cel=("has(self.domain) == has(oldSelf.domain) && (!has(self.domain) || self.domain == oldSelf.domain)"),
        holds=None,
    ),
    _from_rule("rules", "rules"),
    _from_rule("defaults", "defaults.rules"),
    _from_rule("overrides", "overrides.rules"),
    CelRule(
        part=RuleSpec,
        message="limits go with action Limit, and it needs them",
        field=".limits",
        cel="(self.action == 'Limit') == has(self.limits)",
        holds=lambda rule: (rule.action is Action.LIMIT) == bool(rule.limits),
        reads=("action",),
    ),
    CelRule(
        part=RuleSpec,
        message="local goes with action Limit, and with entries of type Any, or Exact with a value that is not empty",
        field=".local",
        cel=(
            "!has(self.local) || (self.action == 'Limit' && self.match.all(m, m.type == 'Any' || "
            "(m.type == 'Exact' && has(m.value) && size(m.value) > 0)))"
        ),
        holds=_local_fits,
        reads=("action", "local"),
    ),
    CelRule(
        part=Match,
        message="value is required for Exact and Prefix, and not allowed for Any",
        field=".value",
        cel="self.type == 'Any' ? !has(self.value) : has(self.value)",
        holds=lambda match: (match.type is MatchType.ANY) == (match.value is None),
        reads=("type",),
    ),
    CelRule(
        part=Match,
        message="bucket goes with type Prefix",
        field=".bucket",
        cel="self.type == 'Prefix' || !has(self.bucket)",
        holds=lambda match: match.type is MatchType.PREFIX or match.bucket is None,
        reads=("type",),
    ),
    CelRule(
        part=ValueSource,
        message="name goes with Header and QueryParameter",
        field=".name",
        cel="(self.type in ['Header','QueryParameter']) == has(self.name)",
        holds=lambda source: (source.type in _NAMED) == (source.name is not None),
        reads=("type",),
    ),
    CelRule(
        part=ValueSource,
        message="filter and path go with Metadata",
        field=".filter",
        cel="(self.type == 'Metadata') == (has(self.filter) && has(self.path))",
        holds=lambda source: (source.type is SourceType.METADATA) == (_given(source.filter, source.path) == 2),
        reads=("type",),
    ),
    CelRule(
        part=LimitSpec,
        message="give exactly one of window, calendar",
        cel="has(self.window) != has(self.calendar)",
        holds=lambda limit: _given(limit.window_us, limit.calendar) == 1,
    ),
    CelRule(
        part=LimitSpec,
        message="calendar needs algorithm FixedWindow",
        field=".algorithm",
        cel="!has(self.calendar) || !has(self.algorithm) || self.algorithm == 'FixedWindow'",
        holds=lambda limit: limit.calendar is None or limit.algorithm in (None, Algorithm.FIXED_WINDOW),
        reads=("algorithm",),
    ),
    CelRule(
        part=LimitSpec,
        message="burst goes with TokenBucket",
        field=".burst",
        cel="!has(self.burst) || (has(self.algorithm) && self.algorithm == 'TokenBucket')",
        holds=lambda limit: limit.burst is None or limit.algorithm is Algorithm.TOKEN_BUCKET,
        reads=("algorithm",),
    ),
)
"""In the order of their evaluation. The bounds of durations come from the model: `<field> is <least> to <most>`."""


@functools.cache
def time_zones() -> frozenset[str]:
    """Names of the time zones of the `tzdata` package, the only one that is used (DECISIONS 21)."""
    listing = importlib.resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    return frozenset(listing.split())


def _zone_exists(calendar: CalendarWindow) -> Iterator[Finding]:
    if calendar.time_zone not in time_zones():
        name = calendar.time_zone
        yield ".timeZone", f"no time zone `{shown(name)}` in tzdata{hint(name, time_zones())}"


def _rate_bounded(limit: LimitSpec) -> Iterator[Finding]:
    """DECISIONS 11; `burst` where it is not written equals `requests`, whose bucket fills within a window."""
    if limit.window_us is None:
        return
    most = MAX_REQUESTS_PER_MS * limit.window_us // 1_000
    if limit.requests > most:
        window = duration_text(limit.window_us)
        yield ".requests", f"at most {MAX_REQUESTS_PER_MS} requests per millisecond of the window: {most} for {window}"
    if limit.burst is not None and limit.burst * limit.window_us > WINDOW_MAX_US * limit.requests:
        longest = WINDOW_MAX_US * limit.requests // limit.window_us
        yield ".burst", f"an empty bucket fills within 366 days: burst is at most {longest} here"


def _identities_differ(limits: Sequence[LimitSpec], path: str) -> Iterator[Finding]:
    """Two entries of one list may not share a counter (DECISIONS 8)."""
    first: dict[object, int] = {}
    for place, limit in placed(limits):
        earlier = first.setdefault((limit.law, limit.window_us, limit.calendar), place)
        if earlier != place:
            yield (
                f"{path}[{place}]",
                f"same algorithm and window as limits[{earlier}], hence the same counter; keep the stricter of the two",
            )


def _rollout_of_limits(rule: RuleSpec) -> Iterator[Finding]:
    if rule.rollout is not None and rule.action is not Action.LIMIT:
        yield ".rollout", "rollout goes with action Limit"


def _replaced_exist(rules: Sequence[RuleSpec], path: str) -> Iterator[Finding]:
    if len(list(whole(rules))) < len(rules):
        return  # a rule without a name may be the one that is meant
    names = [each.name for each in rules]
    for place, rule in enumerate(rules):
        for position, name in placed(rule.replaces):
            below = f"{path}[{place}].replaces[{position}]"
            if name == rule.name:
                yield below, "a rule cannot replace itself"
            elif name not in names:
                yield below, f"no rule `{shown(name)}` in this policy{hint(name, names)}"


def _domain_free(spec: RateLimitPolicySpec) -> Iterator[Finding]:
    if spec.domain == RESERVED_DOMAIN:
        yield ".domain", f"{RESERVED_DOMAIN} is reserved for policies with targets"


CHECKS: Final[Sequence[tuple[type, Check]]] = (
    *((rule.part, rule.check()) for rule in CEL_RULES if rule.holds is not None),
    (RateLimitPolicySpec, Check(_domain_free, ("domain",))),
    (RateLimitPolicySpec, Check(lambda spec: chains_differ(spec.rules, ".rules"), ("rules",))),
    (RateLimitPolicySpec, Check(lambda spec: _replaced_exist(spec.rules, ".rules"), ("rules",))),
    (LayeredRules, Check(lambda layer: chains_differ(layer.rules, ".rules"), ("rules",))),
    (LayeredRules, Check(lambda layer: _replaced_exist(layer.rules, ".rules"), ("rules",))),
    (RuleSpec, Check(_rollout_of_limits, ("action",))),
    (RuleSpec, Check(lambda rule: _identities_differ(rule.limits, ".limits"), ("limits",))),
    (RolloutSpec, Check(lambda rollout: _identities_differ(rollout.limits, ".limits"), ("limits",))),
    *source_rules.CHECKS,
    (LimitSpec, Check(_rate_bounded, ("requests", "window_us", "burst"))),
    (CalendarWindow, Check(_zone_exists, ("time_zone",))),
)
"""Every rule of a policy for files, by the part that it is about."""

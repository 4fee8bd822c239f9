"""From a decoded request to its plan: which rule each descriptor meets, and what that charges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ratelimit_service.algorithms.limit import Algorithm, Limit
from ratelimit_service.limiter.labels import OVERRIDE_LABEL, ROLLOUT_SUFFIX, Labels
from ratelimit_service.limiter.near import near_threshold
from ratelimit_service.limiter.plan import Kind, Part, Plan, Side, current_limit, plan_bytes
from ratelimit_service.limiter.refusals import UNIT_SECONDS
from ratelimit_service.limiter.settings import LimiterSettings
from ratelimit_service.policy.identity import counter_key, limit_id, stable_percent
from ratelimit_service.policy.match import match
from ratelimit_service.policy.snapshot import Action, Domain, HeaderStyle, Rule, RuleLimit
from ratelimit_service.quota.store import Charge, Role
from ratelimit_service.quota.upstream import upstream_stem
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.telemetry.counters import RuleCounters
from ratelimit_service.wire.rls.messages import Descriptor, Override, Request, Unit

MOST_HITS = 2**63 - 1
"""Hits above this count as this: no limit is near it, and every store can carry it (DECISIONS 2)."""


class Planner:
    """Resolves requests against one domain's tree.

    Args:
        settings: Process-wide switches.
        table: Where counters of rules come from; a rule is named there when a request first meets it.
        labels: What the rules are called there.
    """

    def __init__(self, settings: LimiterSettings, table: CounterTable, labels: Labels) -> None:
        self._settings = settings
        self._table = table
        self._labels = labels

    def plan(self, domain: Domain, request: Request) -> Plan:
        """The plan of a request that is not refused (`limiter.refusals`)."""
        return _Planning(self._settings, self._table, self._labels, domain, request).plan()


def hits_of(request: Request, descriptor: Descriptor) -> int:
    """Hits of a descriptor: its own, an explicit 0 included, else the request's, where 0 means 1."""
    hits = descriptor.hits if descriptor.hits is not None else request.hits_addend or 1
    return min(hits, MOST_HITS)


def role_of(rule: Rule, settings: LimiterSettings) -> Role:
    """How a rule's limits take part. A shadow rule is never over, so it is no quota that could be."""
    if rule.shadow:
        return Role.SHADOW
    if settings.quota_mode or rule.quota:
        return Role.QUOTA
    return Role.PENALTY if rule.count_denied else Role.ENFORCE


class _Planning:
    """One run of `Planner.plan`."""

    def __init__(
        self, settings: LimiterSettings, table: CounterTable, labels: Labels, domain: Domain, request: Request
    ) -> None:
        self._settings = settings
        self._table = table
        self._labels = labels
        self._domain = domain
        self._request = request
        self._charges: list[Charge] = []
        self._refunds: list[Charge] = []

    def plan(self) -> Plan:
        descriptors = self._request.descriptors
        rules = [None if each.override is not None else match(self._domain, each.entries) for each in descriptors]
        lifted = {name for rule in rules if rule is not None for name in rule.replaces}
        parts = tuple(
            self._part(index, descriptor, rule, lifted)
            for index, (descriptor, rule) in enumerate(zip(descriptors, rules, strict=True))
        )
        denied = any(part.kind is Kind.DENY and part.rejects for part in parts)
        charges: Iterable[Charge] = self._charges
        if denied and not self._settings.compat:
            charges = map(_when_denied, charges)
        elif any(self._is_passed_quota(part) for part in parts):
            charges = map(_when_quota_passed, charges)
        return Plan(
            profile=self._domain.profile,
            parts=parts,
            charges=tuple(charges),
            refunds=tuple(self._refunds),
            denied=denied,
            headers=_header_style(self._domain, parts),
            size_bytes=plan_bytes(len(parts), len(self._charges) + len(self._refunds)),
        )

    def _part(self, index: int, descriptor: Descriptor, rule: Rule | None, lifted: set[str]) -> Part:
        hits = hits_of(self._request, descriptor)
        if descriptor.override is not None:
            return self._overridden(index, descriptor, descriptor.override, hits)
        if rule is None:
            return Part(Kind.UNLIMITED, None, descriptor, hits)
        # As in the original, what is unlimited stays so: there is no limit to lift.
        if rule.replaced_by in lifted and rule.action is not Action.ALLOW:
            return Part(Kind.REPLACED, rule, descriptor, hits)
        counters = self._table.rule(rule.domain, self._labels.label(rule, descriptor))
        if rule.action is not Action.LIMIT:
            kind = Kind.ALLOW if rule.action is Action.ALLOW else Kind.DENY
            return Part(kind, rule, descriptor, hits, counters=counters)
        key = self._key(descriptor, rule)
        judges, watches, is_new_side = _sides(rule, key)
        own, others = counters, counters
        if watches:
            new = self._table.rule(rule.domain, counters.rule + ROLLOUT_SUFFIX)
            own, others = (new, counters) if is_new_side else (counters, new)
        if descriptor.is_negative:
            return self._negative(index, descriptor, rule, key, hits, (judges, watches), own)
        role = role_of(rule, self._settings)
        if rule.rollout is not None and not rule.rollout.limits and not is_new_side:
            role = Role.SHADOW
        side = self._side(index, rule, judges, key, hits, own, [role] * len(judges))
        other = None
        if watches:
            counted = {entry.identity for entry in judges}
            # A limit that shares its count with one that is charged is only looked at: hits count once.
            roles = [Role.OBSERVE if entry.identity in counted else Role.SHADOW for entry in watches]
            # A unit of their own: what they say must not decide what the judging side counts.
            unit = len(self._request.descriptors) + index
            other = self._side(unit, rule, watches, key, hits, others, roles)
        return Part(Kind.CHARGE, rule, descriptor, hits, side, other)

    def _key(self, descriptor: Descriptor, rule: Rule | None) -> bytes:
        """The counted values; in compat mode the original's text."""
        shared = () if rule is None else rule.shared
        values = [value for _, value in descriptor.entries]
        for place, bucket in enumerate(shared[: len(values)]):
            if bucket is not None:
                values[place] = bucket
        if self._settings.compat:
            names = (name for name, _ in descriptor.entries)
            return upstream_stem(self._request.domain, zip(names, values, strict=True))
        return counter_key(values)

    def _side(
        self,
        unit: int,
        rule: Rule,
        limits: Sequence[RuleLimit],
        key: bytes,
        hits: int,
        counters: RuleCounters,
        roles: Sequence[Role],
    ) -> Side:
        first = len(self._charges)
        for entry, role in zip(limits, roles, strict=True):
            self._charges.append(Charge(entry.identity, entry.limit, key, hits, role, unit))
        return self._judged(
            first,
            [entry.limit for entry in limits],
            rule.limit_name,
            counters,
            shadow=all(role in (Role.SHADOW, Role.OBSERVE) for role in roles),
            quota=roles[0] is Role.QUOTA,
        )

    def _judged(
        self,
        first: int,
        limits: Sequence[Limit],
        name: str,
        counters: RuleCounters,
        *,
        shadow: bool,
        quota: bool = False,
    ) -> Side:
        """The side whose charges, or refunds, begin at `first`."""
        shown = tuple(current_limit(limit, name) for limit in limits)
        near = tuple(near_threshold(limit, self._settings.near_limit_ratio) for limit in limits)
        return Side(first, first + len(limits), shown, near, counters, shadow, quota)

    def _negative(
        self,
        index: int,
        descriptor: Descriptor,
        rule: Rule,
        key: bytes,
        hits: int,
        sides: tuple[Sequence[RuleLimit], Sequence[RuleLimit]],
        counters: RuleCounters,
    ) -> Part:
        """Hits to give back: to both sides of a rollout, each counter once; the judging side is shown."""
        judges, watches = sides
        if not rule.refunds and not self._settings.compat:
            side = self._side(index, rule, judges, key, 0, counters, [Role.OBSERVE] * len(judges))
            return Part(Kind.CHECK, rule, descriptor, hits, side)
        first = len(self._refunds)
        given = {entry.identity for entry in judges}
        for entry in (*judges, *(entry for entry in watches if entry.identity not in given)):
            self._refunds.append(Charge(entry.identity, entry.limit, key, hits, Role.OBSERVE, index))
        side = self._judged(first, [entry.limit for entry in judges], rule.limit_name, counters, shadow=True)
        return Part(Kind.REFUND, rule, descriptor, hits, side)

    def _overridden(self, index: int, descriptor: Descriptor, override: Override, hits: int) -> Part:
        """A limit that the descriptor carries: all its values are the key, and no rule takes part."""
        requests = override.requests
        limit = Limit(Algorithm.FIXED_WINDOW, requests, UNIT_SECONDS[Unit(override.unit)] * 1_000_000, requests)
        names = "/".join(f"{len(name)}:{name.decode('latin-1')}" for name, _ in descriptor.entries)
        # The NUL keeps the name apart from every rule's and every YAML path's.
        identity = limit_id(self._domain.name, f"\0override {names}", limit)
        counters = self._table.rule(self._domain.name, OVERRIDE_LABEL)
        key = self._key(descriptor, None)
        failure = self._domain.failure
        if descriptor.is_negative and self._settings.compat:
            place = len(self._refunds)
            self._refunds.append(Charge(identity, limit, key, hits, Role.OBSERVE, index, failure))
            return Part(Kind.REFUND, None, descriptor, hits, self._judged(place, [limit], "", counters, shadow=True))
        place = len(self._charges)
        if descriptor.is_negative:
            self._charges.append(Charge(identity, limit, key, 0, Role.OBSERVE, index, failure))
            return Part(Kind.CHECK, None, descriptor, hits, self._judged(place, [limit], "", counters, shadow=True))
        is_quota = self._settings.quota_mode
        role = Role.QUOTA if is_quota else Role.ENFORCE
        self._charges.append(Charge(identity, limit, key, hits, role, index, failure))
        side = self._judged(place, [limit], "", counters, shadow=False, quota=is_quota)
        return Part(Kind.CHARGE, None, descriptor, hits, side)

    def _is_passed_quota(self, part: Part) -> bool:
        """Whether a descriptor is a quota that passes whatever is counted: then quotas deny nothing.

        As in the original: without a rule in `--quota-mode`, or a quota whose status is never OVER_LIMIT.
        What is unlimited is no quota.
        """
        is_quota = self._settings.quota_mode or (part.rule is not None and part.rule.quota)
        return is_quota and part.kind is not Kind.ALLOW and not part.rejects


def _sides(rule: Rule, key: bytes) -> tuple[Sequence[RuleLimit], Sequence[RuleLimit], bool]:
    """(limits that judge the key, limits that only watch, whether the key is on a rollout's new side)."""
    rollout = rule.rollout
    if rollout is None:
        return rule.limits, (), False
    is_new_side = stable_percent(key) < rollout.percent
    if not rollout.limits:
        return rule.limits, (), is_new_side
    if is_new_side:
        return rollout.limits, rule.limits, True
    return rule.limits, rollout.limits, False


def _when_denied(charge: Charge) -> Charge:
    """A charge of a request that a Deny rule refuses: penalties count all the same, of the others nothing is taken."""
    return charge if charge.role is Role.PENALTY else msgspec.structs.replace(charge, role=Role.OBSERVE, hits=0)


def _when_quota_passed(charge: Charge) -> Charge:
    """A charge of a request whose quotas deny nothing: a quota counts alone, if it fits, which is what shadows do."""
    return msgspec.structs.replace(charge, role=Role.SHADOW) if charge.role is Role.QUOTA else charge


def _header_style(domain: Domain, parts: Sequence[Part]) -> HeaderStyle:
    """The first style that a policy of the request's rules asks for; without any rule, the domain's."""
    rules = [part.rule for part in parts if part.rule is not None and part.kind is not Kind.REPLACED]
    if not rules:
        return domain.headers
    return next((rule.headers for rule in rules if rule.headers is not HeaderStyle.OFF), HeaderStyle.OFF)

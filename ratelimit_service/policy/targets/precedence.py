"""Which rules are in force where: hierarchy, age, defaults and overrides (GEP-713, "Conflict resolution").

Four levels, the highest first: Gateway, listener, route, rule of a route. On each at most one policy is in force per
target; of two the older wins whole, and of two of one age the one whose `<namespace>/<name>` sorts first.
Then a higher level meets what is in force below it:

* `overrides`: the higher level's rules win. Patch: rules of other names stay; Atomic: nothing below stays.
* `defaults`, and `rules` without either: the lower level's rules win. Patch: the higher level adds the names that
  are missing; Atomic: it adds all of its rules where nothing is in force below, else none.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_service.policy.manifest_compile import written_rules
from ratelimit_service.policy.merge import by_age
from ratelimit_service.policy.model import Mode, RateLimitPolicy, RuleSpec, Strategy, TargetKind, TargetRef
from ratelimit_service.policy.targets.topology import GATEWAY_GROUP, Point


class Target(msgspec.Struct, frozen=True):
    """What a policy attaches to, with its namespace; `section` empty: the whole object."""

    kind: TargetKind
    namespace: str
    name: str
    section: str = ""

    def __str__(self) -> str:
        section = f"/{self.section}" if self.section else ""
        return f"{self.kind.value} {self.namespace}/{self.name}{section}"


class Level(enum.IntEnum):
    """Levels, the highest first."""

    GATEWAY = 0
    LISTENER = 1
    ROUTE = 2
    RULE = 3


class Standing(msgspec.Struct, frozen=True):
    """What of one policy is in force at a point.

    Attributes:
        policy: The policy.
        level: Where it is attached.
        rules: Those of its rules that are in force, in order; never empty.
    """

    policy: RateLimitPolicy
    level: Level
    rules: tuple[RuleSpec, ...]


class Attached(msgspec.Struct, frozen=True):
    """Policies by target.

    Attributes:
        winners: The one in force of each target.
        losers: (policy, target, the older policy that holds it).
    """

    winners: Mapping[Target, RateLimitPolicy]
    losers: tuple[tuple[RateLimitPolicy, Target, RateLimitPolicy], ...]


_OF_GATEWAY: Final = (TargetKind.GATEWAY,)


def target_of(policy: RateLimitPolicy, reference: TargetRef) -> Target | None:
    """What a reference of a policy names, None: no object of the Gateway API."""
    if reference.group != GATEWAY_GROUP:
        return None
    return Target(reference.kind, policy.metadata.namespace, reference.name, reference.section_name or "")


def attach(policies: Sequence[RateLimitPolicy]) -> Attached:
    """Give each target its one policy; the order of `policies` counts only where no creation time is known."""
    winners: dict[Target, RateLimitPolicy] = {}
    losers: list[tuple[RateLimitPolicy, Target, RateLimitPolicy]] = []
    for policy in by_age(policies):
        for reference in policy.spec.target_refs:
            target = target_of(policy, reference)
            if target is None:
                continue
            winner = winners.setdefault(target, policy)
            if winner is not policy:
                losers.append((policy, target, winner))
    return Attached(winners, tuple(losers))


def targets_at(point: Point) -> tuple[Target | None, ...]:
    """What a policy of each level would name to be in force at a point; None: nothing there."""
    gateway, listener, route = point.gateway, point.listener, point.route
    whole = Target(TargetKind.GATEWAY, gateway.namespace, gateway.name)
    section = Target(TargetKind.GATEWAY, gateway.namespace, gateway.name, listener.name)
    if route is None:
        return (whole, section, None, None)
    of_route = Target(route.kind, route.namespace, route.name)
    name = route.rules[point.rule]
    of_rule = Target(route.kind, route.namespace, route.name, name) if name else None
    return (whole, section, of_route, of_rule)


def in_force(attached: Attached, point: Point) -> tuple[Standing, ...]:
    """Everything in force at a point, the highest level first."""
    standing: tuple[Standing, ...] = ()
    for level, target in reversed(list(zip(Level, targets_at(point), strict=True))):
        policy = attached.winners.get(target) if target is not None else None
        if policy is not None:
            standing = meet(policy, level, standing)
    return standing


def meet(policy: RateLimitPolicy, level: Level, below: tuple[Standing, ...]) -> tuple[Standing, ...]:
    """A policy of a higher level meets what is in force below it."""
    own = live_rules(policy)
    overrides = policy.spec.overrides is not None
    layer = policy.spec.overrides or policy.spec.defaults
    if layer is not None and layer.strategy is Strategy.ATOMIC:
        # An Atomic policy without a live rule claims nothing, so that switching it off lifts it.
        if not own or (below and not overrides):
            return below
        return (Standing(policy, level, own),)
    if overrides:
        names = {rule.name for rule in own}
        below = tuple(_without(standing, names) for standing in below)
        below = tuple(standing for standing in below if standing.rules)
    else:
        taken = {rule.name for standing in below for rule in standing.rules}
        own = tuple(rule for rule in own if rule.name not in taken)
    return (Standing(policy, level, own), *below) if own else below


def _without(standing: Standing, names: set[str]) -> Standing:
    rules = tuple(rule for rule in standing.rules if rule.name not in names)
    return msgspec.structs.replace(standing, rules=rules)


def live_rules(policy: RateLimitPolicy) -> tuple[RuleSpec, ...]:
    """The rules of a policy but those that are Disabled: such a one is absent, and wins no name either."""
    _, rules = written_rules(policy)
    return tuple(rule for rule in rules if (rule.mode or policy.spec.mode) is not Mode.DISABLED)

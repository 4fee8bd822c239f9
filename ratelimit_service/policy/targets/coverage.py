"""A set of policies over a topology: what is in force at each point, and which targets lead nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ratelimit_service.policy.manifest_compile import place_of
from ratelimit_service.policy.model import RateLimitPolicy, ServiceErrorAction, TargetKind
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.targets.precedence import Standing, Target, attach, in_force, target_of, targets_at
from ratelimit_service.policy.targets.topology import Gateway, Point, Topology, points


class Coverage:
    """Answers for one set of policies and one topology; both are immutable, so is this.

    Args:
        policies: All of them; those without `targetRefs` are passed over.
        topology: What there is to attach to.
    """

    def __init__(self, policies: Sequence[RateLimitPolicy], topology: Topology) -> None:
        self.policies = tuple(policy for policy in policies if policy.spec.target_refs)
        self.topology = topology
        self.attached = attach(self.policies)
        self._there = existing_targets(topology)

    def points(self, gateway: Gateway) -> Iterator[Point]:
        """Every place of a Gateway where requests pass (see `topology.points`)."""
        return points(self.topology, gateway)

    def at(self, point: Point) -> tuple[Standing, ...]:
        """What is in force there, the highest level first."""
        return in_force(self.attached, point)

    def gateways(self) -> tuple[Gateway, ...]:
        """The Gateways with anything in force, in order."""
        return tuple(
            gateway for gateway in self.topology.gateways if any(self.at(point) for point in self.points(gateway))
        )

    def deciding(self, gateway: Gateway) -> RateLimitPolicy | None:
        """The policy whose `failure.onServiceError` holds for the Gateway's filter, None: the default does."""
        return self.attached.winners.get(Target(TargetKind.GATEWAY, gateway.namespace, gateway.name))

    def ignored_denials(self, gateway: Gateway) -> tuple[RateLimitPolicy, ...]:
        """Policies in force on a Gateway that ask to deny without the service, and are not heard."""
        deciding = self.deciding(gateway)
        heard = deciding is not None and deciding.spec.failure.on_service_error is ServiceErrorAction.DENY
        asking = [
            standing.policy
            for point in self.points(gateway)
            for standing in self.at(point)
            if standing.policy.spec.failure.on_service_error is ServiceErrorAction.DENY
        ]
        return () if heard else tuple({id(policy): policy for policy in asking}.values())

    def exists(self, target: Target) -> bool:
        """Whether the object that a policy names is there, its section too."""
        return target in self._there

    def problems(self) -> list[Problem]:
        """Targets that are not there, and policies whose target an older one holds."""
        found = [problem for policy in self.policies for problem in self._missing(policy)]
        for policy, target, winner in self.attached.losers:
            name = f"{winner.metadata.namespace}/{winner.metadata.name}"
            message = f"{target} has the older policy {name}, which is in force there whole; this one is not"
            found.append(place_of(policy, "spec.targetRefs").problem(message, Severity.WARNING))
        return found

    def _missing(self, policy: RateLimitPolicy) -> Iterator[Problem]:
        for index, reference in enumerate(policy.spec.target_refs):
            target = target_of(policy, reference)
            place = place_of(policy, f"spec.targetRefs[{index}]")
            if target is None:
                yield place.problem(f"group `{reference.group}` has nothing that a policy attaches to")
            elif not self.exists(target):
                yield place.problem(f"there is no {target}", Severity.WARNING)


def existing_targets(topology: Topology) -> frozenset[Target]:
    """Everything that a policy can name."""
    found: set[Target] = set()
    for gateway in topology.gateways:
        for listener in gateway.listeners:
            found |= _named(targets_at(Point(gateway, listener)))
    for route in topology.routes:
        found.add(Target(route.kind, route.namespace, route.name))
        found |= {Target(route.kind, route.namespace, route.name, name) for name in route.rules if name}
    return frozenset(found)


def _named(targets: Iterable[Target | None]) -> set[Target]:
    return {target for target in targets if target is not None}

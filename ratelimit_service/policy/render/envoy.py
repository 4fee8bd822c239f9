"""Plain Envoy: the parts that a hand-written configuration takes in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ratelimit_service.policy.manifest_compile import policy_name
from ratelimit_service.policy.merge import by_age, contest
from ratelimit_service.policy.model import RESERVED_DOMAIN, RateLimitPolicy, RuleSpec
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.render.actions import Config, blurred, entries_of, union, unsourced
from ratelimit_service.policy.render.local import LOCAL_FILTER, idle_filter, idle_settings, settings_of, standing_rules
from ratelimit_service.policy.render.parts import ServiceAddress, cluster, denies, http_filter
from ratelimit_service.policy.targets.coverage import Coverage
from ratelimit_service.policy.targets.precedence import live_rules
from ratelimit_service.policy.targets.topology import Gateway, Point

FILTER: Final = "envoy.filters.http.ratelimit"
"""Envoy's own name of the filter."""


class Rendered(msgspec.Struct, frozen=True):
    """What was made, and what its authors should know; with an ERROR among the problems it is not to be used."""

    config: Config
    problems: tuple[Problem, ...] = ()


def render_domain(domain: str, policies: Sequence[RateLimitPolicy], service: ServiceAddress) -> Rendered:
    """The parts for one domain; `policies` are all that name it, at least one.

    The same `rate_limits` go wherever requests are to be limited: on a virtual host, and on each of its routes that
    has a list of its own, since that replaces the virtual host's.
    """
    oldest_first = by_age(policies)
    problems = [problem for policy in oldest_first for problem in unsourced(policy)]
    in_force = [(policy, rules) for policy, rules in _winning(oldest_first) if rules]
    limits: list[Config] = []
    if not problems:
        for policy, rules in in_force:
            # Two policies of a domain may read the same values: one descriptor serves both.
            limits += [entry for entry in entries_of(policy, rules) if entry not in limits]
    asked_well = not problems
    problems += [
        ignored(policy, f"the oldest policy of the domain decides, {oldest_first[0].metadata.name}")
        for policy in oldest_first[1:]
        if denies(policy) and not denies(oldest_first[0])
    ]
    local = settings_of(in_force) if asked_well else None
    config = _parts(domain, service, deny=denies(oldest_first[0]), local=local is not None)
    config["rate_limits"] = limits
    if local is not None:
        config["typed_per_filter_config"] = {LOCAL_FILTER: local}
    return Rendered(config, tuple(problems))


def _winning(oldest_first: Sequence[RateLimitPolicy]) -> Iterator[tuple[RateLimitPolicy, tuple[RuleSpec, ...]]]:
    """The rules of each policy that are in force: of two with one name or chain the older one's."""
    kept = {(rule.policy, rule.name) for rule in contest(oldest_first)[0]}
    for policy in oldest_first:
        name = policy_name(policy)
        yield policy, tuple(rule for rule in live_rules(policy) if (name, rule.name) in kept)


def render_gateway(gateway: Gateway, coverage: Coverage, service: ServiceAddress) -> Rendered:
    """The parts for one Gateway: `rate_limits` of each place where requests pass, the whole list on each."""
    places: list[Config] = []
    problems: list[Problem] = []
    local_above = False
    for point in coverage.points(gateway):
        standing = coverage.at(point)
        for each in blurred(standing):
            if each.problem() not in problems:
                problems.append(each.problem())
        if point.route is None:
            local_above = False
        if standing:
            place = {**_place(point), "rate_limits": union(standing)}
            local = settings_of(standing_rules(standing))
            if point.route is None:
                local_above = local is not None
            elif local_above:
                local = local or idle_settings()
            if local is not None:
                place["typed_per_filter_config"] = {LOCAL_FILTER: local}
            places.append(place)
    problems += [ignored(policy, "the Gateway's own policy decides") for policy in coverage.ignored_denials(gateway)]
    has_local = any("typed_per_filter_config" in place for place in places)
    config = _parts(RESERVED_DOMAIN, service, deny=denies(coverage.deciding(gateway)), local=has_local)
    config["places"] = places
    return Rendered(config, tuple(problems))


def _parts(domain: str, service: ServiceAddress, *, deny: bool, local: bool) -> Config:
    first = [idle_filter()] if local else []
    return {"clusters": [cluster(service)], "http_filters": [*first, http_filter(FILTER, domain, deny=deny)]}


def _place(point: Point) -> Config:
    """What the list belongs on, in the words of the manifests."""
    place: Config = {"listener": f"{point.gateway.namespace}/{point.gateway.name}/{point.listener.name}"}
    if point.route is not None:
        place["route"] = str(point.route)
        place["rule"] = point.route.rules[point.rule] or point.rule
    place["hostnames"] = list(point.hostnames)
    return place


def ignored(policy: RateLimitPolicy, why: str) -> Problem:
    """A policy that asks to deny without the service, and is not heard."""
    path = "spec.failure.onServiceError"
    return Problem(
        policy.origin.file or f"RateLimitPolicy {policy.metadata.namespace}/{policy.metadata.name}",
        path,
        f"is ignored here: Envoy has one answer per filter, and {why}",
        policy.origin.line_of(path),
        Severity.WARNING,
    )

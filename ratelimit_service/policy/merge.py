"""How several documents of one domain become one list of leaves.

Policies: the older one's rule wins a chain or a name, and the loser is told (DECISIONS 10).
Upstream's YAML: nothing is overridden; what is written twice is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from ratelimit_service.policy.backend import Backend
from ratelimit_service.policy.manifest_compile import (
    PolicyRule,
    domain_of,
    place_of,
    policy_name,
    policy_rules,
)
from ratelimit_service.policy.model import RESERVED_DOMAIN, RateLimitPolicy
from ratelimit_service.policy.placed import Place, Placed
from ratelimit_service.policy.plan import DomainHead
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.profile_model import CacheProfile
from ratelimit_service.policy.tree import Chain, chain_text
from ratelimit_service.policy.upstream_compile import upstream_leaves
from ratelimit_service.policy.upstream_model import UpstreamConfig


class Profiles(msgspec.Struct, frozen=True):
    """The profiles of a set.

    Attributes:
        by_name: Under `<namespace>/<name>`.
        default: Of the one that policies without a name of their own use; empty: the service's own store.
    """

    by_name: Mapping[str, CacheProfile]
    default: str

    def backend(self, name: str) -> Backend | None:
        """What a profile says of its store; None: the name is empty."""
        profile = self.by_name.get(name)
        return None if profile is None else Backend(profile.metadata.namespace, profile.spec.store, profile.spec.leases)


def collect_profiles(objects: Sequence[object], problems: list[Problem]) -> Profiles:
    """The profiles among decoded objects; two that are both the default are an error naming both."""
    by_name: dict[str, CacheProfile] = {}
    for item in objects:
        if isinstance(item, CacheProfile):
            by_name.setdefault(f"{item.metadata.namespace}/{item.metadata.name}", item)
    defaults = [name for name, profile in by_name.items() if profile.spec.default]
    for name in defaults[1:]:
        place = Place.of(by_name[name].origin, f"CacheProfile {name}", "spec.default")
        problems.append(place.problem(f"CacheProfile {defaults[0]} is the default too; only one may be"))
    return Profiles(by_name, defaults[0] if defaults else "")


class MergedDomain(msgspec.Struct, frozen=True):
    """One domain, its conflicts decided."""

    head: DomainHead
    leaves: tuple[Placed, ...]


def by_age(policies: Sequence[RateLimitPolicy]) -> list[RateLimitPolicy]:
    """Oldest first: by creation time where the API server gave one, then as they come (sorted path, document).

    Policies from files have no creation time and come after those that have; equal times: by namespace and name.
    """

    def age(policy: RateLimitPolicy) -> tuple[int, float, str]:
        created = _created_s(policy.metadata.creation_timestamp)
        return (1, 0.0, "") if created is None else (0, created, policy_name(policy))

    return sorted(policies, key=age)


def _created_s(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        created = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (created if created.tzinfo is not None else created.replace(tzinfo=UTC)).timestamp()


class Loss(msgspec.Struct, frozen=True):
    """A rule that is not in force.

    Attributes:
        loser: The rule.
        winner: The older rule that takes its place.
        what: What both have: `name` or `chain (…)`.
    """

    loser: PolicyRule
    winner: PolicyRule
    what: str


def contest(policies: Iterable[RateLimitPolicy]) -> tuple[list[PolicyRule], list[Loss]]:
    """Which rules of one domain's policies, oldest first, are in force, and which are not: the older rule wins."""
    chains: dict[Chain, PolicyRule] = {}
    names: dict[str, PolicyRule] = {}
    kept: list[PolicyRule] = []
    lost: list[Loss] = []
    for policy in policies:
        for rule in policy_rules(policy):
            chain = rule.placed.leaf.chain
            winner = names.get(rule.name) or chains.get(chain)
            if winner is None:
                chains[chain] = names[rule.name] = rule
                kept.append(rule)
            else:
                lost.append(Loss(rule, winner, "name" if rule.name in names else f"chain ({chain_text(chain)})"))
    return kept, lost


def merge_policies(policies: Sequence[RateLimitPolicy], profiles: Profiles, problems: list[Problem]) -> MergedDomain:
    """Merge the policies of one domain; `policies` is not empty and oldest first."""
    kept, lost = contest(policies)
    problems += (_conflict(each.loser, each.winner, each.what) for each in lost)
    oldest = policies[0].spec
    profile = _profile(policies, profiles, problems)
    head = DomainHead(
        domain_of(policies[0]),
        profile,
        oldest.failure.on_store_error,
        oldest.response_headers,
        profiles.backend(profile),
    )
    return MergedDomain(head, tuple(rule.placed for rule in kept))


def _conflict(loser: PolicyRule, winner: PolicyRule, what: str) -> Problem:
    if loser.policy == winner.policy:
        return loser.placed.place.problem(f"same {what} as rule `{winner.name}` at {winner.placed.place}; keep one")
    message = (
        f"rule `{loser.name}` of {loser.policy} has the same {what} as rule `{winner.name}` of {winner.policy} "
        f"({winner.placed.place}), which is older and wins; this one is not in force"
    )
    return loser.placed.place.problem(message, Severity.WARNING)


def _profile(policies: Sequence[RateLimitPolicy], profiles: Profiles, problems: list[Problem]) -> str:
    """The one profile that the domain's hits are counted in (DECISIONS 23); policies that name none follow it.

    Where none is named it is the default profile, and the service's own store where there is none.
    """
    chosen, chosen_by = "", ""
    for policy in policies:
        reference = policy.spec.cache_profile_ref
        if reference is None:
            continue
        name = f"{reference.namespace or policy.metadata.namespace}/{reference.name}"
        place = place_of(policy, "spec.cacheProfileRef")
        if policy.spec.domain is None:
            problems.append(place.problem("targeted policies use the default profile; remove this field"))
        elif name not in profiles.by_name:
            problems.append(
                place.problem(f"there is no CacheProfile {name} among the files; write it, or another name")
            )
        elif not chosen:
            chosen, chosen_by = name, policy_name(policy)
        elif name != chosen:
            message = (
                f"domain `{domain_of(policy)}` is counted in CacheProfile {chosen} by the older policy {chosen_by}; "
                f"a domain has one profile, so name that one here or remove this field"
            )
            problems.append(place.problem(message))
    return chosen or profiles.default


def merge_upstream(
    configs: Sequence[UpstreamConfig], merge_domain_config: bool, problems: list[Problem]
) -> MergedDomain:
    """Merge the documents of one domain in the order in which they come; `configs` is not empty."""
    domain = configs[0].domain
    if not merge_domain_config:
        first = Place.of(configs[0].origin, f"domain {domain}", "domain")
        for config in configs[1:]:
            place = Place.of(config.origin, f"domain {domain}", "domain")
            message = f"domain `{domain}` is also written at {first}; use one document or --merge-domain-config"
            problems.append(place.problem(message))
        configs = configs[:1]
    seen: dict[str, Placed] = {}
    for config in configs:
        for path, placed in upstream_leaves(config):
            first_placed = seen.setdefault(path, placed)
            if first_placed is not placed:
                text = chain_text(placed.leaf.chain)
                problems.append(placed.place.problem(f"`{text}` is also written at {first_placed.place}; keep one"))
    return MergedDomain(DomainHead(domain), tuple(seen.values()))


def unique_objects(objects: Sequence[object], problems: list[Problem]) -> list[RateLimitPolicy]:
    """The policies, each namespace and name once.

    A policy or profile in a second file is an error; twice in one file is told by the decoder.
    """
    found: dict[tuple[type, str], RateLimitPolicy | CacheProfile] = {}
    for item in objects:
        if not isinstance(item, RateLimitPolicy | CacheProfile):
            continue
        kind, name = type(item).__name__, f"{item.metadata.namespace}/{item.metadata.name}"
        first = found.setdefault((type(item), name), item)
        if first.origin.file != item.origin.file:
            place = Place.of(item.origin, f"{kind} {name}", "metadata.name")
            problems.append(place.problem(f"{kind} {name} is also written at {first.origin}; rename or remove one"))
    return [item for item in found.values() if isinstance(item, RateLimitPolicy)]


def domain_conflicts(
    policies: Sequence[RateLimitPolicy], configs: Sequence[UpstreamConfig], problems: list[Problem]
) -> None:
    """A domain belongs to one format, and the reserved one to targeted policies."""
    owners = {domain_of(policy): policy for policy in policies}
    for config in configs:
        place = Place.of(config.origin, f"domain {config.domain}", "domain")
        owner = owners.get(config.domain)
        if config.domain == RESERVED_DOMAIN:
            problems.append(place.problem(f"domain `{RESERVED_DOMAIN}` is reserved for policies with targets"))
        elif owner is not None:
            where = f"RateLimitPolicy {policy_name(owner)} ({place_of(owner)})"
            problems.append(place.problem(f"domain `{config.domain}` is also used by {where}; a domain has one format"))

"""Policies in, snapshot out: both formats become one tree per domain (DECISIONS 41).

Two halves, so that no event loop stalls: `plan_set` decides everything and may run in another process;
`plan.Assembly` turns its flat answer into trees in small steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ratelimit_service.policy.manifest_compile import domain_of
from ratelimit_service.policy.merge import (
    MergedDomain,
    by_age,
    collect_profiles,
    domain_conflicts,
    merge_policies,
    merge_upstream,
    unique_objects,
)
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.plan import DomainPlan, assemble
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.reach import shadowed_rules
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.policy.tree import build_tree
from ratelimit_service.policy.upstream_model import UpstreamConfig

__all__ = ["MAX_RULES", "CompileOptions", "compile", "plan_set", "refuses"]

MAX_RULES = 250_000
"""Most rules and branches of a set: ten times what has been tried, and a bound on the memory that a set can take."""


_Item = TypeVar("_Item")


def compile(  # noqa: A001 — the name that the package's users know it by
    objects: Sequence[object], options: CompileOptions
) -> tuple[Snapshot, list[Problem]]:
    """Compile decoded objects, given in order of sorted path, then document.

    With a problem of severity ERROR the snapshot is what could be made of the rest and must not be applied.
    """
    plans, problems = plan_set(objects, options)
    return assemble(plans), problems


def plan_set(objects: Sequence[object], options: CompileOptions) -> tuple[list[DomainPlan], list[Problem]]:
    """Decide every conflict."""
    problems: list[Problem] = []
    policies = by_age(unique_objects(objects, problems))
    configs = [item for item in objects if isinstance(item, UpstreamConfig)]
    domain_conflicts(policies, configs, problems)
    profiles = collect_profiles(objects, problems)
    merged: dict[str, MergedDomain] = {}
    for domain, group in _grouped(policies, domain_of).items():
        merged[domain] = merge_policies(group, profiles, problems)
    for domain, documents in _grouped(configs, lambda config: config.domain).items():
        if domain not in merged:
            merged[domain] = merge_upstream(documents, options.merge_domain_config, problems)
    size = sum(len(domain.leaves) for domain in merged.values())
    if size > MAX_RULES:
        problems.append(Problem("policies", "", f"{size} rules and branches; at most {MAX_RULES} are served"))
        return [], problems
    plans = []
    for domain_merged in merged.values():
        leaves = tuple(placed.leaf for placed in domain_merged.leaves)
        problems.extend(shadowed_rules(build_tree(leaves), domain_merged.leaves))
        plans.append(DomainPlan(domain_merged.head, leaves))
    return plans, problems


def _grouped(items: Iterable[_Item], name_of: Callable[[_Item], str]) -> dict[str, list[_Item]]:
    groups: dict[str, list[_Item]] = {}
    for item in items:
        groups.setdefault(name_of(item), []).append(item)
    return groups


def refuses(problems: Sequence[Problem]) -> bool:
    """Whether any of the problems refuses the set."""
    return any(problem.severity is Severity.ERROR for problem in problems)

"""A response compiled: what did not change is neither decoded nor compiled again. Pure.

Domains are independent but for the profiles that they name, so a changed policy costs its own domain, and a changed
profile all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ratelimit_service.policy.compile import MAX_RULES, plan_set, refuses
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.plan import DomainPlan, plan_digest, set_version
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.sources.xds.entries import Entry, read_entry
from ratelimit_service.wire.xds.resources import Refusal


class CompiledSet(msgspec.Struct, frozen=True):
    """A set that can be put in force.

    Attributes:
        entries: By the bytes that they came in, in the order of kinds and names.
        plans: By domain.
        digests: Of each plan.
        warnings: Of each domain that has any.
        shadow: The kill switch is thrown.
        version: Content hash, as of the same policies from files.
    """

    entries: Mapping[bytes, Entry] = {}
    plans: Mapping[str, DomainPlan] = {}
    digests: Mapping[str, bytes] = {}
    warnings: Mapping[str, tuple[Problem, ...]] = {}
    shadow: bool = False
    version: str = ""

    def all_warnings(self) -> tuple[Problem, ...]:
        """What the authors should know, each once."""
        found = (problem for domain in sorted(self.warnings) for problem in self.warnings[domain])
        return tuple(dict.fromkeys(found))

    def changed_from(self, before: CompiledSet) -> tuple[list[DomainPlan], list[str]]:
        """(Plans that `before` has not, domains of `before` that are gone)."""
        changed = [plan for name, plan in self.plans.items() if before.digests.get(name) != self.digests[name]]
        return changed, [name for name in before.plans if name not in self.plans]

    def refusals_of(self, problems: Iterable[Problem]) -> list[Refusal]:
        """Problems of this set as a NACK names them."""
        return _refusals(problems, self.entries.values())


class RefusedSet(msgspec.Struct, frozen=True):
    """A response that is refused whole.

    Attributes:
        refusals: What is wrong with which resource.
        problems: The same for people, warnings included.
    """

    refusals: tuple[Refusal, ...]
    problems: tuple[Problem, ...]


def compile_set(
    before: CompiledSet, type_url: str, resources: Sequence[bytes], options: CompileOptions
) -> CompiledSet | RefusedSet:
    """Compile the resources of a response, taking from `before` whatever is the same."""
    entries, refusals = _read(before, type_url, resources)
    if refusals:
        return _refused(refusals)
    groups: dict[str, list[Entry]] = {}
    for entry in entries.values():
        if entry.domain is not None:
            groups.setdefault(entry.domain, []).append(entry)
    touched = _touched(before.entries, entries, groups)
    profiles = [entry.item for entry in entries.values() if entry.is_profile]
    plans = {name: plan for name, plan in before.plans.items() if name in groups}
    digests = {name: before.digests[name] for name in plans}
    warnings = {name: found for name, found in before.warnings.items() if name in groups}
    problems: list[Problem] = []
    for name in (name for name in groups if name in touched):
        found, told = plan_set([*profiles, *(entry.item for entry in groups[name])], options)
        problems += told
        warnings.pop(name, None)
        if told:
            warnings[name] = tuple(told)
        for plan in found:
            plans[plan.head.name] = plan
            digests[plan.head.name] = plan_digest(plan)
    if refuses(problems):
        unique = tuple(dict.fromkeys(problems))
        return RefusedSet(tuple(_refusals(unique, entries.values())), unique)
    size = sum(len(plan.leaves) for plan in plans.values())
    if size > MAX_RULES:
        return _refused([Refusal("", "", message=f"{size} rules and branches; at most {MAX_RULES} are served")])
    shadow = any(entry.shadow for entry in entries.values())
    return CompiledSet(entries, plans, digests, warnings, shadow, set_version(digests))


def _read(before: CompiledSet, type_url: str, resources: Sequence[bytes]) -> tuple[dict[bytes, Entry], list[Refusal]]:
    entries: dict[bytes, Entry] = {}
    refusals: list[Refusal] = []
    names: dict[tuple[str, str], Entry] = {}
    for packed in resources:
        entry = before.entries.get(packed) or read_entry(type_url, packed)
        if isinstance(entry, list):
            refusals += entry
            continue
        if names.setdefault((entry.kind, entry.name), entry) is not entry:
            refusals.append(entry.refusal(Problem(entry.label, "", "is twice in the response")))
        entries[packed] = entry
    # A response is a set: where two policies of the same age meet, its order must not decide.
    ordered = sorted(entries.items(), key=lambda item: (item[1].kind, item[1].name))
    return dict(ordered), refusals


def _touched(before: Mapping[bytes, Entry], after: Mapping[bytes, Entry], groups: Iterable[str]) -> set[str]:
    """Domains that are to be compiled anew."""
    moved = [entry for packed, entry in after.items() if packed not in before]
    moved += [entry for packed, entry in before.items() if packed not in after]
    if any(entry.is_profile for entry in moved):
        return set(groups)
    return {entry.domain for entry in moved if entry.domain is not None}


def _refused(refusals: Sequence[Refusal]) -> RefusedSet:
    problems = [Problem(f"{each.kind} {each.name}".strip() or "response", each.path, each.message) for each in refusals]
    return RefusedSet(tuple(refusals), tuple(problems))


def _refusals(problems: Iterable[Problem], entries: Iterable[Entry]) -> list[Refusal]:
    labels = {entry.label: entry for entry in entries}
    found = []
    for problem in problems:
        if problem.severity is not Severity.ERROR:
            continue
        entry = labels.get(problem.object)
        if entry is None:
            found.append(Refusal("", "", message=str(problem)))
        else:
            found.append(entry.refusal(problem))
    return found

"""From what the API server holds to what every replica runs, and to a verdict on each object.

Laws (tests/properties/operator/test_plan_laws.py): the plan does not depend on the order in which objects were seen;
the service compiles every distribution without a problem; a spec that is not accepted never takes away what was live;
deleting the winner of a conflict puts the loser's rule in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ratelimit_operator.api.conditions import ConditionType, Reason, Verdict, failing, holding
from ratelimit_operator.plan.distribution import Distribution, distribution_of, settings_resource
from ratelimit_operator.plan.live import Live, LiveForm, continues, dated, live_form
from ratelimit_operator.plan.precedence import Contests, Standing
from ratelimit_operator.plan.profiles import ProfilePlan, plan_profiles, without_default
from ratelimit_operator.plan.tenancy import policy_refusal, use_refusal
from ratelimit_operator.plan.world import ObservedPolicy, World
from ratelimit_service.policy.manifest_compile import domain_of
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.profile_model import CacheProfile


class PolicyPlan(msgspec.Struct, frozen=True):
    """What becomes of one policy.

    Attributes:
        uid: Of the object.
        generation: Of the spec that was judged.
        accepted: Whether its present spec is valid and allowed.
        refs: Whether what it names is there and may be used.
        live: The form that is live, None: none ever was accepted.
        is_current: Whether the live form is that of its present spec.
        standing: Which of the live form's rules are in force.
    """

    uid: str
    generation: int
    accepted: Verdict
    refs: Verdict
    live: LiveForm | None
    is_current: bool
    standing: Standing

    def is_of(self, uid: str, generation: int) -> bool:
        """Whether this was decided about that spec of that object."""
        return self.generation == generation and self.uid == uid


class Plan(msgspec.Struct, frozen=True):
    """Everything that is decided about one world.

    Attributes:
        live: To be handed to the next plan.
        distribution: What every replica is to run.
        policies: By `<namespace>/<name>`.
        profiles: By `<namespace>/<name>`.
        used_by: Policies by the profile that counts their hits.
    """

    live: Live
    distribution: Distribution
    policies: Mapping[str, PolicyPlan]
    profiles: Mapping[str, ProfilePlan]
    used_by: Mapping[str, int]


class _Candidate(msgspec.Struct, frozen=True):
    """A policy on its way: its verdicts, and the form that they leave."""

    policy: ObservedPolicy
    accepted: Verdict
    refs: Verdict
    live: LiveForm | None


def plan(world: World, before: Live, contests: Contests) -> Plan:
    """Decide everything. `before`: the live forms so far; `contests` remembers domains that do not change."""
    profiles = plan_profiles(world, before.profiles)
    seats: dict[str, str] = {}
    candidates = {each.key: _candidate(each, world, before, profiles, seats) for each in _oldest_first(world)}
    forms = {key: each.live for key, each in candidates.items() if each.live is not None}
    live_profiles = _live_profiles(forms.values(), profiles, before)
    standing = contests.standings([form.sent for form in forms.values() if isinstance(form.sent, RateLimitPolicy)])
    policies = {
        key: PolicyPlan(
            each.policy.uid,
            each.policy.generation,
            each.accepted,
            each.refs,
            each.live,
            each.accepted.holds and each.refs.holds,
            standing.get(key, Standing()),
        )
        for key, each in candidates.items()
    }
    resources = [form.resource for form in (*forms.values(), *live_profiles.values())]
    distribution = distribution_of([*resources, settings_resource(world.enforcement)])
    default = next((key for key, form in live_profiles.items() if _is_default(form)), "")
    used_by: dict[str, int] = {}
    for form in forms.values():
        used = seats.get(_domain(form)) or default
        used_by[used] = used_by.get(used, 0) + 1
    return Plan(Live(forms, live_profiles), distribution, policies, profiles, used_by)


def _oldest_first(world: World) -> list[ObservedPolicy]:
    """The order of precedence: creation time, then `<namespace>/<name>`."""
    return sorted(world.policies.values(), key=lambda each: (each.created, each.key))


def _candidate(
    policy: ObservedPolicy, world: World, before: Live, profiles: Mapping[str, ProfilePlan], seats: dict[str, str]
) -> _Candidate:
    """One policy's verdicts; `seats`: the profile of each domain that an older policy has chosen."""
    earlier = before.policies.get(policy.key)
    if earlier is not None and not continues(earlier, policy.created):
        earlier = None
    told = policy.status.distribution
    if earlier is not None and told is not None:
        earlier = dated(earlier, told.generation, told.version)
    refs = holding(ConditionType.RESOLVED_REFS)
    refusal = _refusal(policy, world)
    manifest = policy.manifest
    wanted = "" if manifest is None else profile_name(manifest)
    if refusal is None and manifest is not None and wanted:
        refs = _resolved(wanted, manifest.metadata.namespace, world, profiles)
        seat = seats.get(domain_of(manifest), "")
        if refs.holds and seat and seat != wanted:
            message = (
                f"spec.cacheProfileRef: domain {domain_of(manifest)} is counted in CacheProfile {seat} by an older "
                "policy; a domain has one profile, so name that one or remove this field"
            )
            refusal = failing(ConditionType.ACCEPTED, Reason.CONFLICTED, message)
    accepted = refusal or holding(ConditionType.ACCEPTED)
    if refusal is None and refs.holds and manifest is not None:
        live: LiveForm | None = live_form(manifest, manifest, policy.generation, earlier)
    else:
        live = None if earlier is None else _held(earlier, seats)
    if live is not None and isinstance(live.sent, RateLimitPolicy) and profile_name(live.sent):
        seats.setdefault(domain_of(live.sent), profile_name(live.sent))
    return _Candidate(policy, accepted, refs, live)


def profile_name(policy: RateLimitPolicy) -> str:
    """`<namespace>/<name>` of the profile that a policy names, empty: it names none."""
    reference = policy.spec.cache_profile_ref
    return "" if reference is None else f"{reference.namespace or policy.metadata.namespace}/{reference.name}"


def _refusal(policy: ObservedPolicy, world: World) -> Verdict | None:
    if policy.manifest is None:
        return failing(ConditionType.ACCEPTED, Reason.INVALID, "; ".join(policy.problems))
    refused = policy_refusal(policy.manifest, world)
    return None if refused is None else failing(ConditionType.ACCEPTED, Reason.NOT_ALLOWED, refused)


def _resolved(wanted: str, namespace: str, world: World, profiles: Mapping[str, ProfilePlan]) -> Verdict:
    found = profiles.get(wanted)
    if found is None:
        message = f"spec.cacheProfileRef: there is no CacheProfile {wanted}"
        return failing(ConditionType.RESOLVED_REFS, Reason.CACHE_PROFILE_NOT_FOUND, message)
    if not found.refs.holds:
        return failing(ConditionType.RESOLVED_REFS, found.refs.reason, f"CacheProfile {wanted}: {found.refs.message}")
    if found.live is None or not isinstance(found.live.manifest, CacheProfile):
        message = f"spec.cacheProfileRef: CacheProfile {wanted} is not accepted: {found.accepted.message}"
        return failing(ConditionType.RESOLVED_REFS, Reason.REF_NOT_PERMITTED, message)
    refused = use_refusal(found.live.manifest, namespace, world)
    if refused is not None:
        return failing(ConditionType.RESOLVED_REFS, Reason.REF_NOT_PERMITTED, f"spec.cacheProfileRef: {refused}")
    return holding(ConditionType.RESOLVED_REFS)


def _held(form: LiveForm, seats: Mapping[str, str]) -> LiveForm:
    """A form that stays live; where an older policy has chosen another profile since, it follows that one."""
    manifest = form.manifest
    assert isinstance(manifest, RateLimitPolicy)
    seat, named = seats.get(domain_of(manifest), ""), profile_name(manifest)
    if not seat or not named or seat == named:
        return live_form(manifest, manifest, form.generation, form)
    spec = msgspec.structs.replace(manifest.spec, cache_profile_ref=None)
    return live_form(manifest, msgspec.structs.replace(manifest, spec=spec), form.generation, form)


def _live_profiles(forms: Iterable[LiveForm], profiles: Mapping[str, ProfilePlan], before: Live) -> dict[str, LiveForm]:
    """The profiles' live forms, and of removed profiles those that a live policy still counts in."""
    live = {key: each.live for key, each in profiles.items() if each.live is not None}
    for form in forms:
        name = profile_name(form.sent) if isinstance(form.sent, RateLimitPolicy) else ""
        if name and name not in live and name in before.profiles:
            live[name] = without_default(before.profiles[name])
    return live


def _is_default(form: LiveForm) -> bool:
    return isinstance(form.sent, CacheProfile) and form.sent.spec.default


def _domain(form: LiveForm) -> str:
    return domain_of(form.sent) if isinstance(form.sent, RateLimitPolicy) else ""

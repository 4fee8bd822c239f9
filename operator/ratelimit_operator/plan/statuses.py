"""What status says: only what was decided, and of replicas only what they acknowledged.

Law: `Programmed` is True only where `acked == total > 0` for the version of the policy's present form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ratelimit_operator.api.conditions import (
    Condition,
    ConditionStatus,
    ConditionType,
    Reason,
    Verdict,
    failing,
    holding,
    shortened,
)
from ratelimit_operator.api.status import (
    Ancestor,
    AncestorRef,
    CacheProfileStatus,
    DistributionStatus,
    EffectiveStatus,
    ProfileCopyStatus,
    RateLimitPolicyStatus,
)
from ratelimit_operator.plan.attachment import PolicyAttachment
from ratelimit_operator.plan.copies import CopyState
from ratelimit_operator.plan.distribution import ResourceId, ResourceKind
from ratelimit_operator.plan.pacing import COUNT_WAIT_S, SETTLE_S
from ratelimit_operator.plan.planning import PolicyPlan
from ratelimit_operator.plan.profiles import ProfilePlan
from ratelimit_operator.plan.world import ObservedPolicy, ObservedProfile
from ratelimit_service.policy.manifest_compile import domain_of
from ratelimit_service.policy.model import RateLimitPolicy

MAX_OVERRIDDEN: Final = 8
"""Overridden rules that status lists; the message counts all."""

MAX_ERROR: Final = 1024
"""Longest `lastError`."""


class Replicas(msgspec.Struct, frozen=True):
    """What the replicas of the service have said.

    Attributes:
        acked: How many run the version that is published now, by resource.
        total: Ready endpoints of the service and connected nodes together.
        rejected: Why a resource was refused, by resource; its last accepted form is live there.
        withheld: Why a resource is not given out, by resource: the release is rolled back.
    """

    acked: Mapping[ResourceId, int]
    total: int
    rejected: Mapping[ResourceId, str]
    withheld: Mapping[ResourceId, str] = {}


def policy_status(
    policy: ObservedPolicy,
    planned: PolicyPlan,
    attachment: PolicyAttachment | None,
    replicas: Replicas,
    controller: str,
    now: str,
) -> RateLimitPolicyStatus:
    """Status of one policy at a time (RFC 3339); `attachment`: None for policies with a domain."""
    accepted = _accepted_somewhere(planned.accepted, attachment)
    verdicts = [accepted, planned.refs]
    if attachment is not None:
        verdicts.append(attachment.verdict)
    if accepted.holds:
        verdicts.append(_programmed(planned, replicas))
    verdicts.append(_ready(verdicts))
    conditions = timed(verdicts, policy.status.conditions, policy.generation, now)
    return RateLimitPolicyStatus(
        observed_generation=policy.generation,
        conditions=conditions,
        distribution=_distribution(policy, planned, replicas),
        effective=_effective(planned),
        ancestors=_ancestors(policy, planned.accepted, attachment, controller, now),
    )


def profile_status(
    profile: ObservedProfile, planned: ProfilePlan, used_by: int, copy: CopyState | None, now: str
) -> CacheProfileStatus:
    """Status of one profile at a time (RFC 3339); `copy`: its ConfigMap, None: there is to be none."""
    verdicts = [planned.accepted, planned.refs]
    verdicts.append(_ready(verdicts))
    return CacheProfileStatus(
        observed_generation=profile.generation,
        conditions=timed(verdicts, profile.status.conditions, profile.generation, now),
        used_by=used_by,
        config_map=None if copy is None else _copied(copy),
    )


def _copied(copy: CopyState) -> ProfileCopyStatus:
    error = shortened(copy.error, MAX_ERROR) if copy.error else None
    return ProfileCopyStatus(name=copy.name, version=copy.version, last_error=error)


def timed(verdicts: Sequence[Verdict], before: Sequence[Condition], generation: int, now: str) -> tuple[Condition, ...]:
    """Conditions with times: one whose status did not change keeps its time."""
    since = {each.type: (each.status, each.last_transition_time) for each in before}
    found = []
    for verdict in verdicts:
        status, time = since.get(verdict.type.value, (None, now))
        found.append(
            Condition(
                type=verdict.type.value,
                status=verdict.status,
                observed_generation=generation,
                last_transition_time=time if status is verdict.status else now,
                reason=verdict.reason.value,
                message=shortened(verdict.message),
            )
        )
    return tuple(found)


def _programmed(planned: PolicyPlan, replicas: Replicas) -> Verdict:
    type_, live = ConditionType.PROGRAMMED, planned.live
    if live is None or not planned.is_current:
        stays = f"; generation {live.generation} stays live" if live is not None else ""
        return failing(type_, Reason.RECONCILING, f"waits for what it refers to{stays}")
    identity = live.resource.id
    if identity in replicas.withheld:
        return failing(type_, Reason.RECONCILING, replicas.withheld[identity])
    rejected = replicas.rejected.get(identity)
    if rejected is not None:
        return failing(type_, Reason.REJECTED, f"replicas refuse this form, their last one stays live: {rejected}")
    if planned.standing.in_force == 0 and planned.standing.overridden_by:
        by = ", ".join(planned.standing.overridden_by[:MAX_OVERRIDDEN])
        return failing(type_, Reason.OVERRIDDEN, f"older policies have all of its rules: {by}")
    if replicas.total == 0:
        return failing(type_, Reason.NO_REPLICAS, "no replica of the service is ready or connected")
    acked = min(replicas.acked.get(identity, 0), replicas.total)
    if acked == replicas.total:
        return holding(type_, f"{acked} of {replicas.total} replicas run this form")
    message = f"{acked} of {replicas.total} replicas run this form"
    return failing(type_, Reason.PARTIALLY_PROGRAMMED if acked else Reason.RECONCILING, message)


def _ready(verdicts: Sequence[Verdict]) -> Verdict:
    missing = next((each for each in verdicts if not each.holds), None)
    if missing is None:
        return holding(ConditionType.READY)
    text = f"{missing.type.value}: {missing.reason.value}: {missing.message}"
    return failing(ConditionType.READY, missing.reason, text)


def _distribution(policy: ObservedPolicy, planned: PolicyPlan, replicas: Replicas) -> DistributionStatus:
    live = planned.live
    last_error = None
    identity = ResourceId(ResourceKind.POLICY.value, policy.key)
    if identity in replicas.rejected:
        last_error = shortened(replicas.rejected[identity], MAX_ERROR)
    if live is None:
        return DistributionStatus(total=replicas.total, summary=f"0/{replicas.total}", last_error=last_error)
    acked = min(replicas.acked.get(identity, 0), replicas.total)
    return DistributionStatus(
        generation=live.generation,
        version=live.resource.version,
        acked=acked,
        total=replicas.total,
        summary=f"{acked}/{replicas.total}",
        last_error=last_error,
    )


def _effective(planned: PolicyPlan) -> EffectiveStatus | None:
    live = planned.live
    if live is None or not isinstance(live.sent, RateLimitPolicy):
        return None
    standing = planned.standing
    overridden = tuple(shortened(each, 512) for each in standing.overridden_by[:MAX_OVERRIDDEN])
    return EffectiveStatus(domain=domain_of(live.sent), rule_count=standing.in_force, overridden_by=overridden)


_NOT_ACCEPTED: Final = (Reason.CONFLICTED, Reason.TARGET_NOT_FOUND, Reason.UNSUPPORTED_TARGET)
"""Reasons of a target that the target itself does not accept the policy for."""


def _accepted_at(accepted: Verdict, attached: Verdict) -> Verdict:
    """Accepted, for one target."""
    if not accepted.holds or attached.holds or attached.reason not in _NOT_ACCEPTED:
        return accepted
    return failing(ConditionType.ACCEPTED, attached.reason, attached.message)


def _accepted_somewhere(accepted: Verdict, attachment: PolicyAttachment | None) -> Verdict:
    """Accepted, for the policy: any target that accepts it will do."""
    at_targets = [_accepted_at(accepted, each) for each in attachment.targets] if attachment is not None else []
    return next((each for each in at_targets if each.holds), at_targets[0] if at_targets else accepted)


def _ancestors(
    policy: ObservedPolicy, accepted: Verdict, attachment: PolicyAttachment | None, controller: str, now: str
) -> tuple[Ancestor, ...]:
    if policy.manifest is None or attachment is None:
        return ()
    before = {each.ancestor_ref: each.conditions for each in policy.status.ancestors}
    found = []
    for target, attached in zip(policy.manifest.spec.target_refs, attachment.targets, strict=False):
        reference = AncestorRef(
            group=target.group,
            kind=target.kind.value,
            namespace=policy.namespace,
            name=target.name,
            section_name=target.section_name,
        )
        verdicts = [_accepted_at(accepted, attached), attached]
        conditions = timed(verdicts, before.get(reference, ()), policy.generation, now)
        found.append(Ancestor(ancestor_ref=reference, controller_name=controller, conditions=conditions))
    return tuple(found)


def patience_s(
    before: RateLimitPolicyStatus | CacheProfileStatus, after: RateLimitPolicyStatus | CacheProfileStatus
) -> float:
    """How long the write of a status may wait for what will soon be true instead (DECISIONS 46).

    A number of replicas alone waits long; replicas that have yet to answer are given a moment; all else is urgent.
    """
    if not isinstance(before, RateLimitPolicyStatus) or not isinstance(after, RateLimitPolicyStatus):
        return 0.0
    if _essence(before) == _essence(after) and _total(before) != _total(after):
        return COUNT_WAIT_S
    return SETTLE_S if any(each.reason in _UNDER_WAY for each in after.conditions) else 0.0


_UNDER_WAY: Final = frozenset({Reason.RECONCILING.value, Reason.PARTIALLY_PROGRAMMED.value})


def _total(status: RateLimitPolicyStatus) -> int:
    return 0 if status.distribution is None else status.distribution.total


def _essence(status: RateLimitPolicyStatus) -> object:
    """What a status says without counts and the sentences made of them."""
    conditions = tuple(
        (each.type, each.status is ConditionStatus.TRUE, each.observed_generation) for each in status.conditions
    )
    live = status.distribution
    where = None if live is None else (live.generation, live.version, live.last_error)
    return (status.observed_generation, conditions, where, status.effective)

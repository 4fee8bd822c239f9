"""Which statuses differ from what they should be; an object is judged again only when something about it changed.

Laws (tests/properties/operator/test_judging_laws.py): judging what changed says what judging everything says; an object
whose newest spec the plan has not seen is not judged at all, so no status claims of it what was true of an older one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from ratelimit_operator.api.status import CacheProfileStatus, RateLimitPolicyStatus
from ratelimit_operator.plan.attachment import PolicyAttachment
from ratelimit_operator.plan.copies import CopyState
from ratelimit_operator.plan.distribution import ResourceId, ResourceKind
from ratelimit_operator.plan.planning import Plan
from ratelimit_operator.plan.statuses import Replicas, policy_status, profile_status
from ratelimit_operator.plan.world import ObservedPolicy, ObservedProfile

Status = RateLimitPolicyStatus | CacheProfileStatus
"""Status of either kind."""

JUDGED: Final[Mapping[str, str]] = {"ratelimitpolicies": "RateLimitPolicy", "cacheprofiles": "CacheProfile"}
"""Kinds that have a status of ours, by their plurals."""


class Wanted(msgspec.Struct, frozen=True):
    """What the status of an object should be.

    Attributes:
        kind: `RateLimitPolicy` or `CacheProfile`.
        namespace: Its namespace.
        name: Its name.
        uid: Of this very object: another of the same name is not written to.
        before: What it is.
        after: What it should be.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    before: Status
    after: Status

    @property
    def key(self) -> str:
        """Unique among all objects."""
        return f"{self.kind} {self.namespace}/{self.name}"


class Evidence(msgspec.Struct, frozen=True):
    """What objects are judged by.

    Attributes:
        plan: The newest plan.
        policies: As they were seen last, by `<namespace>/<name>`.
        profiles: As they were seen last.
        attachments: Of policies with targets.
        copies: Of profiles that programs use.
        replicas: What the replicas say; of the objects that are judged at least.
    """

    plan: Plan
    policies: Mapping[str, ObservedPolicy]
    profiles: Mapping[str, ObservedProfile]
    attachments: Mapping[str, PolicyAttachment]
    copies: Mapping[str, CopyState]
    replicas: Replicas


class Judge:
    """Remembers what each object was judged by.

    Args:
        controller: Name of this release's controller.
    """

    def __init__(self, controller: str) -> None:
        self._controller = controller
        self._judged: dict[str, tuple[Any, ...]] = {}
        self._pending: dict[str, Wanted] = {}

    def judge(self, evidence: Evidence, now: str, only: Collection[str] | None = None) -> Mapping[str, Wanted]:
        """Every status that has to be written, by `Wanted.key`.

        Args:
            evidence: What there is to judge by.
            now: RFC 3339 time of conditions that turn.
            only: Keys of the objects about which anything changed since the last call; None: any may have.
        """
        if only is None:
            keys = [f"RateLimitPolicy {name}" for name in evidence.policies]
            keys += [f"CacheProfile {name}" for name in evidence.profiles]
            for gone in self._judged.keys() - set(keys):
                self._forget(gone)
        else:
            keys = list(only)
        for key in keys:
            kind, _, name = key.partition(" ")
            if kind == "RateLimitPolicy":
                self._judge_policy(key, name, evidence, now)
            else:
                self._judge_profile(key, name, evidence, now)
        return self._pending

    def _judge_policy(self, key: str, name: str, evidence: Evidence, now: str) -> None:
        policy, planned = evidence.policies.get(name), evidence.plan.policies.get(name)
        if policy is None or planned is None or not planned.is_of(policy.uid, policy.generation):
            self._forget(key)
            return
        replicas = evidence.replicas
        identity = ResourceId(ResourceKind.POLICY.value, name)
        told = (
            replicas.acked.get(identity, 0),
            replicas.total,
            replicas.rejected.get(identity),
            replicas.withheld.get(identity),
        )
        attachment = evidence.attachments.get(name)
        if not self._is_known(key, (policy, (planned, attachment), told)):
            after = policy_status(policy, planned, attachment, replicas, self._controller, now)
            self._note(key, policy, after)

    def _judge_profile(self, key: str, name: str, evidence: Evidence, now: str) -> None:
        profile, planned = evidence.profiles.get(name), evidence.plan.profiles.get(name)
        if profile is None or planned is None or not planned.is_of(profile.uid, profile.generation):
            self._forget(key)
            return
        used = evidence.plan.used_by.get(name, 0)
        copy = evidence.copies.get(name)
        if not self._is_known(key, (profile, planned, (used, copy))):
            self._note(key, profile, profile_status(profile, planned, used, copy, now))

    def _forget(self, key: str) -> None:
        """The object is gone, or the plan has not seen its newest spec yet: the next plan has."""
        self._judged.pop(key, None)
        self._pending.pop(key, None)

    def _is_known(self, key: str, marks: tuple[Any, ...]) -> bool:
        """Whether the object was judged by the same marks; what was seen and planned is the same object then."""
        known, self._judged[key] = self._judged.get(key), marks
        return known is not None and known[0] is marks[0] and known[1] == marks[1] and known[2] == marks[2]

    def _note(self, key: str, observed: ObservedPolicy | ObservedProfile, after: Status) -> None:
        before: Status = observed.status
        if before == after:
            self._pending.pop(key, None)
            return
        kind = key.partition(" ")[0]
        self._pending[key] = Wanted(kind, observed.namespace, observed.name, observed.uid, before, after)

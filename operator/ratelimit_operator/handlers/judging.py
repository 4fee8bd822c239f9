"""Which statuses differ from what they should be; an object is judged again only when something about it changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ratelimit_operator.cluster.status_writer import Status, Wanted
from ratelimit_operator.plan.attachment import PolicyAttachment
from ratelimit_operator.plan.copies import CopyState
from ratelimit_operator.plan.distribution import ResourceId, ResourceKind
from ratelimit_operator.plan.planning import Plan
from ratelimit_operator.plan.statuses import Replicas, policy_status, profile_status
from ratelimit_operator.plan.world import ObservedPolicy, ObservedProfile


class Judge:
    """Remembers what each object was judged by.

    Args:
        controller: Name of this release's controller.
    """

    def __init__(self, controller: str) -> None:
        self._controller = controller
        self._judged: dict[str, tuple[Any, ...]] = {}
        self._pending: dict[str, Wanted] = {}

    def judge(
        self,
        plan: Plan,
        policies: Mapping[str, ObservedPolicy],
        profiles: Mapping[str, ObservedProfile],
        attachments: Mapping[str, PolicyAttachment],
        copies: Mapping[str, CopyState],
        replicas: Replicas,
    ) -> Mapping[str, Wanted]:
        """Every status that has to be written, by key."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        judged: dict[str, tuple[Any, ...]] = {}
        for name, policy in policies.items():
            planned = plan.policies.get(name)
            if planned is None:
                continue  # seen after the plan was made; the next plan has it
            identity = ResourceId(ResourceKind.POLICY.value, name)
            told = (
                replicas.acked.get(identity, 0),
                replicas.total,
                replicas.rejected.get(identity),
                replicas.withheld.get(identity),
            )
            key = f"RateLimitPolicy {name}"
            attachment = attachments.get(name)
            judged[key] = (policy, (planned, attachment), told)
            if not self._is_known(key, judged[key]):
                self._note(key, policy, policy_status(policy, planned, attachment, replicas, self._controller, now))
        for name, profile in profiles.items():
            planned_profile = plan.profiles.get(name)
            if planned_profile is None:
                continue
            key = f"CacheProfile {name}"
            used = plan.used_by.get(name, 0)
            copy = copies.get(name)
            judged[key] = (profile, planned_profile, (used, copy))
            if not self._is_known(key, judged[key]):
                self._note(key, profile, profile_status(profile, planned_profile, used, copy, now))
        for key in self._pending.keys() - judged.keys():
            del self._pending[key]
        self._judged = judged
        return self._pending

    def _is_known(self, key: str, marks: tuple[Any, ...]) -> bool:
        """Whether the object was judged by the same marks; what was seen and planned is the same object then."""
        known = self._judged.get(key)
        return known is not None and known[0] is marks[0] and known[1] == marks[1] and known[2] == marks[2]

    def _note(self, key: str, observed: ObservedPolicy | ObservedProfile, after: Status) -> None:
        before: Status = observed.status
        if before == after:
            self._pending.pop(key, None)
            return
        kind = key.partition(" ")[0]
        self._pending[key] = Wanted(kind, observed.namespace, observed.name, observed.uid, before, after)

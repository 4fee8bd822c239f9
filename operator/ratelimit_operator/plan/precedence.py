"""Which rules of several policies are in force: the service's own law (`policy.merge.contest`), per domain.

A domain whose policies did not change is not contested again: a change of one policy among thousands costs what its
own domain costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ratelimit_service.policy.manifest_compile import domain_of, policy_name
from ratelimit_service.policy.merge import by_age, contest
from ratelimit_service.policy.model import RateLimitPolicy


class Standing(msgspec.Struct, frozen=True):
    """How a policy's rules stand.

    Attributes:
        in_force: How many are.
        overridden_by: `rule: namespace/policy` of each that is not, in their order.
    """

    in_force: int = 0
    overridden_by: tuple[str, ...] = ()


_Known = tuple[tuple[RateLimitPolicy, ...], Mapping[str, Standing]]


class Contests:
    """Remembers what was decided about each domain."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self.decided = 0
        """Domains that had to be decided so far; a measure of work."""

    def standings(self, policies: Iterable[RateLimitPolicy]) -> dict[str, Standing]:
        """Every policy's standing, by `<namespace>/<name>`."""
        groups: dict[str, list[RateLimitPolicy]] = {}
        for policy in policies:
            groups.setdefault(domain_of(policy), []).append(policy)
        known: dict[str, _Known] = {}
        found: dict[str, Standing] = {}
        for domain, group in groups.items():
            members = tuple(by_age(group))
            earlier = self._known.get(domain)
            if earlier is None or not _same(earlier[0], members):
                earlier = (members, _decide(members))
                self.decided += 1
            known[domain] = earlier
            found.update(earlier[1])
        self._known = known
        return found


def _same(left: Sequence[RateLimitPolicy], right: Sequence[RateLimitPolicy]) -> bool:
    """Whether both are the very same objects: a live form that did not change is the same one."""
    return len(left) == len(right) and all(one is other for one, other in zip(left, right, strict=True))


def _decide(members: Sequence[RateLimitPolicy]) -> dict[str, Standing]:
    kept, lost = contest(members)
    in_force = dict.fromkeys(map(policy_name, members), 0)
    overridden: dict[str, list[str]] = {name: [] for name in in_force}
    for rule in kept:
        in_force[rule.policy] += 1
    for each in lost:
        # The name in the policy: the one in the reserved domain has the policy before it.
        name = each.loser.name.rpartition("/")[2]
        overridden[each.loser.policy].append(f"{name}: {each.winner.policy}")
    return {name: Standing(count, tuple(overridden[name])) for name, count in in_force.items()}

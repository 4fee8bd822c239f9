"""The rules of `quota.decision` read plainly, as an oracle: slow, and with nothing clever in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from ratelimit_service.quota.store import Charge, Role

ENFORCED = (Role.ENFORCE, Role.PENALTY)


class PlainReading:
    """Whether a request is over, and which of its charges are counted.

    Counters are a dict of what is left, that hits are really taken from, one rule after the other.
    """

    def __init__(self, charges: Sequence[Charge], counters: Sequence[Hashable], left: dict[Hashable, int]) -> None:
        self.charges = charges
        self.counters = counters
        self.found = left
        enforced = [index for index, each in enumerate(charges) if each.role in ENFORCED]
        penalties = [index for index in enforced if charges[index].role is Role.PENALTY]
        after_enforced = self.taken(left, enforced)
        enforced_fit = all(self.fits(after_enforced, index) for index in enforced)
        rest = after_enforced if enforced_fit else self.taken(left, penalties)
        quota = self.fitting_units(Role.QUOTA, rest)
        has_quota = any(each.role is Role.QUOTA for each in charges)
        self.over = not enforced_fit or (has_quota and not quota)
        shadow = self.fitting_units(Role.SHADOW, self.taken(left, penalties) if self.over else rest)
        self.counted = penalties if self.over else [*enforced, *quota, *shadow]

    def taken(self, left: dict[Hashable, int], indexes: Sequence[int]) -> dict[Hashable, int]:
        """What is left after all these charges."""
        need = Counter[Hashable]()
        for index in indexes:
            need[self.counters[index]] += self.charges[index].hits
        return {counter: rest - need[counter] for counter, rest in left.items()}

    def fits(self, after: dict[Hashable, int], index: int) -> bool:
        """A charge fits if its counter is not overdrawn; a check fits if something was left to begin with."""
        counter = self.counters[index]
        return after[counter] >= 0 if self.charges[index].hits else self.found[counter] > 0

    def fitting_units(self, role: Role, rest: dict[Hashable, int]) -> list[int]:
        """Take units in order from `rest`, each wholly or not at all."""
        chosen: list[int] = []
        indexes = [index for index, each in enumerate(self.charges) if each.role is role]
        for unit in dict.fromkeys(self.charges[index].unit for index in indexes):
            members = [index for index in indexes if self.charges[index].unit == unit]
            after = self.taken(rest, members)
            if all(self.fits(after, index) for index in members):
                rest.update(after)
                chosen += members
        return chosen

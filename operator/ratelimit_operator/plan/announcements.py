"""Which changes of a status are worth a Kubernetes Event, and which of those are said too often.

A transition is from what was told last, and not from what status said in between: a policy that was programmed, is on
its way again because a replica or the operator restarted, and is programmed once more has not turned. The same words
about the same object are not repeated for `REPEAT_S`, and an object that turns for ever gets `BURST` events and then
one in five minutes (client-go's limit).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ratelimit_operator.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from ratelimit_operator.plan.pacing import Allowance

REPEAT_S: Final = 600.0
"""For how long the same words are not repeated."""

BURST: Final = 25.0
"""Events of one object that may come at once."""

PER_S: Final = 1.0 / 300.0
"""Events of one object per second after that."""

_MOST_REMEMBERED: Final = 10_000
_MOST_RESTS: Final = 100_000

_TOLD: Final = (
    ConditionType.ACCEPTED.value,
    ConditionType.RESOLVED_REFS.value,
    ConditionType.ATTACHED.value,
    ConditionType.PROGRAMMED.value,
)
# That there is no replica is one fact about the release, and not one about each of its policies.
_ON_THE_WAY: Final = (
    Reason.RECONCILING.value,
    Reason.PARTIALLY_PROGRAMMED.value,
    Reason.PENDING.value,
    Reason.NO_REPLICAS.value,
)


_NEW: Final = (ConditionStatus.UNKNOWN, "")
"""Where a condition rests that nobody was told of, because its object is new."""


class Announcement(msgspec.Struct, frozen=True):
    """One event.

    Attributes:
        is_warning: Whether somebody should do something.
        reason: Word for programs.
        message: For people.
    """

    is_warning: bool
    reason: str
    message: str


class Transitions:
    """Remembers where each condition of each object came to rest last."""

    def __init__(self) -> None:
        self._rests: dict[tuple[str, str], tuple[ConditionStatus, str]] = {}

    def between(self, uid: str, before: Sequence[Condition], after: Sequence[Condition]) -> list[Announcement]:
        """What turned with this change of an object's status.

        What is on its way is not told, nor what is well at first sight, but that a new object is programmed.
        `before` counts where nothing is remembered: after a restart, status says what an earlier process told, and
        what was on its way then may well have been told.
        """
        for each in before:
            if each.reason not in _ON_THE_WAY:
                self._rests.setdefault((uid, each.type), (each.status, each.reason))
        if not before:
            self._rests.setdefault((uid, ConditionType.PROGRAMMED.value), _NEW)
        found = []
        for each in after:
            if each.type not in _TOLD or each.reason in _ON_THE_WAY:
                continue
            was = self._rests.get((uid, each.type))
            self._rests[uid, each.type] = (each.status, each.reason)
            holds = each.status is ConditionStatus.TRUE
            if was == (each.status, each.reason):
                continue
            if was is None and holds:
                continue
            is_warning = not holds and each.reason != Reason.OVERRIDDEN.value
            found.append(Announcement(is_warning, each.reason, each.message or f"{each.type} is {each.status.value}"))
        self._forget()
        return found

    def _forget(self) -> None:
        """Bound the memory: what is forgotten is taken from status again."""
        while len(self._rests) > _MOST_RESTS:
            del self._rests[next(iter(self._rests))]


class SpamFilter:
    """Remembers what was said of which object. Time is an argument (seconds, monotonic)."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, Announcement], float] = {}
        self._objects: dict[str, Allowance] = {}

    def admits(self, uid: str, announcement: Announcement, now_s: float) -> bool:
        """Whether it may be said now; if so it counts as said."""
        said_at_s = self._said.get((uid, announcement))
        if said_at_s is not None and now_s - said_at_s < REPEAT_S:
            return False
        allowance = self._objects.setdefault(uid, Allowance(PER_S, BURST, now_s))
        if allowance.wait_s(now_s) > 0:
            return False
        allowance.take(now_s)
        self._said[uid, announcement] = now_s
        self._forget(now_s)
        return True

    def _forget(self, now_s: float) -> None:
        if len(self._said) > _MOST_REMEMBERED:
            self._said = {key: at_s for key, at_s in self._said.items() if now_s - at_s < REPEAT_S}
        if len(self._objects) > _MOST_REMEMBERED:
            self._objects = {uid: each for uid, each in self._objects.items() if each.full_at_s > now_s}

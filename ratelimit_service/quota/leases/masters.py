"""What follows when the memory of a store is not the one that it was: FLUSHALL, eviction, failover (DECISIONS 17).

- *Learn*: replicas tell it what they have seen counted, for a second; then grants are spent again. Beyond the limit
  goes what was granted since each replica's last answer.
- *Quarantine*: grants of a limit are spent again when the window in which it happened is over, and what was leased
  before it can no longer count; nothing goes beyond. A replica that starts meanwhile waits too, and so does the very
  first one on an empty store, which may be one that was emptied.
- *Trust*: nothing follows; the limit may be admitted once more.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import Algorithm, Limit, LimitSettings
from ratelimit_service.quota.leases.sizing import EXACT_LEASE_US, length_us
from ratelimit_service.quota.takes import CountedKey

LEARNING_US: Final = 1_000_000
"""How long replicas teach a new master before its grants are spent."""

BOUND_SHOWN_US: Final = 10_000_000
"""How long a new master stays in the bound after its window."""

_MOST_CHANGES: Final = 64


class NewMasterRule(enum.Enum):
    """What replicas do when the store's memory changes."""

    LEARN = "Learn"
    QUARANTINE = "Quarantine"
    TRUST = "Trust"


class _Change(msgspec.Struct, frozen=True):
    """A part of the store whose memory changed."""

    affects: Callable[[CountedKey], bool]
    at_us: int


class Masters:
    """New masters of late, and what they make of grants. Times are boot time, microseconds.

    Attributes:
        rule: What is done.
    """

    def __init__(self, rule: NewMasterRule) -> None:
        self.rule = rule
        self._changes: list[_Change] = []
        self._limits: Mapping[bytes, LimitSettings] = {}
        self._largest: dict[bytes, int] = {}
        self._latest: dict[bytes, tuple[int, int]] = {}

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        """Take the limits in force."""
        self._limits = limits
        self._largest = {identity: hits for identity, hits in self._largest.items() if identity in limits}
        self._latest = {}

    def changed(self, affects: Callable[[CountedKey], bool], at_us: int) -> None:
        """A part of the store has a new memory; beyond 64 changes the oldest are taken together."""
        self._changes.append(_Change(affects, at_us))
        if len(self._changes) > _MOST_CHANGES:
            first, second, *others = self._changes
            latest_us = max(first.at_us, second.at_us)
            both = _Change(lambda where: first.affects(where) or second.affects(where), latest_us)
            self._changes = [both, *others]

    def found(self, affects: Callable[[CountedKey], bool], since_us: int) -> None:
        """A part of the store was met with a memory that began at `since_us`, perhaps in place of another one."""
        if self.rule is NewMasterRule.QUARANTINE:
            self.changed(affects, since_us)

    def allows(self, where: CountedKey, limit: Limit, now_us: int) -> bool:
        """Whether what is granted of a limit may be spent."""
        if not self._changes or self.rule is NewMasterRule.TRUST:
            return True
        span_us = LEARNING_US if self.rule is NewMasterRule.LEARN else self._window_us(limit)
        return not any(now_us < change.at_us + span_us and change.affects(where) for change in self._changes)

    def is_learning(self, now_us: int) -> bool:
        """Whether some new master is being taught."""
        learns = self.rule is NewMasterRule.LEARN and bool(self._changes)
        return learns and now_us < self._changes[-1].at_us + LEARNING_US

    def granted(self, identity: bytes, hits: int, sent_us: int) -> None:
        """Remember the most that was granted of a limit in one batch, which is known by when it was sent."""
        if identity not in self._limits:
            return
        latest_us, together = self._latest.get(identity, (sent_us, 0))
        together = hits if latest_us != sent_us else together + hits
        self._latest[identity] = (sent_us, together)
        if together > self._largest.get(identity, 0):
            self._largest[identity] = together

    def bound(self, rule: str, now_us: int) -> int:
        """Hits of a rule that this replica may have admitted beyond its limits for want of the store's memory."""
        if not self._changes or self.rule is NewMasterRule.QUARANTINE:
            return 0
        last_us = max(change.at_us for change in self._changes)
        most = 0
        for identity, settings in self._limits.items():
            if settings.rule == rule and now_us < last_us + length_us(settings.limit) + BOUND_SHOWN_US:
                trusted = self.rule is NewMasterRule.TRUST
                most = max(most, settings.limit.burst if trusted else self._largest.get(identity, 0))
        return most

    @staticmethod
    def _window_us(limit: Limit) -> int:
        """From now, how long hits of before may still count, those included that were leased before."""
        if limit.algorithm is Algorithm.FIXED_WINDOW:
            return length_us(limit) * 61 // 60 + 1
        is_bucket = limit.algorithm is Algorithm.TOKEN_BUCKET
        full_us = limit.burst * limit.window_us // limit.requests if is_bucket else limit.window_us
        return full_us * 61 // 60 + max(full_us // 8, EXACT_LEASE_US) + 1

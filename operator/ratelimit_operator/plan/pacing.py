"""When a status may be written (DECISIONS 46): 50/s in all, 1/s per object with a burst of 3.

Pure: time is an argument (seconds of a monotonic clock). What waits is not lost: the caller asks again and writes what
is true then, so a policy that flaps costs one write a second, and the last one is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

ALL_PER_S: Final = 50.0
"""Writes per second of all objects together."""

ALL_BURST: Final = 50.0
"""Writes that may be done at once after a pause."""

OBJECT_PER_S: Final = 1.0
"""Writes per second of one object."""

OBJECT_BURST: Final = 3.0
"""Writes of one object that may be done at once after a pause."""

COUNT_WAIT_S: Final = 10.0
"""How long a change of the number of replicas alone waits for company."""

SETTLE_S: Final = 0.4
"""How long a status that is on its way waits for its end: replicas answer within it, and one write tells all."""


class Allowance:
    """A token bucket: `burst` at once, then `per_s`."""

    __slots__ = ("_burst", "_level", "_per_s", "_since_s")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._level, self._since_s = burst, now_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until one may be taken, 0: now."""
        level = min(self._burst, self._level + (now_s - self._since_s) * self._per_s)
        return max(0.0, (1.0 - level) / self._per_s)

    def take(self, now_s: float) -> None:
        """Take one; only when `wait_s` is 0."""
        self._level = min(self._burst, self._level + (now_s - self._since_s) * self._per_s) - 1.0
        self._since_s = now_s

    @property
    def full_at_s(self) -> float:
        """When it will be as a new one is."""
        return self._since_s + (self._burst - self._level) / self._per_s


class Pacer:
    """Paces the writes of many objects."""

    def __init__(self, now_s: float) -> None:
        self._all = Allowance(ALL_PER_S, ALL_BURST, now_s)
        self._objects: dict[str, Allowance] = {}
        self._since_s: dict[str, float] = {}

    def wait_s(self, key: str, now_s: float, patience_s: float = 0.0) -> float:
        """Seconds until the object may be written, 0: now; `patience_s`: how long it may wait since it first could."""
        wait_s = self._all.wait_s(now_s)
        known = self._objects.get(key)
        if known is not None:
            wait_s = max(wait_s, known.wait_s(now_s))
        since_s = self._since_s.setdefault(key, now_s)
        return max(wait_s, since_s + patience_s - now_s)

    def wrote(self, key: str, now_s: float) -> None:
        """The object is being written."""
        self._since_s.pop(key, None)
        self._all.take(now_s)
        # What was written long ago is as new: forgetting it changes nothing and bounds the memory.
        if len(self._objects) > 10_000:
            self._objects = {name: each for name, each in self._objects.items() if each.full_at_s > now_s}
        self._objects.setdefault(key, Allowance(OBJECT_PER_S, OBJECT_BURST, now_s)).take(now_s)

    def choose(self, wanted: Iterable[tuple[str, float]], now_s: float, most: int) -> tuple[list[str], float | None]:
        """Which objects are to be written now, which counts as done; and seconds until the next look, None: no need.

        Args:
            wanted: Key and patience (`wait_s`) of each object that waits. It is looked at no further than anything
                may be written, so that thousands that wait cost nothing while they wait.
            now_s: The time.
            most: So many at once.
        """
        chosen: list[str] = []
        waits: list[float] = []
        waiting: dict[str, float] = {}
        for key, patience_s in wanted:
            all_s = 0.0 if len(chosen) == most else self._all.wait_s(now_s)
            if len(chosen) == most or all_s > 0:
                return chosen, all_s
            wait_s = self.wait_s(key, now_s, patience_s)
            if wait_s > 0:
                waits.append(wait_s)
                waiting[key] = self._since_s[key]
            else:
                self.wrote(key, now_s)
                chosen.append(key)
        # Whoever is not among them needs no write any more.
        self._since_s = waiting
        return chosen, min(waits, default=None)

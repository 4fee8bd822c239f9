"""Plain readings of the four eviction policies: lists and sets, one entry at a time, as their papers tell them.

Keys only. Like the real ones they take arrivals in before anything goes.
"""

from __future__ import annotations

from typing import Protocol


class PlainOrder(Protocol):
    """What each reading can do."""

    def put(self, key: str) -> None:
        """A key arrives that is not in."""

    def hit(self, key: str) -> None:
        """A key that is in is asked for."""

    def remove(self, key: str) -> None:
        """A key that is in is deleted."""

    def settle(self) -> None:
        """Take the arrivals in."""

    def evict(self) -> str:
        """One key goes; there is one. Arrivals are in."""


class PlainQueues:
    """Arrivals, and what was asked for: common to all readings but LRU's."""

    def __init__(self, max_entries: int) -> None:
        self.arrivals: list[str] = []
        self.asked: set[str] = set()

    def put(self, key: str) -> None:
        self.arrivals.append(key)

    def hit(self, key: str) -> None:
        self.asked.add(key)

    def was_asked(self, key: str) -> bool:
        """Whether it was, and forget that it was."""
        found = key in self.asked
        self.asked.discard(key)
        return found


class PlainS3Fifo(PlainQueues):
    """A small queue, a main queue, and a table of hashes of 1.2 slots per entry, rounded up to a power of two."""

    small_share = 4

    def __init__(self, max_entries: int) -> None:
        super().__init__(max_entries)
        self.small: list[str] = []
        self.main: list[str] = []
        self.ghosts: dict[int, int] = {}
        self.slots = 8
        while self.slots < max_entries * 120 // 100:
            self.slots *= 2

    def remove(self, key: str) -> None:
        self.asked.discard(key)
        for queue in (self.arrivals, self.small, self.main):
            if key in queue:
                queue.remove(key)

    def settle(self) -> None:
        for key in self.arrivals:
            slot = hash(key) % self.slots
            if self.ghosts.get(slot) == hash(key):
                del self.ghosts[slot]
                self.main.append(key)
            else:
                self.small.append(key)
        self.arrivals = []

    def evict(self) -> str:
        while True:
            if len(self.small) * self.small_share >= len(self.small) + len(self.main):
                key = self.small.pop(0)
                if not self.was_asked(key):
                    self.ghosts[hash(key) % self.slots] = hash(key)
                    return key
            else:
                key = self.main.pop(0)
                if not self.was_asked(key):
                    return key
            self.main.append(key)


class PlainSieve(PlainQueues):
    """One list, oldest first, and a hand that is an index into it."""

    def __init__(self, max_entries: int) -> None:
        super().__init__(max_entries)
        self.keys: list[str] = []
        self.hand = 0

    def remove(self, key: str) -> None:
        self.asked.discard(key)
        if key in self.arrivals:
            self.arrivals.remove(key)
        else:
            self.hand -= self.keys.index(key) < self.hand
            self.keys.remove(key)

    def settle(self) -> None:
        self.keys += self.arrivals
        self.arrivals = []

    def evict(self) -> str:
        while True:
            if self.hand == len(self.keys):
                self.hand = 0
            if not self.was_asked(self.keys[self.hand]):
                return self.keys.pop(self.hand)
            self.hand += 1


class PlainClock(PlainQueues):
    """One list, and a second chance at its head."""

    def __init__(self, max_entries: int) -> None:
        super().__init__(max_entries)
        self.keys: list[str] = []

    def remove(self, key: str) -> None:
        self.asked.discard(key)
        (self.arrivals if key in self.arrivals else self.keys).remove(key)

    def settle(self) -> None:
        self.keys += self.arrivals
        self.arrivals = []

    def evict(self) -> str:
        while True:
            key = self.keys.pop(0)
            if not self.was_asked(key):
                return key
            self.keys.append(key)


class PlainLru:
    """One list, in order of last use."""

    def __init__(self, max_entries: int) -> None:
        self.keys: list[str] = []

    def put(self, key: str) -> None:
        self.keys.append(key)

    def hit(self, key: str) -> None:
        self.keys.remove(key)
        self.keys.append(key)

    def remove(self, key: str) -> None:
        self.keys.remove(key)

    def settle(self) -> None:
        pass

    def evict(self) -> str:
        return self.keys.pop(0)

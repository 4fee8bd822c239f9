"""A shared store in a simulation: the twin of the scripts, slots of membership, a clock, a memory that can be lost."""

from __future__ import annotations

import copy
from collections.abc import Callable

from ratelimit_service.quota.leases.membership import SLOT_TTL_US, Beat
from ratelimit_service.quota.redis.twin import Answer, SharedState
from ratelimit_service.quota.takes import Order

EPOCH_US = 1_700_000_000_000_000
"""What the store's clock shows when a simulation begins; a whole number of windows of 1, 2 or 5 s."""

_YEAR_US = 366 * 86_400 * 1_000_000

FIRST_BOOT = 1
"""The memory with which a simulation begins."""


class SimulatedStore:
    """One store; everything is carried out at once, at the store's time.

    Attributes:
        boot: Changes with the store's memory.
        step_us: By how much its clock was set.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        """Make an empty store; `now` is true time."""
        self._now = now
        self.step_us = 0
        self.boot = FIRST_BOOT
        self.shared = SharedState()
        self._slots: dict[int, tuple[bytes, int]] = {}
        self._form: tuple[bytes, int] = (b"", 0)
        self._owned: dict[bytes, int] = {}
        self._began_us = -_YEAR_US
        self._copies: list[tuple[int, SharedState]] = []

    def wall_us(self) -> int:
        """What its clock shows."""
        return EPOCH_US + self._now() + self.step_us

    def age_us(self) -> int:
        """How long ago its memory began; a simulation begins with an old one."""
        return self._now() - self._began_us

    def execute(self, order: Order) -> Answer:
        """Carry out one order."""
        (answer,) = self.shared.execute([order], self.wall_us())
        return answer

    def beat(self, holder: bytes, form: bytes, slots: int, *, owns: bool) -> Beat:
        """What `membership.lua` does."""
        now = self._now()
        in_form = self._form[0] == form or self._form[1] <= now
        if in_form:
            self._form = (form, now + SLOT_TTL_US)
            if owns:
                self._owned[form] = self.wall_us() + SLOT_TTL_US
        self._slots = {slot: held for slot, held in self._slots.items() if held[1] > now}
        free = [slot for slot in range(slots) if slot not in self._slots]
        mine = next((slot for slot, held in self._slots.items() if held[0] == holder), free[0] if free else -1)
        if mine >= 0:
            self._slots[mine] = (holder, now + SLOT_TTL_US)
        below = sum(slot < mine for slot in self._slots)
        other_us = max((until_us for owner, until_us in self._owned.items() if owner != form), default=0)
        return Beat(mine, below, len(self._slots), in_form, self.wall_us(), other_us)

    def leave(self, holder: bytes) -> None:
        """A heartbeat that gives its slot up."""
        self._slots = {slot: held for slot, held in self._slots.items() if held[0] != holder}

    def lose(self) -> None:
        """FLUSHALL, or a restart without a disk."""
        self._replace(SharedState())

    def replicate(self) -> None:
        """Its replica has everything that there is now."""
        kept = SharedState()
        kept.keys = copy.copy(self.shared.keys)  # states are frozen
        self._copies = [(self._now(), kept)]

    def fail_over(self) -> None:
        """Its replica takes its place, without what came since `replicate`."""
        self._replace(self._copies[-1][1] if self._copies else SharedState())

    def _replace(self, shared: SharedState) -> None:
        self.shared = shared
        self.boot += 1
        self._began_us = self._now()
        self._slots = {}
        self._form = (b"", 0)
        self._owned = {}
        self._copies = []

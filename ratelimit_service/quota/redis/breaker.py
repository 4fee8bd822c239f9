"""A circuit breaker: when to stop asking a store that fails or drags, and when to try it again.

Closed: everything is asked. It opens on `failures_in_row` failures, or when half of the last `window` round trips
failed or were slow. Open: nothing is asked until a jittered pause is over, then one probe is (half-open). Its success
closes the breaker and forgets the past; its failure opens it for twice as long, up to a cap. Pure: time and chance
are arguments.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable

import msgspec

__all__ = ["Breaker", "BreakerSettings", "BreakerState"]

Chance = Callable[[], float]
"""A number from 0 up to 1, such as `random.Random.random`."""


class BreakerState(enum.Enum):
    """What a breaker lets through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerSettings(msgspec.Struct, frozen=True):
    """When a breaker opens, and for how long.

    Attributes:
        failures_in_row: So many failures, one after the other, open it.
        window: Round trips that are remembered.
        least: Fewer remembered round trips than this say nothing about their share.
        slow_us: A round trip that takes longer counts as bad, though it is answered.
        first_pause_us, most_pause_us: Pause before the first probe, and the longest that doubling leads to;
            jitter takes up to half off.
    """

    failures_in_row: int = 5
    window: int = 20
    least: int = 10
    slow_us: int = 8_000
    first_pause_us: int = 50_000
    most_pause_us: int = 1_000_000


class Breaker:
    """One node's breaker.

    Attributes:
        state: What it lets through now.
        opened: How often it has opened, ever.
    """

    __slots__ = ("_bad", "_chance", "_in_row", "_pause_us", "_probe_at_us", "_settings", "opened", "state")

    def __init__(self, settings: BreakerSettings, chance: Chance) -> None:
        self._settings = settings
        self._chance = chance
        self._bad: deque[bool] = deque(maxlen=settings.window)
        self._in_row = 0
        self._pause_us = settings.first_pause_us
        self._probe_at_us = 0
        self.state = BreakerState.CLOSED
        self.opened = 0

    @property
    def probe_at_us(self) -> int:
        """When an open breaker lets a probe through; without meaning while it is closed."""
        return self._probe_at_us

    def allows(self, now_us: int) -> bool:
        """Say whether a round trip may start; changes nothing."""
        if self.state is BreakerState.CLOSED:
            return True
        return self.state is BreakerState.OPEN and now_us >= self._probe_at_us

    def begin(self, now_us: int) -> None:
        """A round trip starts: on an open breaker it is the probe, and no second one starts beside it."""
        if self.state is BreakerState.OPEN and now_us >= self._probe_at_us:
            self.state = BreakerState.HALF_OPEN

    def answered(self, took_us: int, now_us: int) -> None:
        """A round trip came back after `took_us`."""
        slow = took_us > self._settings.slow_us
        if self.state is not BreakerState.CLOSED:
            if slow:
                self._reopen(now_us)
            elif self.state is BreakerState.HALF_OPEN:
                self._close()
            return
        self._in_row = 0
        self._bad.append(slow)
        self._judge(now_us)

    def failed(self, now_us: int) -> None:
        """A round trip timed out, broke or was refused."""
        if self.state is not BreakerState.CLOSED:
            self._reopen(now_us)
            return
        self._in_row += 1
        self._bad.append(True)
        if self._in_row >= self._settings.failures_in_row:
            self._open(now_us)
        else:
            self._judge(now_us)

    def _judge(self, now_us: int) -> None:
        if len(self._bad) >= self._settings.least and 2 * sum(self._bad) >= len(self._bad):
            self._open(now_us)

    def _reopen(self, now_us: int) -> None:
        """Only a probe that fails makes the pause longer: what was in flight when it opened is no news."""
        if self.state is BreakerState.HALF_OPEN:
            self._pause_us = min(2 * self._pause_us, self._settings.most_pause_us)
            self._open(now_us)

    def _open(self, now_us: int) -> None:
        if self.state is BreakerState.CLOSED:
            self.opened += 1
        self.state = BreakerState.OPEN
        self._probe_at_us = now_us + self._pause_us - int(self._chance() * self._pause_us / 2)

    def _close(self) -> None:
        self.state = BreakerState.CLOSED
        self._pause_us = self._settings.first_pause_us
        self._in_row = 0
        self._bad.clear()

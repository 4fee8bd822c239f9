"""Call a bounded piece of work again and again on the running loop, from `start` until `close`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["SLICE_INTERVAL_S", "SLICE_KEYS", "Sweeper"]

SLICE_INTERVAL_S: Final = 0.02
"""Pause between two slices of background work."""

SLICE_KEYS: Final = 1_000
"""Keys that one slice looks at: well under a millisecond, and a million keys in 20 s."""


class Sweeper:
    """Runs `work` every `interval_s` seconds by the loop's timer; `work` decides itself how little it does at once."""

    def __init__(self, work: Callable[[], None], interval_s: float = SLICE_INTERVAL_S) -> None:
        self._work = work
        self._interval_s = interval_s
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin on the running loop; a second call changes nothing."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._tick)

    def close(self) -> None:
        """Stop; harmless when not started."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        # Set again first: an error of one slice reaches the loop's handler and does not end the sweeping.
        self.start()
        self._work()

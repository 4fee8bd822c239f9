"""A scheduler that a test turns by hand: what was scheduled runs when the test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class ManualScheduler:
    """Stands in for an event loop's `call_soon`."""

    def __init__(self) -> None:
        self._callbacks: deque[Callable[[], None]] = deque()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Keep a callback for the next `run`."""
        self._callbacks.append(callback)

    def __len__(self) -> int:
        """Callbacks that wait."""
        return len(self._callbacks)

    def run(self) -> None:
        """Run all that waits, what is scheduled meanwhile included."""
        while self._callbacks:
            self._callbacks.popleft()()

"""How a process that answers requests takes a large set meanwhile: in slices, and out of the collector's sight."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterator
from typing import Final

_SLICE_NS: Final = 500_000
_REST_S: Final = 0.001


class Pace:
    """Takes steps in slices, with a rest after each: requests get at least half of the core meanwhile."""

    def __init__(self) -> None:
        self._until_ns = time.monotonic_ns() + _SLICE_NS

    async def take(self, steps: Iterator[None]) -> None:
        """Exhaust `steps`; a slice goes on over several calls."""
        for _ in steps:
            if time.monotonic_ns() >= self._until_ns:
                await asyncio.sleep(_REST_S)
                self._until_ns = time.monotonic_ns() + _SLICE_NS


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Keep the cyclic collector away from a set, now and later.

    It would walk the half-built tree again and again, and the finished one at each full collection: tens of
    milliseconds for a large set. Trees have no cycles, so frozen ones are freed as ever, when the last reference goes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()

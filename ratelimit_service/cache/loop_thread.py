"""An event loop in a thread of its own, for faces that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

__all__ = ["LoopThread"]

R = TypeVar("R")

_CLOSE_S: Final = 10.0


class LoopThread:
    """Runs coroutines for any thread but itself.

    Args:
        name: The thread's.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine there and wait for it.

        Raises:
            RuntimeError: It has stopped, or this is the loop's own thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread or self._loop.is_closed():
            work.close()
            raise RuntimeError("what the loop calls cannot wait for the loop, and what is closed cannot be used")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # The caller was interrupted (Ctrl-C): what it asked for is not wanted any more.
            future.cancel()
            raise

    def call(self, function: Callable[[], R]) -> R:
        """Call a function there and wait for it; raises as `run`."""
        return self.run(_called(function))

    def stop(self) -> None:
        """End the thread when its threads' work is done; once."""
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)
        self._loop.close()


async def _called(function: Callable[[], R]) -> R:
    return function()

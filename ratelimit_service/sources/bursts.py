"""How the process that reads policies works beside the one that answers requests: in bursts, with rests between them.

Where both share a core, a request that comes waits until the scheduler takes the core from whoever has it, however low
its priority: milliseconds on Linux, at every look at a thousand files. Resting leaves the core to requests at once, and
unlike SCHED_IDLE, which cannot be left again, it takes policies in while requests fill the core too.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Final

BURST_S: Final = 0.000_2
"""Of work at one go, longer only within a single call of a C function."""
REST_S: Final = 0.000_2
"""After it; the least that timers keep to is about a quarter of it more."""


@contextlib.contextmanager
def in_bursts() -> Iterator[None]:
    """Work in bursts; for the main thread of a process that uses SIGALRM for nothing else."""
    is_over = False

    def rest(*_: object) -> None:
        # The last signal may be noted before the end and told of after it: set again then, it would end the process.
        if not is_over:
            time.sleep(REST_S)
            # Set again here and not by itself: a signal in the middle of a rest would begin a rest within it.
            signal.setitimer(signal.ITIMER_REAL, BURST_S)

    before = signal.signal(signal.SIGALRM, rest)
    signal.setitimer(signal.ITIMER_REAL, BURST_S)
    try:
        yield
    finally:
        is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

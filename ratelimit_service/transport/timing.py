"""Measures how long calls take, around any decider."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.telemetry.histogram import Histogram
from ratelimit_service.transport.contract import Answer, Decider, Reply

_NS_PER_US: Final = 1_000


class TimedDecider:
    """Adds the time from `decide` to its answer, now or later, to a histogram (`tidegate_request_duration_seconds`).

    Args:
        decider: Decides.
        durations: What is added to.
        read_ns: A clock that does not go back, in nanoseconds.
    """

    def __init__(
        self, decider: Decider, durations: Histogram, read_ns: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self._decide = decider.decide
        self._observe = durations.observe
        self._read_ns = read_ns

    def decide(self, body: bytes, now: Instant, deadline_us: int, reply: Reply) -> Answer | None:
        """As `Decider.decide`; errors are measured too."""
        read_ns, observe = self._read_ns, self._observe
        began_ns = read_ns()

        def reply_late(answer: Answer) -> None:
            observe((read_ns() - began_ns) // _NS_PER_US)
            reply(answer)

        answer = self._decide(body, now, deadline_us, reply_late)
        if answer is not None:
            observe((read_ns() - began_ns) // _NS_PER_US)
        return answer

"""Traces of single calls: which are followed, and what is noted of them. No library of traces is needed for it.

Only calls whose caller has decided so are followed: the sampled flag of the incoming `traceparent` (W3C Trace Context).
Where traces are off nothing of this module is on the path of a call.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ratelimit_service.quota.store import Outcome

_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})").match
_SAMPLED: Final = 1


def is_sampled(traceparent: bytes | None) -> bool:
    """Whether the caller follows this call; what is no `traceparent` says no."""
    if not traceparent:
        return False
    found = _TRACEPARENT(traceparent)
    return found is not None and bool(int(found[1], 16) & _SAMPLED)


class CallTrace:
    """What happened to one call, and when (Unix time, nanoseconds).

    Attributes:
        traceparent: As it came.
        began_ns: The call was read.
        matched_ns: Its plan was found, and its store was asked; 0: nothing is counted for it.
        outcomes_ns: The store had answered.
        ended_ns: The answer was made.
        sources: Who decided, each once.
        degraded: A failure mode decided.
    """

    __slots__ = (
        "_read_ns", "began_ns", "degraded", "ended_ns", "matched_ns", "outcomes_ns", "sources", "traceparent",
    )  # fmt: skip

    def __init__(self, traceparent: bytes, read_ns: Callable[[], int]) -> None:
        self._read_ns = read_ns
        self.traceparent = traceparent
        self.began_ns = read_ns()
        self.matched_ns = self.outcomes_ns = self.ended_ns = 0
        self.sources: tuple[str, ...] = ()
        self.degraded = False

    def asks(self) -> None:
        """The store is asked; of several times the first counts."""
        self.matched_ns = self.matched_ns or self._read_ns()

    def answered(self, outcomes: Sequence[Outcome]) -> None:
        """The store has answered; of several times the last counts."""
        self.outcomes_ns = self._read_ns()
        self.sources = tuple(dict.fromkeys(outcome.source.value for outcome in outcomes))
        self.degraded = any(outcome.degraded for outcome in outcomes)

    def ends(self) -> None:
        """The answer is made."""
        self.ended_ns = self._read_ns()


class TraceSink(Protocol):
    """Where finished traces go."""

    def take(self, trace: CallTrace, body: bytes, answer: object) -> None:
        """Take the trace of a call with this request, and this answer: bytes, or an error."""

    def close(self) -> None:
        """Send what is left; may block for a moment, so it is called from another thread."""


class Tracing:
    """The calls that are followed. Belongs to one event loop.

    Attributes:
        current: What the code that runs now works for; None: a call that nobody follows.
    """

    def __init__(self, sink: TraceSink, read_ns: Callable[[], int] = time.time_ns) -> None:
        """Give finished traces to `sink`."""
        self._sink = sink
        self._read_ns = read_ns
        self.current: CallTrace | None = None

    def begin(self, traceparent: bytes) -> CallTrace:
        """Follow a call that was read now, until the code that began it says otherwise (`current`)."""
        self.current = CallTrace(traceparent, self._read_ns)
        return self.current

    def finish(self, trace: CallTrace, body: bytes, answer: object) -> None:
        """A call that was followed has its answer."""
        trace.ends()
        self._sink.take(trace, body, answer)

    def close(self) -> None:
        """See `TraceSink.close`."""
        self._sink.close()

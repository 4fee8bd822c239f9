"""Ends the trace of a call with its answer, around any decider."""

from __future__ import annotations

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.telemetry.tracing import Tracing
from ratelimit_service.transport.contract import Answer, Decider, Reply


class TracedDecider:
    """Finishes what a transport began to follow (`Tracing.begin`); before the limiter only where traces are on."""

    def __init__(self, decider: Decider, tracing: Tracing) -> None:
        """Follow the decisions of `decider`."""
        self._decide = decider.decide
        self._tracing = tracing

    def decide(self, body: bytes, now: Instant, deadline_us: int, reply: Reply) -> Answer | None:
        """As `Decider.decide`; afterwards no call is current."""
        tracing = self._tracing
        trace = tracing.current
        if trace is None:
            return self._decide(body, now, deadline_us, reply)

        def reply_late(answer: Answer) -> None:
            tracing.finish(trace, body, answer)
            reply(answer)

        try:
            answer = self._decide(body, now, deadline_us, reply_late)
        finally:
            tracing.current = None
        if answer is not None:
            tracing.finish(trace, body, answer)
        return answer

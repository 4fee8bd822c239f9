"""A client of the native transport where traces are on."""

from __future__ import annotations

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.telemetry.tracing import is_sampled
from ratelimit_service.transport.native_connection import NativeConnection
from ratelimit_service.wire.http2.events import Event, Request


class TracedConnection(NativeConnection):
    """Serves one client, and begins to follow the calls that it wants followed."""

    def _work(self, events: list[Event], now: Instant) -> None:
        """Work through calls that are followed one at a time, the others as ever, all in the order of their coming."""
        tracing = self._hub.tracing
        assert tracing is not None
        plain: list[Event] = []
        for event in events:
            trace = event.head.trace if isinstance(event, Request) else None
            if trace is None or not is_sampled(trace):
                plain.append(event)
                continue
            if plain:
                super()._work(plain, now)
                plain = []
            tracing.begin(trace)
            super()._work([event], now)
            # A call that was not decided about (a health check, a refusal) is not followed.
            tracing.current = None
        if plain:
            super()._work(plain, now)

"""A store that notes when it is asked for a call that is followed, and when it has answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ratelimit_service.algorithms.limit import Instant, LimitSettings
from ratelimit_service.quota.store import Charge, Done, Outcome, Store, Usage
from ratelimit_service.telemetry.tracing import Tracing


class TracedStore:
    """Implements `Store` by another one. It stands before stores only where traces are on."""

    def __init__(self, inner: Store, tracing: Tracing) -> None:
        """Note what is asked of `inner` for the call that `tracing` follows just now."""
        self._inner = inner
        self._tracing = tracing

    def charge(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome] | None:
        """See `Store.charge`."""
        trace = self._tracing.current
        if trace is None:
            return self._inner.charge(charges, now)
        trace.asks()
        outcomes = self._inner.charge(charges, now)
        if outcomes is not None:
            trace.answered(outcomes)
        return outcomes

    def charge_later(self, charges: Sequence[Charge], deadline_us: int, done: Done) -> None:
        """See `Store.charge_later`."""
        self._inner.charge_later(charges, deadline_us, self._noted(done))

    def refund(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """See `Store.refund`."""
        self._inner.refund(charges, now, self._noted(done))

    def _noted(self, done: Done) -> Done:
        trace = self._tracing.current
        if trace is None:
            return done
        trace.asks()

        def noted(outcomes: Sequence[Outcome]) -> None:
            trace.answered(outcomes)
            done(outcomes)

        return noted

    def reset(self, identity: bytes, key: bytes, done: Callable[[bool | None], None]) -> None:
        """See `Store.reset`."""
        self._inner.reset(identity, key, done)

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        """See `Store.apply`."""
        self._inner.apply(limits)

    def peek(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        """See `Store.peek`."""
        self._inner.peek(charges, now, done)

    def usage(self, domain: str, page: int, done: Callable[[Sequence[Usage] | None], None]) -> None:
        """See `Store.usage`."""
        self._inner.usage(domain, page, done)

    def bound(self, rule: str) -> int:
        """See `Store.bound`."""
        return self._inner.bound(rule)

    async def start(self) -> None:
        """See `Store.start`."""
        await self._inner.start()

    async def close(self) -> None:
        """See `Store.close`."""
        await self._inner.close()

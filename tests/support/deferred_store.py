"""A store that never answers at once: the other half of the `Store` protocol, over any store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from ratelimit_service.algorithms.limit import Instant, LimitSettings
from ratelimit_service.quota.store import Charge, Done, Outcome, Store, Usage


class DeferredStore:
    """Counts in `inner`; `charge` is always None and every `done` is called on a later turn.

    `call_soon` is a scheduler's; None: the running loop's. `inner` must itself put `charge_later` off.
    """

    def __init__(self, inner: Store, call_soon: Callable[[Callable[[], None]], object] | None = None) -> None:
        self.inner = inner
        self._call_soon = call_soon

    def charge(self, charges: Sequence[Charge], now: Instant) -> Sequence[Outcome] | None:
        return None

    def charge_later(self, charges: Sequence[Charge], deadline_us: int, done: Done) -> None:
        self.inner.charge_later(charges, deadline_us, done)

    def peek(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        self._soon(lambda: self.inner.peek(charges, now, done))

    def refund(self, charges: Sequence[Charge], now: Instant, done: Done) -> None:
        self._soon(lambda: self.inner.refund(charges, now, done))

    def reset(self, identity: bytes, key: bytes, done: Callable[[bool | None], None]) -> None:
        self._soon(lambda: self.inner.reset(identity, key, done))

    def usage(self, domain: str, page: int, done: Callable[[Sequence[Usage] | None], None]) -> None:
        self._soon(lambda: self.inner.usage(domain, page, done))

    def bound(self, rule: str) -> int:
        return self.inner.bound(rule)

    def apply(self, limits: Mapping[bytes, LimitSettings]) -> None:
        self.inner.apply(limits)

    async def start(self) -> None:
        await self.inner.start()

    async def close(self) -> None:
        await self.inner.close()

    def _soon(self, callback: Callable[[], None]) -> None:
        call_soon = self._call_soon or asyncio.get_running_loop().call_soon
        call_soon(callback)

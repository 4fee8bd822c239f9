"""What the health service of any transport answers (DECISIONS 30).

One board per server: `Check` reads it, each `Watch` follows it. Every service that we name has the same status,
since they stand or fall together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from ratelimit_service.wire.grpc.health import ServingStatus

RLS_SERVICE: Final = "envoy.service.ratelimit.v3.RateLimitService"
"""Full name of the rate-limit service."""

_NAMED: Final = frozenset((b"", b"ratelimit", RLS_SERVICE.encode()))


class HealthBoard:
    """Status of the server, not serving until it is said to. Belongs to one event loop."""

    def __init__(self) -> None:
        self._serving = False
        self._closed = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Tell every follower; has no effect after `close`."""
        self._serving = serving and not self._closed
        self._wake()

    def close(self) -> None:
        """Be NOT_SERVING for good, and end every follower after it was told."""
        self._serving, self._closed = False, True
        self._wake()

    def status_of(self, service: bytes) -> ServingStatus:
        """Return the status of `service`; SERVICE_UNKNOWN for one that is not served here."""
        if service not in _NAMED:
            return ServingStatus.SERVICE_UNKNOWN
        return ServingStatus.SERVING if self._serving else ServingStatus.NOT_SERVING

    async def follow(self, service: bytes) -> AsyncIterator[ServingStatus]:
        """Yield the status now and after every change of it, until `close`."""
        told: ServingStatus | None = None
        while True:
            changed = self._changed
            status = self.status_of(service)
            if status is not told:
                told = status
                yield status
                continue
            if self._closed:
                return
            await changed.wait()

    def _wake(self) -> None:
        # A new event each time: a follower that is busy sending still holds the old one, which is set for ever.
        self._changed.set()
        self._changed = asyncio.Event()

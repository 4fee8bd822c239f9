"""Calls over gRPC in closed loops, one for each service, on a thread, until stopped."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final, Self

from ratelimit_service.transport.client import CallFailed, RateLimitClient
from ratelimit_service.wire.rls.messages import Descriptor, Request

CALL_S: Final = 30.0
"""How long a call may take: a busy machine is no failure of the service."""


class GrpcLoad:
    """A block in which calls of one key never stop.

    Args:
        targets: HOST:PORT of each service.
        domain: Of the calls.
        pause_s: Between two calls to the same service.
        entries: Key and value of the descriptor.

    Attributes:
        answers: `OK`, `OVER_LIMIT`, or what a call failed with, and how often; of all services together.
    """

    def __init__(self, targets: Sequence[str], domain: str, *, pause_s: float = 0.0, **entries: str) -> None:
        self.answers: Counter[str] = Counter()
        self._targets = targets
        self._pause_s = pause_s
        descriptor = Descriptor(tuple((key.encode(), value.encode()) for key, value in entries.items()))
        self._request = Request(domain.encode(), (descriptor,))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask(each) for each in self._targets))

    async def _ask(self, target: str) -> None:
        async with RateLimitClient(target, own_connection=True) as client:
            while not self._stopping.is_set():
                try:
                    verdict = await client.ask(self._request, CALL_S)
                except CallFailed as error:
                    self.answers[str(error)] += 1
                else:
                    self.answers["OVER_LIMIT" if verdict.over else "OK"] += 1
                await asyncio.sleep(self._pause_s)

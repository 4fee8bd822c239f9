"""Calls of a test to services of its own, again and again, until it ends."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

import grpc

from e2e.support.caller import get
from ratelimit_service.wire.rls.client import encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request

_ASK: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
_PAUSE_S: Final = 0.02
_TIMEOUT_S: Final = 5.0


class Load:
    """Some fifty rounds a second; each sends every kind of call that is named, once.

    A call is (service, domain, key, value); `#` in the value becomes the number of the round, so that keys are new.
    """

    def __init__(self, front: tuple[str, int]) -> None:
        self._front = front
        self._calls: set[tuple[str, str, str, str]] = set()
        self._channels: dict[str, grpc.Channel] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for channel in self._channels.values():
            channel.close()

    def add(self, service: str, domain: str, key: str, value: str) -> None:
        """Send this too from now on."""
        self._calls = self._calls | {(service, domain, key, value)}

    @contextmanager
    def adding(self, service: str, domain: str, key: str, value: str) -> Iterator[None]:
        """Send this too while the block lasts."""
        self.add(service, domain, key, value)
        try:
            yield
        finally:
            self._calls = self._calls - {(service, domain, key, value)}

    def _run(self) -> None:
        for number in itertools.count():
            if self._stopping.wait(_PAUSE_S):
                return
            with contextlib.suppress(OSError):
                get(self._front, headers={"x-user": f"user-{number}"})
            for service, domain, key, value in self._calls:
                entry = (key.encode(), value.replace("#", str(number)).encode())
                body = encode_request(Request(domain.encode(), (Descriptor((entry,)),)))
                with contextlib.suppress(grpc.RpcError):
                    self._channel(service).unary_unary(_ASK)(body, timeout=_TIMEOUT_S)

    def _channel(self, service: str) -> grpc.Channel:
        if service not in self._channels:
            self._channels[service] = grpc.insecure_channel(service)
        return self._channels[service]

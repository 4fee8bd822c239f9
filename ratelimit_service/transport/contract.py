"""What a transport needs of the service: raw message bytes in, bytes out (DECISIONS 39).

Both transports (grpcio, native) hand over the bytes of a `RateLimitRequest` and get
the bytes of a `RateLimitResponse`; neither knows what is inside.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import msgspec

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.wire.grpc.status import Answer, Reply

__all__ = ["Answer", "Decider", "Reply", "Transport"]


class Decider(Protocol):
    """Decides one ShouldRateLimit call."""

    def decide(self, body: bytes, now: Instant, deadline_us: int, reply: Reply) -> Answer | None:
        """Answer at once, or return None and call `reply` exactly once later, never before returning.

        Args:
            body: A serialised `RateLimitRequest`, without the gRPC length prefix; hostile bytes allowed.
            now: One reading of the clocks per read batch.
            deadline_us: Boot time by which the answer is owed (DECISIONS 29).
            reply: Called later with the answer when this returns None.
        """


class Transport(Protocol):
    """A listening gRPC server."""

    async def start(self) -> None:
        """Bind and serve. Raises `TidegateError` naming the address that cannot be bound."""

    def set_serving(self, serving: bool) -> None:
        """What the health service answers."""

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, finish those under way, at most `grace_s` seconds, then close."""

    @property
    def addresses(self) -> list[str]:
        """Where it listens, with real ports (`127.0.0.1:43211`, `unix:/run/x.sock`)."""


@runtime_checkable
class Adopting(Protocol):
    """A transport that serves connections which another process has accepted."""

    async def adopt(self, accepted: socket.socket) -> None:
        """Serve a connection, TLS included; one that fails at once is closed, and that is all."""

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a connection has come or gone."""

    @property
    def connections(self) -> int:
        """How many are open."""


@runtime_checkable
class Counting(Protocol):
    """A transport that counts its connections."""

    def stats(self) -> msgspec.Struct:
        """What was counted since the start, by the names of `telemetry.catalogue.CONNECTIONS` and `abuse`."""

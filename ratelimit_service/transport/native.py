"""The gRPC server of our own: asyncio around a sans-IO HTTP/2 codec.

It serves what Envoy asks (ShouldRateLimit, health) at many times the rate of grpcio, and nothing else: reflection
is grpcio's. How one client is served is in `native_connection`, what all clients share in `native_hub`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from ratelimit_service.algorithms.limit import Instant
from ratelimit_service.telemetry.histogram import Histogram
from ratelimit_service.telemetry.tracing import Tracing
from ratelimit_service.transport.addresses import CannotListen
from ratelimit_service.transport.contract import Decider
from ratelimit_service.transport.native_connection import NativeConnection
from ratelimit_service.transport.native_hub import Hub
from ratelimit_service.transport.native_settings import NativeSettings, NativeStats
from ratelimit_service.transport.native_sockets import BACKLOG, Listener
from ratelimit_service.transport.native_tls import ServerTls
from ratelimit_service.transport.native_traced import TracedConnection
from ratelimit_service.transport.tls import TlsSettings

_US_PER_S: Final = 1_000_000


class NativeTransport:
    """Serves ShouldRateLimit and health. Implements `Transport`; made and used on one event loop.

    Args:
        decider: Decides each call.
        clock: One reading of the clocks; called once per read batch.
        addresses: `HOST:PORT` (port 0: any free one) and `unix:PATH`, at least one.
        settings: Behaviour towards clients.
        tls: None: plain text.
        durations: Takes the time of each call from its read to its write, once per read batch; None: not measured.
        tracing: Follows calls whose callers want it; None: none.

    Raises:
        InvalidTls: The TLS files are not good; raised on construction.
    """

    def __init__(
        self,
        decider: Decider,
        clock: Callable[[], Instant],
        addresses: Sequence[str],
        *,
        settings: NativeSettings | None = None,
        tls: TlsSettings | None = None,
        durations: Histogram | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._configured = tuple(addresses)
        self._tls = None if tls is None else ServerTls(tls)
        self._hub = Hub(decider, clock, settings or NativeSettings(), durations, tracing)
        self._new = NativeConnection if tracing is None else TracedConnection
        self._listeners: list[Listener] = []
        self._bound: list[str] = []
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Bind every address and serve; nothing is served when one cannot be bound.

        Raises:
            CannotListen: Names the address and the reason.
        """
        try:
            for address in self._configured:
                self._listeners.append(Listener(address))
        except CannotListen:
            self._close_listeners()
            raise
        for listener in self._listeners:
            self._servers.append(await self._serve(listener))
        self._bound = [listener.address for listener in self._listeners]

    async def _serve(self, listener: Listener) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        create = loop.create_unix_server if listener.is_unix else loop.create_server
        context, patience_s = self._handshake()
        return await create(
            self._connect, sock=listener.socket, backlog=BACKLOG, ssl=context, ssl_handshake_timeout=patience_s
        )

    def _handshake(self) -> tuple[ssl.SSLContext | None, float | None]:
        if self._tls is None:
            return None, None
        return self._tls.context, self._hub.settings.settle_us / _US_PER_S

    async def adopt(self, accepted: socket.socket) -> None:
        """See `Adopting.adopt`."""
        loop, (context, patience_s) = asyncio.get_running_loop(), self._handshake()
        accepted.setblocking(False)
        try:
            await loop.connect_accepted_socket(self._connect, accepted, ssl=context, ssl_handshake_timeout=patience_s)
        except OSError:  # it is gone, or its handshake failed; `ssl.SSLError` is one
            accepted.close()

    def on_change(self, changed: Callable[[], None]) -> None:
        """See `Adopting.on_change`."""
        self._hub.changed = changed

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._hub.connections)

    def _connect(self) -> NativeConnection:
        return self._new(self._hub, self._tls)

    def set_serving(self, serving: bool) -> None:
        """What the health service answers; not serving until told."""
        self._hub.health.set_serving(serving)

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, end every Watch with NOT_SERVING, finish the calls under way, then close.

        Clients are told in two steps, so that no call on its way is lost (RFC 9113 §6.8). What still runs after
        `grace_s` seconds is cut off. Draining twice, or before `start`, does nothing.
        """
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._close_listeners()
        await self._hub.drain(grace_s)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    @property
    def addresses(self) -> list[str]:
        """Where it listens, with real ports; empty before `start`."""
        return list(self._bound)

    def stats(self) -> NativeStats:
        """What was counted since the start."""
        return self._hub.stats()

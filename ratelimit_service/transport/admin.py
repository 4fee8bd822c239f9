"""The admin HTTP server: probes, metrics and pages that explain what is in force (DESIGN §7).

It shares the event loop with decisions, so everything it does is cut into slices and bounded (`AdminLimits`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Generic

from ratelimit_service.addresses import Address
from ratelimit_service.transport.addresses import CannotListen, require_free
from ratelimit_service.transport.admin_protocol import AdminConnection, AdminLimits, Phase
from ratelimit_service.transport.admin_routes import Route, Routes, View

__all__ = ["AdminLimits", "AdminServer", "CannotListen"]

_BACKLOG = 128


class AdminServer(Generic[View]):
    """Serves the admin pages on several addresses.

    Attributes:
        addresses: Where it listens, with real ports; empty before `start`.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        view: View,
        *,
        exposed: frozenset[str] = frozenset(),
        limits: AdminLimits | None = None,
        routes: Sequence[Route[View]],
    ) -> None:
        """Set up; nothing is bound yet.

        Args:
            addresses: Where to listen.
            view: What the pages show.
            exposed: Guards of pages that answer every peer (`--admin-expose`).
            limits: What one client may cost.
            routes: The table of pages.
        """
        self.addresses: list[str] = []
        self._wanted = tuple(addresses)
        self._view = view
        self._limits = limits or AdminLimits()
        self._routes = Routes(routes, exposed)
        self._servers: list[asyncio.Server] = []
        self._connections: dict[AdminConnection[View], None] = {}
        """Those open, the oldest first."""
        self._empty = asyncio.Event()
        """Set while none is open."""

    async def start(self) -> None:
        """Bind every address and serve.

        Raises:
            CannotListen: One cannot be bound; then none is served.
        """
        for address in self._wanted:
            try:
                self._servers.append(await self._listen(address))
            except OSError as error:
                await self.close(grace_s=0)
                raise CannotListen(str(address), error.strerror or str(error)) from error

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def _listen(self, address: Address) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if address.unix_path:
            require_free(str(address))  # asyncio would take over the socket of a live server
            server: asyncio.Server = await loop.create_unix_server(
                self._connection, address.unix_path, backlog=_BACKLOG
            )
            self.addresses.append(str(address))
            return server
        server = await loop.create_server(self._connection, address.host, address.port, backlog=_BACKLOG)
        for socket in server.sockets:
            host, port = socket.getsockname()[:2]
            self.addresses.append(str(Address(host=host, port=port)))
        return server

    async def close(self, grace_s: float = 1.0) -> None:
        """Stop listening, close idle connections, let answers under way finish for `grace_s`, then cut them."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        self.addresses.clear()
        for connection in tuple(self._connections):
            connection.drain()
        if self._connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), grace_s)
        for connection in tuple(self._connections):
            connection.cut()
        await asyncio.sleep(0)

    def _connection(self) -> AdminConnection[View]:
        return AdminConnection(self._routes, self._view, self._limits, self._opened, self._closed)

    def _opened(self, connection: AdminConnection[View]) -> bool:
        """Take a connection in; False: there are too many, and none is idle."""
        if len(self._connections) >= self._limits.max_connections:
            idle = next((other for other in self._connections if other.phase is Phase.IDLE), None)
            if idle is None:
                return False
            del self._connections[idle]
            idle.cut()
        self._connections[connection] = None
        return True

    def _closed(self, connection: AdminConnection[View]) -> None:
        self._connections.pop(connection, None)
        if not self._connections:
            self._empty.set()

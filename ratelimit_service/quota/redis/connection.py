"""Makes connections: TLS, login and database by the library, then a `Link`."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

from redis import exceptions
from redis.asyncio.connection import Connection

from ratelimit_service.quota.redis.faults import LossReason, StoreLost, loss_of_connection
from ratelimit_service.quota.redis.link import Link
from ratelimit_service.redis_server.address_model import Credentials, Endpoint, RedisAddress, Tls
from ratelimit_service.redis_server.tls import TlsConnection, context_of

__all__ = ["Dialer"]


class Dialer:
    """Makes connections as an address says. Certificates and password files are read again when they change."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._context: ssl.SSLContext | None = None
        self._context_stamp: tuple[int, ...] = ()

    @property
    def address(self) -> RedisAddress:
        """Where it dials."""
        return self._address

    async def dial(self, endpoint: Endpoint) -> Link:
        """Connect to a server that counts.

        Raises:
            StoreLost: It is not there, does not answer in time, or refuses.
        """
        return await self._dial(endpoint, self._address.credentials, self._address.db)

    async def dial_sentinel(self, endpoint: Endpoint) -> Link:
        """Connect to a sentinel.

        Raises:
            StoreLost: As `dial`.
        """
        return await self._dial(endpoint, self._address.sentinel_credentials, 0)

    async def _dial(self, endpoint: Endpoint, credentials: Credentials, db: int) -> Link:
        connection = self._connection(endpoint, credentials, db)
        try:
            async with asyncio.timeout(self._address.connect_us / 1_000_000):
                await connection.connect()  # type: ignore[no-untyped-call] # the library's signature has no types
        except (exceptions.RedisError, OSError) as error:
            _abort(connection)
            raise loss_of_connection(error) from error
        except BaseException:
            _abort(connection)
            raise
        writer = _take_writer(connection)
        assert writer is not None
        return Link(endpoint, writer)

    def _connection(self, endpoint: Endpoint, credentials: Credentials, db: int) -> Connection:
        try:
            user, password = credentials.read()
        except OSError as error:
            raise StoreLost(LossReason.AUTH, str(error)) from error
        settings: dict[str, Any] = {
            "host": endpoint.host,
            "port": endpoint.port,
            "db": db,
            "username": user or None,
            "password": password or None,
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "protocol": 2,
            "socket_keepalive": True,
        }
        tls = self._address.tls
        if tls is None:
            return Connection(**settings)
        try:
            context = self._tls_context(tls)
        except OSError as error:  # SSLError is one too
            raise StoreLost(LossReason.TLS, str(error)) from error
        return TlsConnection(context, tls.server_name, **settings)

    def _tls_context(self, tls: Tls) -> ssl.SSLContext:
        """One context until a file of it changes: reading the system's authorities takes milliseconds."""
        stamp = tuple(_stamp(path) for path in (tls.ca_file, tls.cert_file, tls.key_file) if path is not None)
        if self._context is None or stamp != self._context_stamp:
            self._context, self._context_stamp = context_of(tls), stamp
        return self._context


def _take_writer(connection: Connection) -> asyncio.StreamWriter | None:
    """Leave a connection without its streams: it is not used any more, and must not close them when it is collected.

    The library has no public way to them; both names have been the same since version 4.2.
    """
    writer = connection._writer  # noqa: SLF001
    connection._reader = connection._writer = None  # noqa: SLF001
    return writer


def _abort(connection: Connection) -> None:
    """Close at once, where it got as far as having something to close."""
    writer = _take_writer(connection)
    if writer is not None:
        writer.transport.abort()


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns

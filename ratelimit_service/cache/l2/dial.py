"""Connections to Redis, made by redis-py as an address says, and questions about who is the master.

Nothing of redis-py's clients, pools and retries is used: `tracking` reads the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from redis.asyncio.connection import AbstractConnection, Connection
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from ratelimit_service.cache.errors import LevelUnavailable
from ratelimit_service.redis_server.address_model import Credentials, Endpoint, Layout, RedisAddress
from ratelimit_service.redis_server.slots import SLOTS
from ratelimit_service.redis_server.tls import TlsConnection, context_of

__all__ = ["Dialer", "Place", "ask", "discover"]

_FAILURES: Final = (RedisError, OSError, ssl.SSLError, ValueError)
_SENTINEL_SECONDS: Final = 1.0


class Place(msgspec.Struct, frozen=True):
    """A master and what it holds.

    Attributes:
        endpoint: Where it is.
        slots: Slots of the cluster that are its, as ranges; all of them without a cluster.
    """

    endpoint: Endpoint
    slots: tuple[range, ...] = (range(SLOTS),)


class Dialer:
    """Makes connections; certificates and passwords are read from their files each time."""

    def __init__(self, address: RedisAddress) -> None:
        self.address = address

    async def dial(self, endpoint: Endpoint) -> tuple[AbstractConnection, bool]:
        """Connect and log in; whether the server speaks RESP3, which carries pushes.

        Raises:
            LevelUnavailable: It cannot be reached, or refuses the login.
        """
        address = self.address
        return await self._connect(endpoint, address.credentials, address.db)

    async def dial_plain(self, endpoint: Endpoint) -> AbstractConnection:
        """Connect with RESP2, for subscriptions; errors as with `dial`."""
        return await self._open(endpoint, self.address.credentials, self.address.db, protocol=2)

    async def dial_sentinel(self, endpoint: Endpoint) -> AbstractConnection:
        """Connect to a sentinel; errors as with `dial`."""
        return await self._open(endpoint, self.address.sentinel_credentials, 0, protocol=2)

    async def _connect(self, endpoint: Endpoint, who: Credentials, db: int) -> tuple[AbstractConnection, bool]:
        try:
            return await self._open(endpoint, who, db, protocol=3), True
        except _NoResp3:
            return await self._open(endpoint, who, db, protocol=2), False

    async def _open(self, endpoint: Endpoint, who: Credentials, db: int, *, protocol: int) -> AbstractConnection:
        connection: AbstractConnection | None = None
        try:
            connection = self._connection(endpoint, who, db, protocol)
            async with asyncio.timeout(self.address.connect_us / 1e6):
                await connection.connect()  # type: ignore[no-untyped-call]  # its signature has no types
        except BaseException as error:
            if connection is not None:
                with contextlib.suppress(Exception):
                    await connection.disconnect(nowait=True)
            if protocol == 3 and _speaks_no_resp3(error):
                raise _NoResp3 from error
            if isinstance(error, _FAILURES):
                raise LevelUnavailable("l2", f"{endpoint}: {type(error).__name__}: {error}") from error
            raise
        return connection

    def _connection(self, endpoint: Endpoint, who: Credentials, db: int, protocol: int) -> AbstractConnection:
        user, password = who.read()
        settings: dict[str, Any] = {
            "host": endpoint.host,
            "port": endpoint.port,
            "db": db,
            "username": user or None,
            "password": password or None,
            "protocol": protocol,
            "socket_timeout": None,
            "socket_connect_timeout": self.address.connect_us / 1e6,
            "client_name": "tidegate-cache",
        }
        if self.address.tls is None:
            return Connection(**settings)
        return TlsConnection(context_of(self.address.tls), self.address.tls.server_name, **settings)


class _NoResp3(Exception):
    """The server is there and does not know RESP3."""


def _speaks_no_resp3(error: BaseException) -> bool:
    """Whether the refusal is about HELLO: Redis before 6, and proxies."""
    if isinstance(error, AuthenticationError) or not isinstance(error, RedisError):
        return False
    text = str(error).lower()
    return isinstance(error, ResponseError) or "unknown command" in text or "noproto" in text or "resp" in text


async def ask(connection: AbstractConnection, *command: str) -> Any:
    """Send one command on a connection of its own and close that.

    Raises:
        LevelUnavailable: No answer in time, or an error.
    """
    try:
        async with asyncio.timeout(_SENTINEL_SECONDS):
            await connection.send_command(*command)
            return await connection.read_response(disable_decoding=True)
    except _FAILURES as error:
        raise LevelUnavailable("l2", f"{command[0]}: {type(error).__name__}: {error}") from error
    finally:
        with contextlib.suppress(Exception):
            await connection.disconnect(nowait=True)


async def discover(dialer: Dialer) -> tuple[Place, ...]:
    """Ask who the masters are, now.

    Raises:
        LevelUnavailable: Nobody knows.
    """
    address = dialer.address
    if address.layout is Layout.SINGLE:
        return (Place(address.endpoints[0]),)
    reason = "nobody was asked"
    for endpoint in address.endpoints:
        try:
            if address.layout is Layout.SENTINEL:
                return (Place(await _master(dialer, endpoint)),)
            connection, _ = await dialer.dial(endpoint)
            return _masters(endpoint, await ask(connection, "CLUSTER", "SLOTS"))
        except LevelUnavailable as error:
            reason = error.reason
    raise LevelUnavailable("l2", f"no master is known: {reason}")


async def _master(dialer: Dialer, sentinel: Endpoint) -> Endpoint:
    connection = await dialer.dial_sentinel(sentinel)
    name = dialer.address.master_name
    reply = await ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
    if not reply:
        raise LevelUnavailable("l2", f"{sentinel} knows no master {name!r}")
    return Endpoint(reply[0].decode(), int(reply[1]))


def _masters(asked: Endpoint, slots: Sequence[Any]) -> tuple[Place, ...]:
    """Masters and their slots out of CLUSTER SLOTS; an empty host means the one that was asked."""
    ranges: dict[Endpoint, list[range]] = {}
    for first, last, master, *_ in slots:
        host = (master[0] or b"").decode() or asked.host
        ranges.setdefault(Endpoint(host, int(master[1])), []).append(range(int(first), int(last) + 1))
    if not ranges:
        raise LevelUnavailable("l2", f"{asked}: no slot of the cluster has a master")
    return tuple(Place(endpoint, tuple(held)) for endpoint, held in ranges.items())

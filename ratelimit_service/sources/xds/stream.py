"""One ADS stream on grpc.aio: to which address it goes, and with which certificates."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import msgspec

from ratelimit_service.addresses import Address
from ratelimit_service.errors import TidegateError
from ratelimit_service.wire.xds.discovery import METHOD
from ratelimit_service.xds_address import XdsAddress

DIAL_S: Final = 5.0
"""How long an address may take to accept a stream."""

_MOST_MESSAGE_BYTES: Final = 256 * 1024 * 1024
_KEEPALIVE_MS: Final = 20_000


class StreamFailed(TidegateError):
    """There is no stream, or it has ended; the message says why."""


class Target(msgspec.Struct, frozen=True):
    """One address of a server's name."""

    host: str
    address: Address


class Stream:
    """A stream that a server has taken."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def send(self, body: bytes) -> None:
        """Send a request; raises StreamFailed."""
        try:
            await self._call.write(body)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise StreamFailed(_reason(error)) from error

    async def receive(self) -> bytes:
        """The next response; raises StreamFailed when there will be none."""
        try:
            body = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise StreamFailed(_reason(error)) from error
        if body is grpc.aio.EOF:
            raise StreamFailed("the server has ended the stream")
        return bytes(body)


async def resolve(servers: tuple[Address, ...]) -> tuple[list[Target], list[str]]:
    """Every address of every name, in order, and the names that cannot be resolved."""
    loop = asyncio.get_running_loop()
    targets: list[Target] = []
    problems: list[str] = []
    for server in servers:
        try:
            found = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
        except OSError as error:
            problems.append(f"{server}: {error.strerror}")
            continue
        targets += [Target(server.host, Address(str(where[0]), server.port)) for *_, where in found]
    return list(dict.fromkeys(targets)), problems


@contextlib.asynccontextmanager
async def open_stream(target: Target, address: XdsAddress, first: bytes) -> AsyncIterator[Stream]:
    """Open a stream and send `first`; files are read anew, so that a rotated certificate is used at once.

    Raises:
        StreamFailed: The address is not there, does not answer in `DIAL_S`, or refuses.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # Each stream has a connection of its own: with the certificates of now, to this very address.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]
    where = str(target.address)
    if address.is_secure:
        options.append(("grpc.ssl_target_name_override", address.server_name or target.host))
        channel = grpc.aio.secure_channel(where, _credentials(address), options=options)
    else:
        channel = grpc.aio.insecure_channel(where, options=options)
    async with channel:
        call = channel.stream_stream(METHOD)()
        stream = Stream(call)
        try:
            async with asyncio.timeout(DIAL_S):
                await stream.send(first)
                # A server that takes the stream says so at once; one that refuses ends it.
                await call.initial_metadata()
        except TimeoutError as error:
            call.cancel()
            raise StreamFailed(f"no answer in {DIAL_S:g} s") from error
        except grpc.aio.AioRpcError as error:
            raise StreamFailed(_reason(error)) from error
        try:
            yield stream
        finally:
            call.cancel()


def _credentials(address: XdsAddress) -> Any:
    return grpc.ssl_channel_credentials(_read(address.ca), _read(address.key), _read(address.cert))


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise StreamFailed(f"{path}: {error.strerror}") from error


def _reason(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return "the stream has ended"

"""Every gRPC transport behind one factory, for suites that run over all of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

import grpc
import grpc.aio

from ratelimit_service.transport.contract import Decider, Transport
from ratelimit_service.transport.grpcio import GrpcioSettings, GrpcioTransport
from ratelimit_service.transport.native import NativeTransport
from ratelimit_service.transport.native_settings import NativeSettings
from ratelimit_service.transport.tls import TlsSettings
from support.deciders import read_clock

ASK = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"

Factory = Callable[..., Transport]


def _grpcio(decider: Decider, addresses: Sequence[str], tls: TlsSettings | None, max_message_bytes: int) -> Transport:
    settings = GrpcioSettings(max_message_bytes=max_message_bytes)
    return GrpcioTransport(decider, read_clock, addresses, settings=settings, tls=tls)


def _native(decider: Decider, addresses: Sequence[str], tls: TlsSettings | None, max_message_bytes: int) -> Transport:
    settings = NativeSettings(max_message_bytes=max_message_bytes)
    return NativeTransport(decider, read_clock, addresses, settings=settings, tls=tls)


TRANSPORTS: dict[str, Factory] = {"grpcio": _grpcio, "native": _native}


@contextlib.asynccontextmanager
async def serving(
    make: Factory,
    decider: Decider,
    addresses: Sequence[str] = ("127.0.0.1:0",),
    *,
    tls: TlsSettings | None = None,
    max_message_bytes: int = 4 * 1024 * 1024,
) -> AsyncIterator[Transport]:
    """A started, serving transport, drained at the end."""
    transport = make(decider, addresses, tls, max_message_bytes)
    await transport.start()
    transport.set_serving(True)
    try:
        yield transport
    finally:
        await transport.drain(1.0)


def on_loop(test: Callable[..., Coroutine[object, object, None]]) -> Callable[..., None]:
    """Run an async test on an event loop of its own, at most 30 s."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 30))

    return run


async def code_of(call: grpc.aio.Call) -> grpc.StatusCode:
    """The status that a call ends in."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        await call
    return await call.code()

"""The native transport on real sockets: loops, TLS without HTTP/2, abusers beside friends, memory."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc.aio
import pytest
import uvloop

from ratelimit_service.transport.client import ClientTls, RateLimitClient
from ratelimit_service.transport.native import NativeTransport
from ratelimit_service.transport.native_settings import NativeSettings
from ratelimit_service.transport.native_tls import _context
from ratelimit_service.transport.tls import InvalidTls, TlsSettings
from ratelimit_service.wire.rls.client import encode_request
from support.certificates import Authority
from support.deciders import ValueDecider, read_clock, request_for
from support.http2_frames import (
    CONTINUATION,
    DATA,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    call,
    frame,
    headers,
    settings,
    word,
)
from support.transports import ASK, on_loop

BODY = encode_request(request_for(b"x"))


def _native(addresses: list[str], tls: TlsSettings | None = None, **given: int) -> NativeTransport:
    return NativeTransport(ValueDecider(), read_clock, addresses, settings=NativeSettings(**given), tls=tls)


async def _connect(transport: NativeTransport) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = transport.addresses[0].rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def _ask(transport: NativeTransport, times: int) -> int:
    async with grpc.aio.insecure_channel(transport.addresses[0]) as channel:
        return sum([len(await channel.unary_unary(ASK)(BODY)) > 0 for _ in range(times)])


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_both_event_loops_serve_tcp_and_unix(run: Callable[..., int], tmp_path: Path) -> None:
    """Under uvloop as in production, and under asyncio; the socket's file goes with the server."""
    path = tmp_path / "rls.sock"

    async def scene() -> int:
        transport = _native(["127.0.0.1:0", f"unix:{path}"])
        await transport.start()
        answered = await _ask(transport, 3)
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            answered += len(await channel.unary_unary(ASK)(BODY)) > 0
        await transport.drain(1)
        return answered

    assert run(scene()) == 4
    assert not path.exists()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_both_event_loops_serve_tls(run: Callable[..., bool], tmp_path: Path) -> None:
    """With ALPN h2."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("server")

    async def scene() -> bool:
        transport = _native(["127.0.0.1:0"], TlsSettings(cert, key))
        await transport.start()
        async with RateLimitClient(transport.addresses[0], ClientTls(authority.ca_path)) as client:
            over = (await client.ask(request_for(b"over"), 5)).over
        await transport.drain(1)
        return over

    assert run(scene())


@on_loop
@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
async def test_tls_without_http2_is_closed(protocols: list[str], tmp_path: Path) -> None:
    """A client that does not agree on h2 by ALPN gets nothing."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("server")
    transport = _native(["127.0.0.1:0"], TlsSettings(cert, key))
    await transport.start()
    context = ssl.create_default_context(cafile=str(authority.ca_path))
    for name in protocols:
        context.set_alpn_protocols([name])
    host, _, port = transport.addresses[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    writer.write(PREFACE + settings())
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    stats = transport.stats()
    await transport.drain(1)

    assert (stats.refused, stats.open) == (1, 0)


def test_files_that_vanish_between_two_looks_are_named(tmp_path: Path) -> None:
    """They were good a moment ago."""
    with pytest.raises(InvalidTls, match="gone"):
        _context(TlsSettings(tmp_path / "gone", tmp_path / "gone"))


ABUSES = {
    "rapid_reset": lambda n: call(2 * n + 1) + frame(RST_STREAM, 0, 2 * n + 1, word(8)),
    "settings_flood": lambda _: frame(SETTINGS, 0, 0),
    "ping_flood": lambda _: frame(PING, 0, 0, bytes(8)),
    "empty_data_flood": lambda n: frame(DATA, 0, 1) if n else headers(1),
    "header_block": lambda n: frame(CONTINUATION, 0, 1) if n else headers(1, flags=0),
}


@on_loop
async def test_abusers_are_closed_and_friends_do_not_notice() -> None:
    """One of each kind, while a client asks all the time and four hundred are idle."""
    transport = _native(["127.0.0.1:0"])
    await transport.start()
    idle = [await _connect(transport) for _ in range(400)]
    friend = asyncio.create_task(_ask(transport, 200))
    for load in ABUSES.values():
        reader, writer = await _connect(transport)
        writer.write(PREFACE + settings())
        with contextlib.suppress(ConnectionError):
            for start in range(0, 20_000, 500):
                writer.write(b"".join(load(number) for number in range(start, start + 500)))
                await writer.drain()
            await reader.read()
        writer.close()
    answered = await friend
    stats = transport.stats()
    for _, writer in idle:
        writer.close()
    await transport.drain(1)

    assert answered == 200
    assert {kind: count for kind, count in stats.abuse.items() if count} == dict.fromkeys(ABUSES, 1)
    assert stats.accepted == 406


@on_loop
async def test_a_slow_reader_does_not_fill_the_memory() -> None:
    """It asks and never reads: the server stops reading it, and cuts it when its patience is over."""
    transport = _native(["127.0.0.1:0"], stall_us=200_000, sweep_us=50_000, max_streams=10_000)
    await transport.start()
    reader, writer = await _connect(transport)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(PREFACE + settings((4, 2**30)) + frame(8, 0, 0, word(2**30)))
    asked = 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        while asked < 2_000_000:
            writer.write(b"".join(call(2 * number + 1, BODY) for number in range(asked, asked + 500)))
            asked += 500
            await asyncio.wait_for(writer.drain(), 5)
    writer.close()
    stats = transport.stats()
    await transport.drain(1)

    assert stats.abuse["slow_reader"] + stats.abuse["stalled"] == 1
    assert asked < 2_000_000
